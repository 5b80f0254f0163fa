"""Arguments of a node survive the round trip through a compiled pipeline, under the names of the component's class."""

import pytest

from switchyard.pipelines.runners.kubeflow.bindings import bind, bound

GIVEN = ["examples", "exclude_splits", "statistics", "schema", "run_node"]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ({"examples": ["examples"]}, "examples"),
        ({"examples": ["examples"], "model": ["training_model"]}, "examples model=training_model"),
        ({"model": ["first", "second"]}, "model=first+second"),
        ({"model": []}, "model="),
        ({"a b": ["c"], "x=y": ["z"]}, {"a b": ["c"], "x=y": ["z"]}),
    ],
)
def test_names_survive_a_round_trip(names, text):
    written = bind("inputs", names, "", GIVEN)
    assert written == {"inputs": text}
    assert bound("inputs", written, GIVEN) == names


def test_no_binding_is_written_without_arguments():
    assert bind("views", {}, "", GIVEN) == {}
    assert bound("views", {}, GIVEN) == {}
