"""Which class is the positive one, and what a model with the other one says."""

import json

import numpy as np
import pandas as pd
import pytest

from switchyard.components.baseline.fit import ChampionFit
from switchyard.components.bundle.model import BundleInfo, reordered
from switchyard.components.data import class_order
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.scan import scan
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.stage_settings import input_spec
from switchyard.pipelines.preflight import check_inputs

BAD = {"data": {"path": "d.csv"}, "label": "y", "name": "p"}


def positive(classes, counts=None, chosen=None):
    return class_order.ordered(sorted(classes), counts or {}, chosen)[0][-1]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([0, 1], 1),
        ([-1, 1], 1),
        (["false", "true"], "true"),
        (["YES", "no"], "YES"),
        (["positive", "zero"], "positive"),
        (["n", "y"], "y"),
        (["1", "0"], "1"),
    ],
)
def test_a_usual_name_is_the_positive_class_however_frequent_it_is(classes, expected):
    assert positive(classes, {expected: 999, **{c: 1 for c in classes if c != expected}}) == expected


@pytest.mark.parametrize("classes", [["bad", "good"], ["good", "zbad"], [1, 2], ["y", "x"], ["True", "yes"]])
@pytest.mark.parametrize("rare", [0, 1])
def test_without_a_usual_name_the_rarer_class_is_the_positive_one(classes, rare):
    assert positive(classes, {classes[rare]: 4, classes[1 - rare]: 96}) == classes[rare]


def test_of_two_equally_frequent_classes_the_last_by_name_is_positive_and_that_is_the_reason_given():
    found = class_order.ordered(["a", "b"], {"a": 5, "b": 5}, None)
    assert found == (["a", "b"], "the last by name of two equally frequent classes")
    assert class_order.ordered(["a", "b"], {"a": 5, "b": 6}, None)[1] == "the rarer class"


def write(tmp_path, labels):
    pd.DataFrame({"x": np.arange(len(labels)) % 7, "y": labels}).to_csv(tmp_path / "d.csv", index=False)
    return PipelineConfig.model_validate({**BAD, "data": {"path": str(tmp_path / "d.csv")}})


@pytest.mark.parametrize(
    ("labels", "chosen", "expected"),
    [
        (["bad", "good"], "good", "good"),
        ([0, 1], "0", 0),
        ([0, 1], "0.0", 0),
        ([0, 1], "false", 0),
        ([2**53, 2**53 + 1], str(2**53), 2**53),
    ],
)
def test_the_key_selects_the_class_by_any_spelling_of_its_value(labels, chosen, expected, tmp_path):
    config = write(tmp_path, labels * 9).model_copy(update={"positive_class": chosen})
    found = scan(input_spec(config), BadRows(0))
    assert (found.classes[-1], found.positive_by) == (expected, "chosen by positive_class")


def test_a_positive_class_that_does_not_exist_is_refused_before_the_run_with_the_existing_ones(tmp_path):
    config = write(tmp_path, ["bad", "good"] * 9).model_copy(update={"positive_class": "god"})
    with pytest.raises(
        UserError, match=r"positive_class: 'y' has no class 'god'. Did you mean 'good'\? The classes are bad, good"
    ):
        check_inputs(config, tmp_path)


@pytest.mark.parametrize("name", ["bad", "zbad"])
def test_a_renamed_class_stays_the_positive_one(name, tmp_path):
    config = write(tmp_path, [name] * 4 + ["good"] * 96)
    found = scan(input_spec(config), BadRows(0))
    assert (found.classes, found.positive_by) == (["good", name], "the rarer class")


@pytest.mark.parametrize(("labels", "task"), [([1.5, 2.5, 3.5], "regression"), (["a", "b", "c"], "multiclass")])
def test_a_task_without_a_positive_class_refuses_the_key_before_the_run(labels, task, tmp_path):
    config = write(tmp_path, labels * 9).model_copy(update={"positive_class": "a"})
    with pytest.raises(UserError, match=f"positive_class: a {task} task has no positive class, received 'a'"):
        check_inputs(config, tmp_path)


@pytest.mark.parametrize(("labels", "kept", "expected"), [
    ([0, 1] * 50, "0", None),
    (["bad"] * 60 + ["good"] * 40, "bad", "bad"),
    (["bad"] * 40 + ["good"] * 60, "bad", None),
    (["bad"] * 40 + ["good"] * 60, "gone", None),
    (["bad"] * 40 + ["good"] * 60, None, None),
])  # fmt: skip
def test_the_champions_positive_class_is_kept_if_the_data_suggests_another(labels, kept, expected, tmp_path):
    assert check_inputs(write(tmp_path, labels), tmp_path, lambda: kept).positive_class == expected


def test_the_key_takes_precedence_over_the_champion(tmp_path):
    config = write(tmp_path, ["bad"] * 60 + ["good"] * 40).model_copy(update={"positive_class": "good"})
    assert check_inputs(config, tmp_path, lambda: "bad").positive_class == "good"


@pytest.mark.parametrize(("given", "expected"), [(1, "1"), (True, "true"), ("bad", "bad")])
def test_the_key_is_read_as_text(given, expected):
    assert PipelineConfig.model_validate({**BAD, "positive_class": given}).positive_class == expected


def info(classes, task="binary"):
    return BundleInfo("pytorch", "pytorch", task, "y", classes, [])


def test_the_scores_of_a_model_with_the_other_positive_class_are_inverted():
    scores = np.array([[0.9], [0.2]])
    np.testing.assert_allclose(reordered(scores, info(["bad", "good"]), ["good", "bad"]), 1 - scores)
    np.testing.assert_allclose(reordered(scores, info(["good", "bad"]), ["good", "bad"]), scores)


def test_the_scores_of_several_classes_follow_their_order():
    scores = np.array([[0.7, 0.2, 0.1]])
    np.testing.assert_allclose(reordered(scores, info(["a", "b", "c"], "multiclass"), ["c", "a", "b"]), [[0.1, 0.7, 0.2]])


def test_a_champion_with_the_other_positive_class_is_compared_by_inverted_probabilities():
    summary = DatasetSummary("", [], {}, {}, {}, 0, [], [], "y", "binary", ["good", "bad"], {})
    champion = ChampionFit(info(["bad", "good"]), summary)
    assert champion.obstacle == ""
    np.testing.assert_allclose(champion.aligned(np.array([[0.9], [0.2]], np.float32)), [[0.1], [0.8]], atol=1e-6)


def test_a_summary_of_an_older_version_is_read(tmp_path):
    DatasetSummary("", [], {}, {}, {}, 0, [], [], "y", "binary", ["bad", "good"], {}).save(str(tmp_path))
    content = json.loads((tmp_path / "dataset.json").read_text())
    del content["positive_by"]
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert DatasetSummary.load(str(tmp_path)).positive_class == "good"
