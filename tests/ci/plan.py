"""Chooses what CI runs beside `make test`: what a change touches and one heavy suite in turn, 45 minutes by what was measured.

Derived from the repository alone, never from the clock: the same commit gives the same plan on a slow day.
"""

import fnmatch
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests import durations
from tests.ci import history

TABLE = Path(__file__).parent / "suites.toml"
BUDGET = 45 * 60
# For a machine slower than the one on which the seconds were recorded.
RESERVE = 4 * 60
# Installation with cold caches, `make test` in two sessions, and the start of the suites' session.
FIXED = 4 * 60 + 11 * 60 + 60 + RESERVE
# Two tests at once: what a suite's seconds, one test after the other, become, unless a test of it keeps both cores busy.
AT_ONCE = 0.6
UNKNOWN_SECONDS = 15 * 60
# A suite that had fewer of its present tests when it was recorded takes longer now.
MOST_GROWTH = 1.1
MOST_LANDINGS = 10
# More commits are no one change: a landing was not noted, and `overdue` counts too few.
MOST_UNDER_WAY = 300
# Whoever changes these changes every suite.
TOUCHES_ALL = ("tests/*.py", "tests/plugins/*", "requirements*.lock", "setup.py", "Makefile")


@dataclass(frozen=True)
class Choice:
    """A suite: whether it runs, and why or why not."""

    name: str
    runs: bool
    why: str
    seconds: float


def table():
    """Returns suite -> {"touched_by": [pattern, ...], "heavy": bool, "device": text, "prepare": seconds, "both_cores": bool}."""
    return tomllib.loads(TABLE.read_text())


def touched(suites, changed):
    """Returns the suites that a change touches, in the table's order; `changed`: suite -> paths, None: not known, so all."""

    def is_touched(name, row):
        paths = changed[name]
        return paths is None or _match(paths, (*TOUCHES_ALL, f"tests/{name}/*", *row["touched_by"]))

    return [name for name, row in suites.items() if not row.get("device") and is_touched(name, row)]


def expected_seconds(record, measured):
    """Returns the seconds of a suite's tests beyond `make test`, one after the other.

    `record`: of its last pass, perhaps without seconds or with fewer tests than today; `measured`: (tests, seconds) of
    tests/durations.json.
    """
    tests, seconds = measured
    if "seconds" in record and record.get("passed", 0) * MOST_GROWTH >= tests:
        return record["seconds"]
    return seconds if tests else UNKNOWN_SECONDS


def choose(suites, changed, passed, commits_since, measured):
    """Returns a `Choice` per suite, those that run first.

    `passed`: suite -> its record; `commits_since`: suite -> commits since it passed, None: never; `measured`: suite -> (tests,
    seconds) of tests/durations.json.
    """

    def oldest_first(names):
        return sorted(names, key=lambda s: (commits_since[s] is not None, -(commits_since[s] or 0)))

    by_change = touched(suites, changed)
    turn = oldest_first(s for s, row in suites.items() if row.get("heavy"))[:1]
    left, choices = BUDGET - FIXED, []
    for name in turn + oldest_first(s for s in by_change if not suites[s].get("heavy")):
        tests = expected_seconds(passed.get(name, {}), measured.get(name, (0, 0)))
        seconds = tests * (1 if suites[name].get("both_cores") else AT_ONCE) + suites[name].get("prepare", 0)
        why = "its turn" if name in turn else "affected by the change"
        fits = seconds <= left
        if seconds > BUDGET - FIXED:
            why += ", but too long for 45 minutes even alone; split it"
        elif not fits:
            why += ", but over the 45 minutes by its measured duration"
        left -= seconds if fits else 0
        choices.append(Choice(name, fits, why, seconds))
    chosen = {c.name for c in choices}
    for name, row in suites.items():
        if name not in chosen:
            touch = "affected by the change, and " if name in by_change else ""
            why = f"{touch}another heavy suite is next" if row.get("heavy") else "not affected by the change"
            why = f"needs {row['device']}" if row.get("device") else why
            choices.append(Choice(name, False, why, 0))
    return sorted(choices, key=lambda c: not c.runs)


def overdue(suites, document, runs=()):
    """Returns the suites that have not passed for too many landings, those apart that run now: suite -> landings."""
    found = {}
    for name, row in suites.items():
        if name in runs:
            continue
        since = history.landings_since(document["suites"].get(name, {}).get("commit"), document)
        if since >= MOST_LANDINGS and not row.get("device"):
            found[name] = since
    return found


def of_this_commit():
    """Returns the choices for HEAD, and the record they were made from."""
    document, suites = history.read(), table()
    landed = document["landings"][-1] if document["landings"] else None
    changed, since = {}, {}
    for name in suites:
        commit = document["suites"].get(name, {}).get("commit")
        count = history.git("rev-list", "--count", "--first-parent", f"{commit}..HEAD") if commit else None
        since[name] = int(count) if count is not None else None
        # What was left out of an earlier landing is still to be shown.
        base = landed if commit and landed and history.git("merge-base", "--is-ancestor", landed, commit) is not None else commit
        paths = history.git("diff", "--name-only", base, "HEAD") if base and landed else None
        changed[name] = None if paths is None else paths.splitlines()
    return choose(suites, changed, document["suites"], since, durations.beyond_make_test()), document


def _match(changed, patterns):
    return any(fnmatch.fnmatch(path, pattern) for path in changed for pattern in patterns)
