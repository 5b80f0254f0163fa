"""Class weights name existing classes."""

import pytest

from switchyard.components.errors import UserError
from switchyard.components.training.class_weights import class_weights
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.preflight import check_inputs
from tests.bad_input import Case, config

pytestmark = pytest.mark.core


@pytest.mark.parametrize("name", ["1", "1.0", "true", "True"])
def test_a_class_is_known_by_any_spelling_of_its_number(name):
    assert class_weights({name: 5}, [0, 1], {}, "y") == (1.0, 5.0)


def test_balanced_weights_are_computed_from_the_rows_of_each_class():
    assert class_weights("balanced", ["a", "b"], {"a": 30, "b": 10}, "y") == (40 / 60, 40 / 20)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"2": 5}, "'2' is not a class of 'y'; the classes are 0, 1"), ({"1": 5, "1.0": 2}, "the class 1 of 'y' has two weights")],
)
def test_a_weight_of_an_unknown_or_a_duplicate_class_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        class_weights(given, [0, 1], {}, "y")


@pytest.mark.parametrize(
    ("weights", "labels", "message"),
    [
        ({"no": 2, "maybe": 3}, ["yes", "no"], "'maybe' is not a class of 'y'; the classes are no, yes"),
        ("balanced", range(200), "a regression such as 'y' has no classes"),
    ],
)
def test_invalid_weights_are_refused_before_a_run_starts(weights, labels, message, tmp_path):
    values = list(labels) * (200 // len(labels))
    files = {"d.csv": "x,y\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values))}
    case = Case("", "", config(trainer={"hyperparameters": {"class_weights": weights}}), files)
    with pytest.raises(UserError, match=message):
        check_inputs(load_config(case.write(tmp_path)), tmp_path / "code")
