"""`--durations-file PATH`: seconds per test and per fixture, as JSON. `make durations` writes tests/durations.json with it.

A session that runs a part of the tests replaces what it ran; a test that is gone is dropped when its file is collected.
"""

import json
import time
from collections import defaultdict
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--durations-file", metavar="PATH", help="bring seconds per test and per fixture in PATH up to date")


def pytest_configure(config):
    if config.getoption("--durations-file"):
        config.pluginmanager.register(Durations(config), "durations-file")


class Durations:
    """Collects in every process of the session; the one in front writes."""

    def __init__(self, config):
        self.config = config
        self.tests, self.fixtures = defaultdict(float), defaultdict(float)
        self.collected, self.deselected = set(), set()

    def pytest_deselected(self, items):
        self.deselected.update(_name_of(item.nodeid) for item in items)

    def pytest_itemcollected(self, item):
        self.collected.add(_file_of(item.nodeid))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        # What a fixture takes of other fixtures has been set up by now.
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        if fixturedef.scope != "function" and seconds > 0.1:
            self.fixtures[f"{fixturedef.argname} ({fixturedef.func.__module__})"] += seconds

    def pytest_runtest_logreport(self, report):
        self.tests[_name_of(report.nodeid)] += report.duration

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        output = getattr(node, "workeroutput", {})
        for name, seconds in output.get("fixtures", {}).items():
            self.fixtures[name] += seconds
        self.collected.update(output.get("collected", ()))
        self.deselected.update(output.get("deselected", ()))

    def pytest_sessionfinish(self, session):
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput |= {
                "fixtures": dict(self.fixtures),
                "collected": sorted(self.collected),
                "deselected": sorted(self.deselected),
            }
            return
        path = Path(self.config.getoption("--durations-file"))
        before = json.loads(path.read_text()) if path.exists() else {"tests": {}, "fixtures": {}}
        tests = {name: seconds for name, seconds in before["tests"].items() if self._stays(name)} | self.tests
        suites = defaultdict(float)
        for name, seconds in tests.items():
            suites[name.split("/")[1]] += seconds
        document = {
            "at_once": self.config.getoption("numprocesses", None) or 1,
            "suites": _longest_first(suites),
            "fixtures": _longest_first({**before["fixtures"], **self.fixtures}),
            "tests": _longest_first(tests),
        }
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")

    def _stays(self, name):
        """Returns whether an earlier session's test may still be there though this one did not run it."""
        return name in self.deselected or (_file_of(name) not in self.collected and Path(_file_of(name)).exists())


def _name_of(nodeid):
    """Returns a test's id without the group that xdist appends after `@`; an `@` in a parameter stays."""
    name, at, group = nodeid.rpartition("@")
    return name if at and "]" not in group else nodeid


def _file_of(name):
    return name.partition("::")[0]


def _longest_first(seconds):
    return {name: round(s, 2) for name, s in sorted(seconds.items(), key=lambda item: (-round(item[1], 2), item[0]))}
