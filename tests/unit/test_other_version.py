"""A pipeline that another version compiled: what the installed one cannot run is refused with what to do."""

import json

import pytest
from pydantic import ValidationError

from switchyard.components.errors import UserError
from switchyard.components.evaluation.config import EvaluationSettings
from switchyard.pipelines.runners.kubeflow.task.other_version import compiled_by, explained


def settings(version, **changed):
    return {"settings": json.dumps({"improvement": None, "version": version, **changed})}


def run(properties):
    with explained(properties):
        EvaluationSettings.model_validate_json(properties["settings"])


def test_settings_of_another_version_that_are_not_understood_name_both_versions_and_what_to_do():
    said = r"compiled by Switchyard 9.9.9, and the image has \d.*cannot run it.*use an image of 9.9.9, or compile .* again"
    with pytest.raises(UserError, match=f"kubeflow.image: .*{said}"):
        run(settings("9.9.9", key_of_a_later_version=1))


def test_settings_of_another_version_that_are_understood_are_used():
    run(settings("9.9.9"))


def test_an_error_in_a_pipeline_of_this_version_stays_what_it_is():
    from importlib.metadata import version

    with pytest.raises(ValidationError):
        run(settings(version("switchyard"), no_such_key=1))
    with pytest.raises(AttributeError), explained({"custom": "[1]", "other": None, "module": "{}"}):
        raise AttributeError("of a node of another project")


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"input": "{}", "version": "0.1.0"}, "0.1.0"),
        ({"custom_config": '{"code": null, "version": "0.2.0"}', "n": 1}, "0.2.0"),
        ({"a": "text", "b": "[]", "c": '{"version": 3}', "d": "null"}, None),
    ],
)
def test_the_version_is_read_from_each_kind_of_settings(properties, expected):
    assert compiled_by(properties) == expected
