"""Costly fixtures are built once in a session, also when several processes share the tests."""

import json
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from filelock import FileLock

from tests import durations


def made_once(function):
    """Marks a session fixture as costly: its tests run in one process, one after the other."""
    function.made_once = True
    return function


@pytest.fixture(scope="session")
def make_once(tmp_path_factory):
    """Returns a function: (name, build) -> folder and what `build(folder)` returned, JSON; built by whoever comes first."""
    base = tmp_path_factory.getbasetemp()
    # With xdist every process has a folder of its own in one of the session.
    root = Path(base.parent if base.name.startswith("popen-") else base) / "made once"
    root.mkdir(exist_ok=True)

    def get(name, build):
        folder, result = root / name, root / f"{name}.json"
        with FileLock(root / f"{name}.lock"):
            if not result.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                result.write_text(
                    json.dumps({"error": f"{name} could not be made; the first test that asked for it has the error"})
                )
                result.write_text(json.dumps({"made": build(folder)}))
            found = json.loads(result.read_text())
        if "error" in found:
            pytest.fail(found["error"])
        return folder, found["made"]

    return get


@pytest.hookimpl(tryfirst=True)  # before xdist puts the group into a test's id
def pytest_collection_modifyitems(config, items):
    """Groups what shares a costly fixture, or else one of its module, into one process of xdist; the longest come first.

    In a session that stops at its first failure (-x) the shortest come first.
    """
    if not hasattr(config, "workerinput"):
        return  # one process has them all
    for item in items:
        group = _group(item)
        if group and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))
    _by_seconds(items, shortest_first=config.getoption("maxfail") == 1)


def _by_seconds(items, *, shortest_first):
    """Orders the groups by their seconds in tests/durations.json, so that no long group runs alone at the end."""
    known = durations.seconds_of_tests()
    seconds = defaultdict(float)
    for item in items:
        seconds[_unit(item)] += known.get(item.nodeid, 1)
    sign = 1 if shortest_first else -1
    items.sort(key=lambda item: (sign * seconds[_unit(item)], _unit(item)))


def _unit(item):
    marker = item.get_closest_marker("xdist_group")
    return marker.args[0] if marker else item.nodeid


def _group(item):
    definitions = {name: found[-1] for name, found in item._fixtureinfo.name2fixturedefs.items()}
    costly = {n for n, d in definitions.items() if getattr(d.func, "made_once", False)}
    # One that is made from another stands for both.
    for name in list(costly):
        costly -= set(definitions[name].argnames) & costly
    if costly:
        return min(costly)
    return str(item.path) if any(d.scope == "module" for d in definitions.values()) else None
