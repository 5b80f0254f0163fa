"""`--durations-file PATH`: seconds per test and per fixture, as JSON. `make durations` writes tests/durations.json with it.

A session that runs a part of the tests replaces what it ran; a test that is gone is dropped when its file is collected.
"""

import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests import durations
from tests.plugins.suites import FRAMEWORK_FREE


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
        self.collected, self.deselected, self.core = set(), set(), set()

    def pytest_deselected(self, items):
        self.deselected.update(_name_of(item.nodeid) for item in items)

    def pytest_itemcollected(self, item):
        self.collected.add(durations.file_of(item.nodeid))
        if item.get_closest_marker("core") or durations.suite_of(item.nodeid) == FRAMEWORK_FREE:
            self.core.add(item.nodeid)

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
        for kind in ("collected", "deselected", "core"):
            getattr(self, kind).update(output.get(kind, ()))

    def pytest_sessionfinish(self, session):
        if hasattr(self.config, "workeroutput"):
            found = {kind: sorted(getattr(self, kind)) for kind in ("collected", "deselected", "core")}
            self.config.workeroutput |= {"fixtures": dict(self.fixtures), **found}
            return
        path = Path(self.config.getoption("--durations-file"))
        measured = {
            "at_once": self.config.getoption("numprocesses", None) or 1,
            "fixtures": self.fixtures,
            "core": {name: seconds for name, seconds in self.tests.items() if name in self.core},
            "beyond": {name: seconds for name, seconds in self.tests.items() if name not in self.core},
        }
        durations.write(durations.merged(durations.read(path), measured, self._stays), path)

    def _stays(self, name):
        """Returns whether an earlier session's test may still be there though this one did not run it."""
        file = durations.file_of(name)
        return name in self.deselected or (file not in self.collected and Path(file).exists())


def _name_of(nodeid):
    """Returns a test's id without the group that xdist appends after `@`; an `@` in a parameter stays."""
    name, at, group = nodeid.rpartition("@")
    return name if at and "]" not in group else nodeid
