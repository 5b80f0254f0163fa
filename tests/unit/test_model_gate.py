"""The bootstrap and the model gate: what is surely better, what is noise, what a slice says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score, roc_auc_score

from components.evaluation.bootstrap import Rows, interval, replicates, weighted_metrics
from components.evaluation.model_gate import check_thresholds, compare, judge
from components.evaluation.results import CANDIDATE, CHAMPION, ModelResult


def binary(n, skill, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n).astype(float)
    scores = 1 / (1 + np.exp(-(skill * (labels - 0.5) + random.normal(size=n))))
    return labels, scores[:, np.newaxis].astype(np.float32)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), skill=st.floats(0, 3))
def test_the_weighted_metrics_are_scikit_learns(seed, skill):
    labels, scores = binary(400, skill, seed)
    weights = np.random.default_rng(seed).poisson(1.0, 400).astype(float)
    found = {m: f(weights) for m, f in weighted_metrics("binary", labels, scores).items()}
    p = scores[:, 0].astype(float)
    said = p > 0.5
    expected = {
        # Scores are rounded to 10,000 bins, as TFMA's are.
        "auc": roc_auc_score(labels, np.floor(p * 10_000), sample_weight=weights),
        "loss": log_loss(labels, p, sample_weight=weights),
        "precision": precision_score(labels, said, sample_weight=weights),
        "recall": recall_score(labels, said, sample_weight=weights),
        "f1": f1_score(labels, said, sample_weight=weights),
    }
    assert {m: found[m] for m in expected} == pytest.approx(expected, abs=1e-6)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Accuracy of a coin of known bias: a 95 % interval misses it in about 5 of 100 samples."""
    inside = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        labels = np.ones(300)
        scores = np.where(random.random(300) < 0.8, 0.9, 0.1).astype(np.float32)[:, np.newaxis]
        low, high = interval(replicates(Rows("binary", labels, {"m": scores}))["m"]["accuracy"])
        inside += low <= 0.8 <= high
    assert 88 <= inside <= 100


def result(name, role, scores, labels, **more):
    metrics = {m: f(np.ones(len(labels))) for m, f in weighted_metrics("binary", labels, scores).items()}
    metrics["example_count"] = float(len(labels))
    version = "1" if role == CHAMPION else None
    return ModelResult(name, role, name, f"uri-{name}", version, metrics, {}, more.get("slices", {}), {})


def gate(labels, scores, champion_uri="uri-of-another", **settings_):
    models = {n: result(n, CHAMPION if n == CHAMPION else CANDIDATE, s, labels) for n, s in scores.items()}
    samples = replicates(Rows("binary", labels, scores))
    chosen = {"thresholds": {}, "improvement": {"minimum": 0.0, "confidence": 0.95}, "min_slice_examples": 100, **settings_}
    return judge(models, chosen, "auc", samples, champion_uri)


def test_a_clearly_better_model_is_blessed_and_a_clearly_worse_one_is_not():
    labels, good = binary(2000, 2.0, 0)
    _, poor = binary(2000, 0.0, 1)
    poor = (0.5 * poor + 0.25 * good).astype(np.float32)
    best, judged = gate(labels, {"a": good, CHAMPION: poor})
    assert (best, judged["a"].blessed) == ("a", True)
    best, judged = gate(labels, {"a": poor, CHAMPION: good})
    assert not judged["a"].blessed
    assert judged["a"].passed
    assert "worse" in judged["a"].failures[0]


def test_noise_is_not_an_improvement():
    labels, scores = binary(300, 1.0, 0)
    noisy = (scores + np.random.default_rng(1).normal(0, 0.01, scores.shape)).clip(0.01, 0.99).astype(np.float32)
    samples = replicates(Rows("binary", labels, {"a": noisy, CHAMPION: scores}))
    one, other = result("a", CANDIDATE, noisy, labels), result(CHAMPION, CHAMPION, scores, labels)
    found = compare(one, other, "auc", samples)
    assert abs(found.difference) < 0.01
    assert found.low < 0 < found.high
    # Whichever way the coin fell: neither replaces the other.
    for first, second in ((noisy, scores), (scores, noisy)):
        _, judged = gate(labels, {"a": first, CHAMPION: second})
        assert not judged["a"].blessed
    _, judged = gate(labels, {"a": max((noisy, scores), key=lambda s: roc_auc_score(labels, s)), CHAMPION: scores * 0 + 0.5})
    assert judged["a"].blessed


