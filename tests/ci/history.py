"""`tests/last_passed.json`: the commit at which each suite last passed completely, and the landed commits."""

import json
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
FILE = REPOSITORY / "tests" / "last_passed.json"
# Written by the runs themselves; they make no tree another one.
RECORDS = ("tests/last_passed.json", "tests/durations.json")


def read():
    """Returns {"landings": [commit, ...], "suites": {name: {"commit", "passed", "seconds", "in_a_row"}}}."""
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    return {"landings": [], "suites": {}, **found}


def write(document):
    FILE.write_text(json.dumps({**document, "suites": dict(sorted(document["suites"].items()))}, indent=1) + "\n")


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def record(passed, counts, seconds, failed=()):
    """Records that suites have passed at this commit, and that others have failed; returns the text to print.

    `in_a_row`: how often a suite has passed since it last failed, in these records.
    """
    if not passed and not failed:
        return "no suite is recorded as passed"
    changed = git("status", "--porcelain", "--", ".", *(f":!{path}" for path in RECORDS))
    if changed is None or changed:
        return f"not recorded, as there are uncommitted changes: {', '.join([*passed, *failed])}"
    document = read()
    for name in passed:
        outcome = {k: n for k, n in counts[name].items() if n}
        in_a_row = document["suites"].get(name, {}).get("in_a_row", 0) + 1
        new = {"commit": git("rev-parse", "HEAD"), **outcome, "seconds": round(seconds[name]), "in_a_row": in_a_row}
        document["suites"][name] = new
    for name in failed:
        if name in document["suites"]:
            document["suites"][name]["in_a_row"] = 0
    write(document)
    done = [f"passed: {', '.join(passed)}"] * bool(passed) + [f"failed: {', '.join(failed)}"] * bool(failed)
    return f"recorded in tests/last_passed.json, {'; '.join(done)}"


def land(commit="HEAD", *, passed=()):
    """Records a landed commit, with which CI compares the next change; `passed`: the suites that CI ran for it."""
    document, found = read(), git("rev-parse", "--verify", f"{commit}^{{commit}}")
    if found is None:
        raise SystemExit(f"{commit}: no such commit")
    if found not in document["landings"]:
        document["landings"].append(found)
        for name in passed:
            document["suites"][name] = {**document["suites"].get(name, {}), "commit": found}
        write(document)
    return found


def landings_since(commit, document):
    """Returns the number of noted landings after `commit` (None: after the first one).

    The commits after the last of them are one change that is under way, however many they are; a landing that was not noted
    shows by their number, see `commits_under_way`.
    """
    landings = document["landings"]
    start = commit or (landings or [None])[0]
    return sum(git("merge-base", "--is-ancestor", landing, start) is None for landing in landings) if start else 0


def commits_under_way(document):
    """Returns the number of commits of the main line after the last landing that was noted."""
    last = document["landings"][-1] if document["landings"] else None
    return int(git("rev-list", "--count", "--first-parent", f"{last}..HEAD") or 0) if last else 0
