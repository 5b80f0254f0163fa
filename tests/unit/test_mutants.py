"""`make mutants`: results survive an interrupted call, and the test that catches a mutant is named."""

import pytest

from tests import mutants


def test_results_are_kept_for_the_commit_that_they_were_found_at(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "RESULTS", tmp_path / ".cache" / "mutants.json")
    assert mutants.earlier_results("one") == {}
    mutants.keep("one", {"a.py: x -> y": "tests/unit/test_a.py::test_x"})
    assert mutants.earlier_results("one") == {"a.py: x -> y": "tests/unit/test_a.py::test_x"}
    assert mutants.earlier_results("two") == {}


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
