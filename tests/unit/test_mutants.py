"""`make mutants`: results survive an interrupted call, and the test that catches a mutant is named."""

import pytest

from tests import mutants

CAUGHT = mutants.Mutant("a.py", "x", "y", "tests/unit/test_a.py")
SURVIVES = mutants.Mutant("b.py", "x", "y", "tests/unit/test_b.py")


def test_a_result_holds_until_its_file_or_the_test_changes_and_a_survivor_at_its_commit_only(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "RESULTS", tmp_path / ".cache" / "mutants.json")
    chosen = [CAUGHT, SURVIVES]
    assert mutants.earlier_results(chosen, "one", None) == {}
    caught = {CAUGHT.key: {"by": "tests/unit/test_a.py::test_x", "commit": "one"}}
    survives = {SURVIVES.key: {"by": None, "commit": "one"}}
    mutants.keep(caught)
    mutants.keep(survives)
    assert mutants.earlier_results(chosen, "one", None) == caught | survives
    assert mutants.earlier_results([CAUGHT], "one", None) == caught
    assert mutants.earlier_results(chosen, "two", lambda commit, files: "c.py" in files) == caught
    for changed in ("a.py", "tests/unit/test_a.py"):
        assert mutants.earlier_results(chosen, "two", lambda commit, files, name=changed: name in files) == {}


def test_a_file_has_changed_since_a_commit_that_is_not_known():
    head = mutants.git("rev-parse", "HEAD")
    assert not mutants.changed_since(head, ["tests/mutants.py"])
    assert mutants.changed_since("0" * 40, ["tests/mutants.py"])


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("FAILED tests/unit/test_a.py::test_x[a b - c] - assert 1 == 2", "tests/unit/test_a.py::test_x"),
        ("FAILED tests/e2e/test_b.py::test_y@trained - KeyError", "tests/e2e/test_b.py::test_y"),
        ("ERROR tests/unit/test_c.py - ImportError: x", "tests/unit/test_c.py"),
        ("3 passed in 1.0s", None),
    ],
)
def test_the_first_failing_test_is_named_without_its_parameters(line, name):
    assert mutants.first_failure(f"....F\n{line}\n") == name


def test_a_mutant_meets_the_tests_of_its_line_before_all_others():
    mutant = mutants.Mutant("a.py", "x", "y", "tests/unit/test_a.py")
    assert [arguments[0] for _, arguments in mutant.steps] == ["tests/unit/test_a.py", "tests/unit", "-m"]