def test_the_champion_itself_need_not_be_better_than_itself():
    labels, scores = binary(300, 1.0, 0)
    best, judged = gate(labels, {"a": scores, CHAMPION: scores}, champion_uri="uri-a")
    assert judged[best].blessed
    assert judged[best].notes == ["it is the champion already"]
    _, judged = gate(labels, {"a": scores, CHAMPION: scores})
    assert not judged["a"].blessed


def test_the_best_of_those_that_pass_is_blessed():
    labels, good = binary(1000, 2.0, 0)
    _, middling = binary(1000, 1.0, 0)
    best, judged = gate(labels, {"middling": middling, "good": good})
    assert best == "good"
    assert [judged[n].blessed for n in ("good", "middling")] == [True, False]
    assert "comes after good's" in judged["middling"].notes[0]
    # The better of two is not taken when it breaks a threshold.
    best, judged = gate(labels, {"middling": middling, "good": good}, thresholds={"recall": {"lower_bound": 0.99}})
    assert not any(m.blessed for m in judged.values())
    assert "recall is" in judged[best].failures[0]


def bounds(**given_):
    return {"lower_bound": None, "upper_bound": None, "min_change": None, "per_slice": False, **given_}


def with_slices(name, role, auc, **slices):
    rows = {key: {"auc": value, "example_count": count} for key, (value, count) in slices.items()}
    return ModelResult(name, role, name, "", None, {"auc": auc, "example_count": 500.0}, {}, rows, {})


def test_thresholds_hold_for_slices_that_are_large_enough():
    model = with_slices("a", CANDIDATE, 0.9, big=(0.7, 300), small=(0.1, 20))
    chosen = {"thresholds": {"auc": bounds(lower_bound=0.8, per_slice=True)}, "min_slice_examples": 100}
    failures, notes = check_thresholds(model, None, chosen)
    assert failures == ["auc where big is 0.7000, below its lower bound 0.8000"]
    assert notes == ["1 slices have fewer than 100 examples and were not judged"]
    whole = {"thresholds": {"auc": bounds(lower_bound=0.8)}, "min_slice_examples": 100}
    assert check_thresholds(model, None, whole) == ([], [])


def test_change_thresholds_hold_overall_and_for_each_slice():
    model = with_slices("a", CANDIDATE, 0.9, big=(0.70, 300))
    champion = with_slices(CHAMPION, CHAMPION, 0.89, big=(0.75, 300))
    chosen = {"thresholds": {"auc": bounds(min_change=-0.02, per_slice=True)}, "min_slice_examples": 100}
    [failure], _ = check_thresholds(model, champion, chosen)
    assert failure.startswith("auc where big is 0.7000, the champion's 0.7500: a change for the better of -0.0500")
    failures, notes = check_thresholds(model, None, chosen)
    assert failures == []
    assert notes == ["auc.min_change was not checked: there is no champion to compare with"]


def test_lower_is_better_for_a_loss():
    model = ModelResult("a", CANDIDATE, "a", "", None, {"loss": 0.5}, {}, {}, {})
    champion = ModelResult(CHAMPION, CHAMPION, "a", "", None, {"loss": 0.4}, {}, {}, {})
    chosen = {"thresholds": {"loss": bounds(min_change=0.0)}, "min_slice_examples": 1}
    [failure], _ = check_thresholds(model, champion, chosen)
    assert "-0.1000" in failure
    assert check_thresholds(champion, model, chosen) == ([], [])


def test_a_metric_that_could_not_be_computed_does_not_pass():
    model = ModelResult("a", CANDIDATE, "a", "", None, {}, {}, {}, {})
    chosen = {"thresholds": {"auc": bounds(lower_bound=0.5)}, "min_slice_examples": 1}
    assert check_thresholds(model, None, chosen)[0] == ["auc could not be computed"]
