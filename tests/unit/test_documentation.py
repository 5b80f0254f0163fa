"""The names in the documentation exist."""

import re
import subprocess

import pytest

from tests.command import REPOSITORY
from tests.mutants import mutants
from tests.plugins.suites import suites

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_and_tests_that_a_page_names_exist(page):
    text = page.read_text()
    linked = [page.parent / target for target in re.findall(r"\]\((?!\w+:)([^)#\s]+)", text)]
    named = [REPOSITORY / path for path in re.findall(r"tests/[\w/]+\.(?:py|toml)\b", text)]
    assert [str(path) for path in (*linked, *named) if not path.exists()] == []


def test_tests_that_a_page_names_by_function_or_module_exist():
    files = list((REPOSITORY / "tests").rglob("test_*.py"))
    known = {path.stem for path in files} | {n for path in files for n in re.findall(r"def (test_\w+)\(", path.read_text())}
    # docs/testing.md lists the former names of merged tests.
    texts = [page.read_text().partition("Tests that were merged")[0] for page in [*PAGES, *(REPOSITORY / "tests").rglob("*.md")]]
    assert {name for text in texts for name in re.findall(r"`(test_\w+)`", text)} - known == set()


def test_make_targets_that_a_page_names_exist():
    known = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)) | {f"test-{s}" for s in suites()}
    named = {target for page in PAGES for target in re.findall(r"`make ([a-z-]+)(?=[`\s.,;:])", page.read_text())}
    assert named - known == set()


def test_each_mutant_breaks_a_line_that_occurs_once():
    found = mutants()
    assert len(found) >= 20
    for mutant in found:
        text = (REPOSITORY / mutant.file).read_text()
        assert mutant.broken(text) != text


def test_the_mutants_are_spread_over_the_packages():
    packages = {"/".join(m.file.split("/")[:2]) for m in mutants()}
    assert len(packages) >= 12


def test_the_makefiles_suites_are_the_folders():
    done = subprocess.run(["make", "-n", "test-nothing"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    listed = re.search(r"Suites: ([a-z0-9 -]+)", done.stdout)[1].split()
    assert set(listed) == set(suites())
