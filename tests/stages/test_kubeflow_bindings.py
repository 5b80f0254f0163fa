"""Arguments of a node are bound by the names that its component's class declares."""

import pytest

from switchyard.pipelines.runners.kubeflow.bindings import bind, bound

pytestmark = pytest.mark.core
STATISTICS = "tfx.components.statistics_gen.component.StatisticsGen"
GIVEN = ["examples", "exclude_splits", "statistics", "schema", "run_node"]


@pytest.mark.parametrize("names", [{"examples": ["examples"], "schema": ["schema"]}, {"examples": ["examples"]}, {}])
def test_declared_arguments_are_bound_by_name_and_all_others_are_written(names):
    """`schema` is an input that the class does not need: another node of the same task may have an argument of that name."""
    written = bind("inputs", names, STATISTICS, GIVEN)
    assert bound("inputs", {"component": STATISTICS, **written}, GIVEN) == names
    assert (written == {}) == (len(names) == 2)
