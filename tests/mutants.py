"""Breaks the lines that docs/testing.md lists, one at a time, and reports which of them `make test` catches. `make mutants`.

Works on a copy of HEAD: the working tree is not touched. Each mutant meets its own tests (`caught_by`) first, then the unit
tests, then the rest of `make test`, the short tests first, up to the first failure. The failing test must pass without the
mutant. Results are kept in .cache/mutants.json. A second call continues after the last finished mutant; a result of an earlier
commit holds as long as neither the mutant's file nor that of the test which caught it has changed.
With --own-tests a mutant meets only its own tests: minutes instead of hours; one that they let pass stays untried.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ci.history import REPOSITORY, git

LIST = REPOSITORY / "docs" / "testing.md"
RESULTS = REPOSITORY / ".cache" / "mutants.json"
NEEDED = 18
# This test compares the list with the lines, and so fails for every mutant.
LIST_TEST = "tests/unit/test_documentation.py::test_each_mutant_breaks_a_line_that_occurs_once"
# `-x` and shortest first: see `tests/plugins/made_once.py`.
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder")


@dataclass(frozen=True)
class Mutant:
    """A line of `file` and its replacement; `caught_by`: the tests that run first."""

    file: str
    line: str
    becomes: str
    caught_by: str

    def broken(self, text):
        """Returns `text` with the line broken; the line occurs once."""
        if text.count(self.line) != 1:
            raise SystemExit(f"{self.file}: a mutant needs a line that occurs exactly once, not {self.line!r}")
        return text.replace(self.line, self.becomes)

    @property
    def key(self):
        return f"{self.file}: {self.line.strip()} -> {self.becomes.strip()}"

    @property
    def steps(self):
        """Returns (what runs, arguments of pytest), in the order in which the mutant meets them."""
        return (
            ("its own tests", self.caught_by.split()),
            ("the unit tests", ["tests/unit"]),
            ("the rest of make test", ["-m", "core and not unit", *SIDE_BY_SIDE]),
        )


def mutants():
    """Returns the mutants of the TOML block in docs/testing.md."""
    [block] = re.findall(r"```toml\n(\[\[mutant\]\].*?)```", LIST.read_text(), re.DOTALL)
    return [Mutant(**row) for row in tomllib.loads(block)["mutant"]]


def first_failure(output):
    """Returns file::function of the first failing test in what pytest printed, or None."""
    found = re.search(r"^(?:FAILED|ERROR) ([^\s:]+(?:::\w+)?)", output, re.MULTILINE)
    return found and found[1]


def failure(copy, arguments):
    """Returns the first failing test of a session in `copy`, its end if no test can be named, or None."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "unit or core", "--deselect", LIST_TEST, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if done.returncode in (0, 5):
        return None
    return first_failure(done.stdout) or f"exit code {done.returncode}: {(done.stdout + done.stderr)[-300:]}"


def caught(copy, mutant, say, steps):
    """Returns what catches a mutant in `steps`, or None."""
    path = copy / mutant.file
    whole = path.read_text()
    for what, arguments in steps:
        say(what)
        path.write_text(mutant.broken(whole))
        by = failure(copy, arguments)
        path.write_text(whole)
        if by is None:
            continue
        say(f"{by} without the mutant")
        if failure(copy, [by] if by.startswith("tests/") else arguments):
            raise SystemExit(f"{by} fails without a mutant too; mend it first")
        return by
    return None


@contextmanager
def copy_of_head():
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "copy"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(copy)], cwd=REPOSITORY, check=True)
        try:
            yield copy
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(copy)], cwd=REPOSITORY, check=True)


def earlier_results(chosen, commit, changed):
    """Returns key of a mutant -> {"by": what caught it or None, "commit": when}, of those that hold at `commit`.

    `changed`: a function (commit, files) -> whether one of the files has changed between that commit and `commit`.
    """
    found, held = kept(), {}
    for mutant in chosen:
        row = found.get(mutant.key)
        # A survivor may be caught by a test that was added since.
        if row and (
            row["commit"] == commit or (row["by"] and not changed(row["commit"], [mutant.file, row["by"].split("::")[0]]))
        ):
            held[mutant.key] = row
    return held


def kept():
    """Returns all results in .cache/mutants.json."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def changed_since(commit, files):
    """Returns whether one of `files` differs between a commit and HEAD; also if the commit is not known here."""
    command = ["git", "diff", "--quiet", commit, "HEAD", "--", *files]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False).returncode != 0


def keep(results):
    """Writes results; those of mutants that were not chosen stay."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept() | results, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="parts of file names: try these mutants only")
    parser.add_argument("--own-tests", action="store_true", help="run only the tests that `caught_by` names")
    parser.add_argument("--again", action="store_true", help="forget earlier results")
    arguments = parser.parse_args()
    chosen = [m for m in mutants() if not arguments.only or any(o in m.file for o in arguments.only)]
    commit = git("rev-parse", "HEAD")
    results = {} if arguments.again else earlier_results(chosen, commit, changed_since)
    with copy_of_head() as copy:
        for number, mutant in enumerate(chosen, 1):
            started, row = time.monotonic(), f"{number:>2}/{len(chosen)} {mutant.file}"
            before = " (from an earlier call)" if mutant.key in results else ""
            if not before:
                steps = mutant.steps[:1] if arguments.own_tests else mutant.steps
                by = caught(copy, mutant, lambda what, row=row: print(f"{row}: {what} ...", flush=True), steps)
                if by is None and arguments.own_tests:
                    print(f"{row}: not caught by {mutant.caught_by}", flush=True)
                    continue
                results[mutant.key] = {"by": by, "commit": commit}
                keep(results)
            by = results[mutant.key]["by"]
            outcome = f"caught by {by}" if by else f"SURVIVES: {mutant.line.strip()} -> {mutant.becomes.strip()}"
            print(f"{row}: {outcome}{before or f' ({time.monotonic() - started:.0f} s)'}", flush=True)
    number = sum(results.get(m.key, {}).get("by") is not None for m in chosen)
    print(f"{number} of {len(chosen)} mutants are caught")
    return 0 if number >= min(NEEDED, len(chosen)) else 1


if __name__ == "__main__":
    sys.exit(main())
