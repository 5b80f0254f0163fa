"""Build the site of docs/ into .cache/docs/site and check its links: `make docs`.

It runs in an environment with only Zensical, which supports only links between pages. Therefore the pages are copied first: links
to README.md, CONTRIBUTING.md and the like become links to their copies, links to code become the text of the link.
"""

import json
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent
WORK = REPOSITORY / ".cache" / "docs"
# Pages outside docs/ -> their path in the site.
PROJECT = {f"{name}.md": f"project/{name}.md" for name in ("CONTRIBUTING", "SECURITY", "CHANGELOG")}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_OTHER_HOST = re.compile(
    r"<(?:script|img|source|iframe)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>|<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>"
)


def rewrite(text: str, source: str, sources: dict[str, str]) -> str:
    """Returns a page with its links rewritten for the site.

    Args:
        text: the page.
        source: its path in the repository.
        sources: path in the repository -> path in the site, for every file of the site.
    """

    def link(match: re.Match[str]) -> str:
        image, words, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path == "README.md":
            path = "docs/index.md"
        if path not in sources:
            return words
        relative = posixpath.relpath(sources[path], posixpath.dirname(sources[source]) or ".")
        return f"{image}[{words}]({relative}{anchor or ''})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def settings() -> str:
    """Returns Zensical's settings, with the decisions in the navigation by their titles."""
    decisions = [
        f'{{ {json.dumps(page.read_text().splitlines()[0].removeprefix("# "))} = "decisions/{page.name}" }}'
        for page in sorted((DOCS / "decisions").glob("*.md"))
    ]
    return (DOCS / "zensical.toml").read_text().replace('"Decisions" = []', f'"Decisions" = [{", ".join(decisions)}]')


def stage() -> None:
    """Copy the pages and images."""
    shutil.rmtree(WORK, ignore_errors=True)
    files = [p for p in DOCS.rglob("*") if p.suffix in (".md", ".svg", ".png")]
    sources = {p.relative_to(REPOSITORY).as_posix(): p.relative_to(DOCS).as_posix() for p in files} | PROJECT
    for source, page in sources.items():
        to = WORK / "pages" / page
        to.parent.mkdir(parents=True, exist_ok=True)
        if to.suffix == ".md":
            to.write_text(rewrite((REPOSITORY / source).read_text(), source, sources))
        else:
            shutil.copyfile(REPOSITORY / source, to)
    (WORK / "zensical.toml").write_text(settings())


def fetched_from_elsewhere() -> list[str]:
    """Returns the elements of the site's pages that load from another host."""
    pages = sorted((WORK / "site").rglob("*.html"))
    return [f"{page.name}: {found}" for page in pages for found in _OTHER_HOST.findall(page.read_text())]


def main() -> int:
    """Build the site; 1 when a link is broken, a page is missing, or the site needs another host."""
    stage()
    done = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=WORK, check=False)
    if done.returncode:
        return done.returncode
    if found := fetched_from_elsewhere():
        print("the site fetches from another host:", *found, sep="\n  ")
        return 1
    print(f"{WORK / 'site'}; to view it: python3 -m http.server --bind 127.0.0.1 --directory .cache/docs/site")
    return 0


if __name__ == "__main__":
    sys.exit(main())
