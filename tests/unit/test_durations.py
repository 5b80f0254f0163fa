"""`--durations-file`: a session replaces what it ran, and keeps what it did not."""

import json

import pytest

from tests.ci.history import REPOSITORY

pytest_plugins = ["pytester"]

BEFORE = {
    "tests/unit/test_here.py::test_quick": 9.0,
    "tests/unit/test_here.py::test_left_out": 8.0,
    "tests/unit/test_here.py::test_of_a_group": 4.0,
    "tests/unit/test_here.py::test_at[a@b]": 3.0,
    "tests/unit/test_here.py::test_gone": 7.0,
    "tests/unit/test_elsewhere.py::test_there": 6.0,
    "tests/unit/test_removed.py::test_there": 5.0,
}
# xdist writes a group behind a test's id: test_of_a_group@g.
HERE = """
import pytest
def test_quick(): pass
def test_left_out(): pass
@pytest.mark.xdist_group("g")
def test_of_a_group(): pass
@pytest.mark.parametrize("value", ["a@b"])
def test_at(value): pass
"""


@pytest.mark.parametrize("processes", [[], ["-n", "1", "--dist", "loadgroup"]])
def test_a_part_of_the_tests_replaces_its_own_seconds_and_keeps_those_of_the_others(pytester, monkeypatch, processes):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    folder = pytester.mkdir("tests") / "unit"
    folder.mkdir()
    (folder / "test_here.py").write_text(HERE)
    (folder / "test_elsewhere.py").write_text("def test_there(): pass\n")
    (pytester.path / "d.json").write_text(json.dumps({"tests": BEFORE, "fixtures": {"old (m)": 1.0}}))

    done = pytester.runpytest_subprocess(
        "-p", "tests.plugins.durations", "--durations-file", "d.json", "-k", "quick", "tests/unit/test_here.py", *processes
    )

    done.assert_outcomes(passed=1, deselected=0 if processes else 3)
    found = json.loads((pytester.path / "d.json").read_text())
    assert found["tests"].pop("tests/unit/test_here.py::test_quick") < 5
    assert found["tests"] == {
        "tests/unit/test_here.py::test_left_out": 8.0,
        "tests/unit/test_here.py::test_of_a_group": 4.0,
        "tests/unit/test_here.py::test_at[a@b]": 3.0,
        "tests/unit/test_elsewhere.py::test_there": 6.0,
    }
    assert found["fixtures"] == {"old (m)": 1.0}
