"""`--durations-file PATH`: seconds per test and per fixture, as JSON. `make durations` writes tests/durations.json with it."""

import json
import time
from collections import defaultdict
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--durations-file", metavar="PATH", help="write seconds per test and per fixture to PATH")


def pytest_configure(config):
    if config.getoption("--durations-file"):
        config.pluginmanager.register(Durations(config), "durations-file")


class Durations:
    """Collects in every process of the session; the one in front writes."""

    def __init__(self, config):
        self.config, self.started = config, time.monotonic()
        self.tests, self.fixtures = defaultdict(float), defaultdict(float)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        # What a fixture takes of other fixtures has been set up by now.
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        if fixturedef.scope != "function" and seconds > 0.1:
            self.fixtures[f"{fixturedef.argname} ({fixturedef.func.__module__})"] += seconds

    def pytest_runtest_logreport(self, report):
        self.tests[report.nodeid.partition("@")[0]] += report.duration

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        for name, seconds in getattr(node, "workeroutput", {}).get("fixtures", {}).items():
            self.fixtures[name] += seconds

    def pytest_sessionfinish(self, session):
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["fixtures"] = dict(self.fixtures)
            return
        suites = defaultdict(float)
        for name, seconds in self.tests.items():
            suites[name.split("/")[1]] += seconds
        document = {
            "wall_seconds": round(time.monotonic() - self.started),
            "at_once": self.config.getoption("numprocesses", None) or 1,
            "suites": _longest_first(suites),
            "fixtures": _longest_first(self.fixtures),
            "tests": _longest_first(self.tests),
        }
        Path(self.config.getoption("--durations-file")).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _longest_first(seconds):
    return {name: round(s, 2) for name, s in sorted(seconds.items(), key=lambda item: (-round(item[1], 2), item[0]))}
