"""Marks each test with its folder's name, so that any selection of suites runs in one session."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
# Where no framework may be imported; `tests/unit/conftest.py` holds it.
FRAMEWORK_FREE = "unit"


def suites():
    """Suite -> the first line of its `__init__.py`."""
    found = {}
    for path in sorted(TESTS.glob("*/__init__.py")):
        if any(path.parent.glob("test_*.py")):
            found[path.parent.name] = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    return found


def suite_of(path):
    """Returns the suite of a file below `tests`, or None."""
    relative = Path(path).relative_to(TESTS)
    return relative.parts[0] if len(relative.parts) > 1 else None


def pytest_addoption(parser):
    parser.addoption("--record", metavar="SUITES", help="note in tests/last_passed.json which of these suites passed")


def pytest_configure(config):
    config.addinivalue_line("markers", "core: part of `make test`, one whole pass of every capability")
    # pytest-xdist's own, known without it too.
    config.addinivalue_line("markers", "xdist_group(name): runs in one process with the other tests of the group")
    for name, line in suites().items():
        config.addinivalue_line("markers", f"{name}: {line}")


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path):
    """Imports PyTorch before a module may import TensorFlow, as the product does: see `import_order`."""
    if suite_of(module_path) != FRAMEWORK_FREE:
        from switchyard.components.import_order import import_torch_first

        import_torch_first()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(suite_of(item.path))


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    """Records the suites that passed, and prints the results of each suite."""
    found = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            if hasattr(report, "nodeid") and report.nodeid.startswith("tests/"):
                counts = found.setdefault(report.nodeid.split("/")[1], dict.fromkeys(("passed", "failed", "error", "skipped"), 0))
                counts[outcome] += 1
    if len(found) > 1:
        terminalreporter.section("suites")
        for name, counts in sorted(found.items()):
            said = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n)
            terminalreporter.write_line(f"{name:<12}{said}")
    wanted = config.getoption("--record")
    if not wanted or hasattr(config, "workerinput"):
        return
    from tests.ci import history

    if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or is_partial(config):
        terminalreporter.write_line("no suite is recorded: not all of its tests ran")
        return
    ran = {s: found[s] for s in wanted.split(",") if s in found}
    failed = [s for s, counts in ran.items() if counts["failed"] or counts["error"]]
    passed = [s for s, counts in ran.items() if counts["passed"] and s not in failed]
    terminalreporter.write_line(history.record(passed, ran, seconds_of(terminalreporter, passed), failed))


def is_partial(config):
    """Returns whether a session is of a part of its suites: by paths, names, or up to a number of failures."""
    by_path = config.args_source == config.ArgsSource.ARGS
    return bool(by_path or config.getoption("keyword") or config.getoption("deselect") or config.getoption("maxfail"))


def seconds_of(terminalreporter, names):
    """Suite -> seconds of its tests, one after the other."""
    total = dict.fromkeys(names, 0.0)
    for reports in terminalreporter.stats.values():
        for report in reports:
            name = getattr(report, "nodeid", "").split("/")[1:2]
            if name and name[0] in total:
                total[name[0]] += getattr(report, "duration", 0)
    return total
