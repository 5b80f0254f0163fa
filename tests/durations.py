"""`tests/durations.json`: what tests and fixtures take. `python -m tests.durations merge FILE...` adds what sessions measured.

A session writes its measurements with `--durations-file FILE` (see `tests/plugins/durations.py`). `merge` replaces what it
measured, drops tests that are gone, and writes the slowest into docs/testing.md; without files it does the latter two.
"""

import argparse
import ast
import json
import re
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
FILE = REPOSITORY / "tests" / "durations.json"
PAGE = REPOSITORY / "docs" / "testing.md"
# `core`: what `make test` runs; `beyond`: the rest of the suites.
PARTS = ("core", "beyond")
EMPTY = {"at_once": 1, "fixtures": {}, **{part: {} for part in PARTS}}
SLOWEST_TESTS, SLOWEST_FIXTURES = 20, 10
START, END = "<!-- written by python -m tests.durations -->\n", "<!-- end -->\n"
HEADS = ("| seconds | test | what it shows |\n| --- | --- | --- |\n", "| seconds | fixture |\n| --- | --- |\n")


def read(path=None):
    """Returns {"at_once", "suites", "fixtures": {name: seconds}, "core": {test: seconds}, "beyond": {test: seconds}}."""
    path = path or FILE
    return {**EMPTY, **(json.loads(path.read_text()) if path.exists() else {})}


def write(document, path=None):
    """Writes a document, the longest first, with the seconds of each suite."""
    suites = defaultdict(lambda: dict.fromkeys(PARTS, 0.0))
    for part in PARTS:
        for name, seconds in document[part].items():
            suites[suite_of(name)][part] += seconds
    whole = {
        "at_once": document["at_once"],
        "suites": {
            name: {part: round(seconds, 2) for part, seconds in parts.items()}
            for name, parts in sorted(suites.items(), key=lambda item: -sum(item[1].values()))
        },
        **{part: longest_first(document[part]) for part in ("fixtures", *PARTS)},
    }
    (path or FILE).write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def merged(before, after, stays):
    """Returns `before` with what `after` measured; `stays`: whether a test that `after` did not run is kept."""
    kept = {part: {n: s for n, s in before[part].items() if stays(n)} for part in PARTS}
    for part, other in (PARTS, PARTS[::-1]):
        kept[part] |= after[part]
        kept[other] = {n: s for n, s in kept[other].items() if n not in after[part]}
    return {"at_once": after["at_once"], "fixtures": {**before["fixtures"], **after["fixtures"]}, **kept}


def seconds_of_tests():
    """Returns test -> seconds, of all suites."""
    document = read()
    return {name: seconds for part in PARTS for name, seconds in document[part].items()}


def beyond_make_test():
    """Returns suite -> (number of measured tests that `make test` does not run, their seconds)."""
    found = {}
    for name, seconds in read()["beyond"].items():
        tests, total = found.get(suite_of(name), (0, 0.0))
        found[suite_of(name)] = tests + 1, total + seconds
    return found


def longest_first(seconds):
    return {name: round(s, 2) for name, s in sorted(seconds.items(), key=lambda item: (-round(item[1], 2), item[0]))}


def suite_of(name):
    return name.split("/")[1]


def file_of(name):
    return name.partition("::")[0]


def function_of(name):
    return re.split(r"::|\[", name)[1]


def module_of(fixture):
    """Returns the file of `a (tests.b.c)`."""
    return REPOSITORY / (re.search(r"\((.*)\)$", fixture)[1].replace(".", "/") + ".py")


@cache
def functions(file):
    """Returns function -> the first line of its docstring, of a file of tests; empty if there is none."""
    path = REPOSITORY / file
    tree = ast.parse(path.read_text() if path.exists() else "")
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {node.name: (ast.get_docstring(node) or "").partition("\n")[0].rstrip(".") for node in found}


def exists(name):
    """Returns whether a test's function is in its file; which parameters there are is not looked at."""
    return function_of(name) in functions(file_of(name))


def page(text, document):
    """Returns docs/testing.md with the slowest tests and fixtures of `document`; a sentence about a test stays as it is."""
    before, _, rest = text.partition(START)
    block, _, after = rest.partition(END)
    said = dict(re.findall(r"^\| \d+ \| `\w+` `(\w+)`[^|]*\| (.*) \|$", block, re.MULTILINE))
    parts = [_slowest_tests(document, said), _slowest_fixtures(document), *_not_measured(document)]
    return before + START + "\n".join(parts) + END + after


def _not_measured(document):
    measured = {suite_of(name) for part in PARTS for name in document[part]}
    missing = sorted({path.parent.name for path in (REPOSITORY / "tests").glob("*/test_*.py")} - measured)
    return [f"Not measured yet: {', '.join(f'`{name}`' for name in missing)}.\n"] if missing else []


def _slowest_tests(document, said):
    slowest = {}
    for part in PARTS:
        for name, seconds in document[part].items():
            key = file_of(name), function_of(name)
            # Of several parameters the slowest one.
            slowest[key] = max(slowest.get(key, (0, "")), (seconds, " (`core`)" if part == "core" else ""))
    rows = sorted(slowest.items(), key=lambda item: (-item[1][0], item[0]))[:SLOWEST_TESTS]
    lines = []
    for (file, function), (seconds, core) in rows:
        sentence = said.get(function) or functions(file).get(function) or function.removeprefix("test_").replace("_", " ")
        lines.append(f"| {seconds:.0f} | `{suite_of(file)}` `{function}`{core} | {sentence} |\n")
    return HEADS[0] + "".join(lines)


def _slowest_fixtures(document):
    rows = list(longest_first(document["fixtures"]).items())[:SLOWEST_FIXTURES]
    return HEADS[1] + "".join(f"| {seconds:.0f} | `{name.replace(' (', '` (')} |\n" for name, seconds in rows)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["merge"])
    parser.add_argument("files", nargs="*", type=Path, help="written by sessions with --durations-file, the latest last")
    given = parser.parse_args(arguments)
    document = read()
    for file in given.files:
        measured = json.loads(file.read_text())
        if not {"fixtures", *PARTS} <= measured.keys():
            sys.exit(f"{file}: not written by --durations-file of this version; measure again")
        document = merged(document, measured, lambda name: True)
    for part in PARTS:
        document[part] = {name: seconds for name, seconds in document[part].items() if exists(name)}
    document["fixtures"] = {name: s for name, s in document["fixtures"].items() if module_of(name).is_file()}
    write(document)
    PAGE.write_text(page(PAGE.read_text(), document))
    tests = {part: len(document[part]) for part in PARTS}
    print(f"{FILE.name}: {tests['core']} tests of make test, {tests['beyond']} beyond it; {PAGE.name} has the slowest")
    return 0


if __name__ == "__main__":
    sys.exit(main())
