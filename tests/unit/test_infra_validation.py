"""What cannot be served does not pass, and what is compared is what a client reads."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from switchyard.components.bundle.model import BundleInfo, RawFeature, format_predictions
from switchyard.components.errors import StageError
from switchyard.components.evaluation.results import CANDIDATE, CHAMPION, Comparison, Evaluation, ModelResult
from switchyard.components.evaluation.servability import Servability, load, save, with_servability
from switchyard.components.infra_validation.check import _compare, _reason, _sendable
from switchyard.components.serving.client import from_records, from_tensors, records, scores_in, tensors
from switchyard.components.tasks import TASKS

BROKEN = Servability("it is broken")


def evaluation(*candidates, champion=False):
    """Candidates in their order: (name, what is wrong with it); the first one that is fine is blessed."""
    models = {
        n: ModelResult(n, CANDIDATE, n, n, None, {"auc": 0.9 - i / 100}, {}, {}, {}, not wrong, False, wrong)
        for i, (n, wrong) in enumerate(candidates)
    }
    best = next((n for n, wrong in candidates if not wrong), candidates[0][0])
    models[best] = dataclasses.replace(models[best], blessed=models[best].passed)
    if champion:
        models[CHAMPION] = ModelResult(CHAMPION, CHAMPION, "x", "x", "1", {"auc": 0.8}, {}, {}, {}, True, True)
    comparison = Comparison(best, CHAMPION, "auc", 0.1, None, None, None)
    return Evaluation("binary", "auc", "test", 10, best, models, [comparison], {}, "1" if champion else None, 0, "", None, [])


def test_servable_models_keep_their_verdicts():
    found = evaluation(("a", []), ("b", []), champion=True)
    assert with_servability(found, {"a": Servability(""), "b": Servability("")}) == found


def test_the_next_candidate_is_blessed_when_the_best_cannot_be_served():
    found = with_servability(evaluation(("a", []), ("b", []), champion=True), {"a": BROKEN, "b": Servability("")})
    assert (found.best, found.blessed, found.metrics["auc"]) == ("b", True, 0.89)
    assert found.models["a"].failures == ["cannot be served: it is broken"]
    assert not found.models["a"].passed
    assert found.models[CHAMPION].blessed
    assert not found.comparisons, "there was another model's alone"
    assert found.notes == ["a comes before b and cannot be served"]


def test_a_candidate_that_failed_the_gate_is_not_blessed_instead():
    found = with_servability(evaluation(("a", []), ("b", ["auc is too low"])), {"a": BROKEN, "b": Servability("")})
    assert (found.best, found.blessed) == ("a", False)
    assert found.failures == ["cannot be served: it is broken"]


def test_the_verdict_is_read_as_it_was_written(tmp_path):
    found = {"a": Servability("", 10, 1e-7, 2.5, {"p50_batch_1": 3.0}), "b": BROKEN}
    save(found, tmp_path)
    assert load(tmp_path) == found


@pytest.mark.parametrize(
    ("difference", "own", "why"),
    [
        (9e-6, 0.0, ""),
        (2e-5, 0.0, "its served scores differ from the offline ones by up to 2e-05, allowed: 1e-05"),
        (8e-5, 6e-5, ""),
        (3e-4, 6e-5, "its served scores differ from the offline ones by up to 0.0003, allowed: 0.00012"),
        (0.0, 4e-4, "its score of a row changes by up to 0.0004 with the other rows of its batch, allowed: 0.0001"),
    ],
)
def test_a_served_score_may_differ_as_much_as_the_models_own_scores(difference, own, why):
    found = _reason(difference, own)
    assert found.startswith(why) if why else not found


@pytest.fixture
def rows():
    frame = pd.DataFrame({"n": [1.5, np.nan], "i": [3, 4], "t": [b"a", None]})
    frame["v"] = [np.array([1.0, 2.0], np.float32), np.array([3.0, 4.0], np.float32)]
    return frame


FEATURES = [
    RawFeature("n", "float32", None),
    RawFeature("i", "int64", 1),
    RawFeature("t", "string", None),
    RawFeature("v", "float32", 2),
]


def test_rows_are_sent_as_clients_send_them(rows):
    assert records(rows, FEATURES) == [
        {"n": 1.5, "i": 3, "t": "a", "v": [1.0, 2.0]},
        {"n": None, "i": 4, "t": None, "v": [3.0, 4.0]},
    ]
    assert [(t["datatype"], t["shape"]) for t in tensors(rows, FEATURES)] == [
        ("FP64", [2]), ("INT64", [2]), ("BYTES", [2]), ("FP64", [2, 2]),
    ]  # fmt: skip


def test_rows_that_json_cannot_represent_are_not_sent(rows):
    rows.loc[0, "n"] = np.inf
    rows["t"] = [b"a", b"\xff"]
    sent = _sendable(rows, FEATURES)
    assert len(sent) == 1
    assert records(sent, FEATURES)[0]["t"] == {"b64": "/w=="}


@pytest.mark.parametrize(
    ("task", "classes", "scores"),
    [
        ("binary", ["no", "yes"], [[0.2], [0.7]]),
        ("multiclass", [1, 2, 3], [[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]]),
        ("regression", [], [[1000.0], [-2.0]]),
        ("multilabel", [], [[0.2, 0.7], [0.9, 0.1]]),
        ("multioutput", [], [[1000.0, 0.1], [-2.0, 0.3]]),
    ],
)
def test_scores_and_the_outputs_derived_from_them_are_compared(task, classes, scores):
    info = BundleInfo("x", "y:Z", task, "label", classes, [], targets=["a", "b"] if TASKS[task].has_labels else [])
    offline = np.asarray(scores, dtype=np.float32)
    answer = {k: v.tolist() for k, v in format_predictions(info, offline).items()}
    predictions = [dict(zip(answer, row, strict=True)) for row in zip(*answer.values(), strict=True)]
    assert from_records(predictions) == answer == from_tensors([{"name": k, "data": v, "shape": [2]} for k, v in answer.items()])
    np.testing.assert_array_equal(scores_in(answer, info), offline)
    assert _compare(answer, offline, info) == 0
    assert _compare(answer, offline + np.float32(0.001), info) == pytest.approx(0.001, abs=1e-3)
    with pytest.raises(StageError, match="rows for"):
        _compare(answer, offline[:1], info)
    with pytest.raises(StageError, match="not a finite number"):
        _compare({k: [None, None] for k in answer}, offline, info)
    for chosen in answer.keys() - set(info.score_names):
        with pytest.raises(StageError, match="cannot be read"):
            _compare({chosen: answer[chosen]}, offline, info)
        with pytest.raises(StageError, match="predictions do not match"):
            _compare({**answer, chosen: answer[chosen][::-1]}, offline, info)
