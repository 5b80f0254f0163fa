"""`--durations-file` and `python -m tests.durations merge`: what was measured is replaced, the rest is kept."""

import json

import pytest

from tests import durations
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
    # Plugins of other libraries take longer to import than the session does to run.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    folder = pytester.mkdir("tests") / "unit"
    folder.mkdir()
    (folder / "test_here.py").write_text(HERE)
    (folder / "test_elsewhere.py").write_text("def test_there(): pass\n")
    (pytester.path / "d.json").write_text(json.dumps({"core": {}, "beyond": BEFORE, "fixtures": {"old (m)": 1.0}}))

    done = pytester.runpytest_subprocess(
        "-p",
        "xdist",
        "-p",
        "tests.plugins.durations",
        "--durations-file",
        "d.json",
        "-k",
        "quick",
        "tests/unit/test_here.py",
        *processes,
    )

    done.assert_outcomes(passed=1, deselected=0 if processes else 3)
    found = json.loads((pytester.path / "d.json").read_text())
    assert found["core"].pop("tests/unit/test_here.py::test_quick") < 5
    assert found["core"] == {}
    assert found["beyond"] == {
        "tests/unit/test_here.py::test_left_out": 8.0,
        "tests/unit/test_here.py::test_of_a_group": 4.0,
        "tests/unit/test_here.py::test_at[a@b]": 3.0,
        "tests/unit/test_elsewhere.py::test_there": 6.0,
    }
    assert found["fixtures"] == {"old (m)": 1.0}


def test_the_page_lists_the_slowest_tests_of_the_file():
    text = durations.PAGE.read_text()
    assert durations.page(text, durations.read()) == text, "run python -m tests.durations merge"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Returns a function that writes a file of durations; the repository's are in a folder of this test."""
    monkeypatch.setattr(durations, "FILE", tmp_path / "durations.json")
    monkeypatch.setattr(durations, "PAGE", tmp_path / "testing.md")
    durations.PAGE.write_text(f"before\n{durations.START}{durations.END}after\n")

    def made(name="durations.json", *, core=(), beyond=(), fixtures=()):
        document = {"at_once": 2, "core": dict(core), "beyond": dict(beyond), "fixtures": dict(fixtures)}
        durations.write(document, tmp_path / name)
        return str(tmp_path / name)

    return made


# Tests that there are: what is gone is dropped.
THIS = "tests/unit/test_durations.py::test_the_page_lists_the_slowest_tests_of_the_file"
OTHER = "tests/unit/test_durations.py::test_merged_sessions_replace_what_they_measured"
GONE = "tests/unit/test_durations.py::test_that_is_gone"


def test_merged_sessions_replace_what_they_measured(files):
    here = f"({__name__})"
    files(beyond={THIS: 1.0, OTHER: 2.0, GONE: 3.0}, fixtures={f"a {here}": 1.0, f"b {here}": 2.0, "c (tests.unit.gone)": 3.0})
    first = files("first.json", core={THIS: 4.0}, fixtures={f"a {here}": 5.0})
    second = files("second.json", core={THIS: 6.0}, beyond={f"{THIS}[a]": 7.0})
    assert durations.main(["merge", first, second]) == 0
    found = durations.read()
    assert found["core"] == {THIS: 6.0}, "measured last, as a test of make test"
    assert found["beyond"] == {f"{THIS}[a]": 7.0, OTHER: 2.0}
    assert found["fixtures"] == {f"a {here}": 5.0, f"b {here}": 2.0}
    assert found["suites"] == {"unit": {"core": 6.0, "beyond": 9.0}}


def test_the_page_keeps_a_sentence_about_a_test_and_has_the_name_of_a_new_one(files):
    kept = f"| 1 | `unit` `{durations.function_of(OTHER)}` | what we say |\n"
    durations.PAGE.write_text(f"before\n{durations.START}{kept}{durations.END}after\n")
    files(core={f"{THIS}[a]": 3.0, f"{THIS}[b]": 7.6}, beyond={OTHER: 5.0})
    durations.main(["merge"])
    text = durations.PAGE.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.index("| 8 | `unit` `test_the_page_lists_the_slowest_tests_of_the_file` (`core`) | the page lists") < text.index(
        "| 5 | `unit` `test_merged_sessions_replace_what_they_measured` | what we say |"
    )
    assert "| 3 |" not in text, "of several parameters the slowest one"


def test_a_file_of_another_form_is_refused(files, tmp_path):
    files()
    (tmp_path / "old.json").write_text(json.dumps({"tests": {}, "fixtures": {}}))
    with pytest.raises(SystemExit, match="measure again"):
        durations.main(["merge", str(tmp_path / "old.json")])
