"""What `make docs` builds: every page has its place, links lead somewhere, nothing is fetched from another host."""

import re
import runpy
import tomllib

import pytest

from tests.command import REPOSITORY

DOCS = REPOSITORY / "docs"
make_site = runpy.run_path(str(DOCS / "make_site.py"))
SOURCES = {
    "docs/a.md": "a.md",
    "docs/decisions/1.md": "decisions/1.md",
    "docs/index.md": "index.md",
    "SECURITY.md": "project/SECURITY.md",
}
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")])


def pages_of(nav):
    for [value] in (entry.values() for entry in nav):
        yield from [value] if isinstance(value, str) else pages_of(value)


def test_every_page_has_its_place_in_the_navigation():
    nav = tomllib.loads(make_site["settings"]())["project"]["nav"]
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} | set(make_site["PROJECT"].values())
    assert sorted(pages_of(nav)) == sorted(there)


def test_every_decision_has_a_unique_number_that_its_title_repeats():
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    assert [page.name for page in pages if not page.read_text().startswith(f"# {int(page.name[:4])}. ")] == []


@pytest.mark.parametrize(
    ("source", "before", "after"),
    [
        ("docs/a.md", "[why](decisions/1.md#so)", "[why](decisions/1.md#so)"),
        ("docs/decisions/1.md", "[a](../a.md)", "[a](../a.md)"),
        ("docs/a.md", "[policy](../SECURITY.md)", "[policy](project/SECURITY.md)"),
        ("SECURITY.md", "[a](docs/a.md), [start](README.md)", "[a](../a.md), [start](../index.md)"),
        ("docs/a.md", "[tests](../tests/unit/test_site.py), [here](#there)", "tests, [here](#there)"),
        ("docs/a.md", "[out](https://example.org/x)", "[out](https://example.org/x)"),
        ("docs/a.md", "```\n[tests](../tests/x.py)\n```\n", "```\n[tests](../tests/x.py)\n```\n"),
    ],
)
def test_links_are_those_of_the_site(source, before, after):
    assert make_site["rewrite"](before, source, SOURCES) == after


@pytest.mark.parametrize(
    ("html", "count"),
    [
        ('<script src="https://cdn.example/x.js">', 1),
        ('<link rel="stylesheet" href="//fonts.example/css">', 1),
        ('<img src="http://example.org/x.png">', 1),
        ('<a href="https://example.org">out</a><script src="assets/x.js"></script>', 0),
    ],
)
def test_resources_from_another_host_are_found(html, count):
    assert len(make_site["_OTHER_HOST"].findall(html)) == count


def anchors(page):
    """Returns a page's anchors, as a forge makes them and as Zensical is configured to."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_every_anchor_that_a_page_links_to_exists(page):
    linked = re.findall(r"\]\((?!\w+:)([^)#\s]*)#([^)\s]+)\)", page.read_text())
    assert [f"{file}#{anchor}" for file, anchor in linked if anchor not in anchors(page.parent / file if file else page)] == []
