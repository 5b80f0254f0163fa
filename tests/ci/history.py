"""`tests/last_passed.json`: at which commit a suite last passed whole, and which commits have landed."""

import json
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
FILE = REPOSITORY / "tests" / "last_passed.json"
# Written by the runs themselves; they make no tree another one.
RECORDS = ("tests/last_passed.json", "tests/durations.json")
# Of the main line's first 166 commits: what a landing that was not noted counts as. A merged branch is one commit of it.
COMMITS_OF_A_LANDING = 12


def read():
    """Returns {"landings": [commit, ...], "suites": {name: {"commit", "tests", "seconds"}}}."""
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    return {"landings": [], "suites": {}, **found}


def write(document):
    FILE.write_text(json.dumps({**document, "suites": dict(sorted(document["suites"].items()))}, indent=1) + "\n")


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def record(passed, counts, seconds):
    """Notes that suites have passed at this commit; returns what to print."""
    if not passed:
        return "no suite is recorded as passed"
    changed = git("status", "--porcelain", "--", ".", *(f":!{path}" for path in RECORDS))
    if changed is None or changed:
        return f"{', '.join(passed)} passed and not recorded: there are uncommitted changes"
    document = read()
    for name in passed:
        outcome = {k: n for k, n in counts[name].items() if n}
        document["suites"][name] = {"commit": git("rev-parse", "HEAD"), **outcome, "seconds": round(seconds[name])}
    write(document)
    return f"recorded in tests/last_passed.json: {', '.join(passed)}"


def land(commit="HEAD"):
    """Notes that a commit has landed: what CI compares the next change with."""
    document, found = read(), git("rev-parse", "--verify", f"{commit}^{{commit}}")
    if found is None:
        raise SystemExit(f"{commit}: there is no such commit")
    if found not in document["landings"]:
        document["landings"].append(found)
        write(document)
    return found


def landings_since(commit, document):
    """Returns the number of landings after `commit` (None: since the first that was noted).

    Those that were noted, or, where one was forgotten, what the commits up to the last noted one make. The commits after it
    are one change that is under way: no landing yet, however many they are.
    """
    landings = document["landings"]
    start = commit or (landings or [None])[0]
    last = landings[-1] if landings else "HEAD"
    commits = git("rev-list", "--count", "--first-parent", f"{start}..{last}") if start else None
    if commits is None:
        return 0
    noted = [c for c in landings if git("merge-base", "--is-ancestor", c, start) is None]
    return max(len(noted), int(commits) // COMMITS_OF_A_LANDING)


def commits_under_way(document):
    """Returns the number of commits of the main line after the last landing that was noted."""
    last = document["landings"][-1] if document["landings"] else None
    return int(git("rev-list", "--count", "--first-parent", f"{last}..HEAD") or 0) if last else 0
