"""Breaks the lines that docs/testing.md lists, one at a time, and says which of them `make test` catches. `make mutants`.

Works on a copy of HEAD: nothing of the working tree is touched. A mutant that its own tests (`caught_by`) do not catch meets
all tests of `make test`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
LIST = REPOSITORY / "docs" / "testing.md"
NEEDED = 18
LIST_TEST = "tests/unit/test_documentation.py::test_each_mutant_breaks_a_line_that_is_there_once"
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder")


@dataclass(frozen=True)
class Mutant:
    """A line of `file`, and what is put in its place; `caught_by`: the tests that are tried first."""

    file: str
    line: str
    becomes: str
    caught_by: str

    def broken(self, text):
        """Returns `text` with the line broken; the line is there once."""
        if text.count(self.line) != 1:
            raise SystemExit(f"{self.file}: a mutant needs a line that occurs exactly once, not {self.line!r}")
        return text.replace(self.line, self.becomes)


def mutants():
    """Returns the mutants of the TOML block in docs/testing.md."""
    [block] = re.findall(r"```toml\n(\[\[mutant\]\].*?)```", LIST.read_text(), re.DOTALL)
    return [Mutant(**row) for row in tomllib.loads(block)["mutant"]]


def fails(copy, *arguments):
    """Returns the first failing test of a session in `copy`, or None."""
    # That test compares the list with the lines: of course it sees the mutant.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "unit or core", "--deselect", LIST_TEST, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if done.returncode in (0, 5):
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else f"exit code {done.returncode}: {(done.stdout + done.stderr)[-300:]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="parts of file names: try these mutants only")
    chosen = [m for m in mutants() if not (only := parser.parse_args().only) or any(o in m.file for o in only)]
    caught = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "copy"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(copy)], cwd=REPOSITORY, check=True)
        try:
            for number, mutant in enumerate(chosen, 1):
                path, started = copy / mutant.file, time.monotonic()
                text = path.read_text()
                path.write_text(mutant.broken(text))
                by = fails(copy, *mutant.caught_by.split()) or fails(
                    copy, "-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder"
                )
                path.write_text(text)
                caught += by is not None
                said = f"caught by {by}" if by else f"SURVIVES: {mutant.line.strip()} -> {mutant.becomes.strip()}"
                print(f"{number:>2}/{len(chosen)} {mutant.file}: {said} ({time.monotonic() - started:.0f} s)", flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(copy)], cwd=REPOSITORY, check=True)
            shutil.rmtree(copy, ignore_errors=True)
    print(f"{caught} of {len(chosen)} mutants are caught")
    needed = min(NEEDED, len(chosen)) if len(chosen) >= NEEDED else len(chosen)
    return 0 if caught >= needed else 1


if __name__ == "__main__":
    sys.exit(main())
