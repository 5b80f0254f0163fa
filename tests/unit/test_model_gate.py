"""The bootstrap and the model gate: what is surely better, what is noise, what a slice says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score, roc_auc_score

from switchyard.components.evaluation.bootstrap import Rows, interval, replicates, weighted_metrics
from switchyard.components.evaluation.config import EvaluationConfig
from switchyard.components.evaluation.model_gate import SameRows, check_thresholds, compare, judge
from switchyard.components.evaluation.results import CANDIDATE, CHAMPION, Comparison, Evaluation, ModelResult
from switchyard.components.evaluation.trivial import Trivial, trivial_scores


def binary(n, skill, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n).astype(float)
    scores = 1 / (1 + np.exp(-(skill * (labels - 0.5) + random.normal(size=n))))
    return labels, scores[:, np.newaxis].astype(np.float32)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), skill=st.floats(0, 3))
def test_the_weighted_metrics_equal_scikit_learns(seed, skill):
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


def test_the_interval_contains_the_true_value_as_often_as_its_level():
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


def gate(labels, scores, champion_uri="uri-of-another", not_compared="", **settings_):
    models = {n: result(n, CHAMPION if n == CHAMPION else CANDIDATE, s, labels) for n, s in scores.items()}
    rows = Rows("binary", labels, scores)
    samples = replicates(rows)
    candidates = {n: m for n, m in models.items() if n != CHAMPION}
    same = SameRows(models[CHAMPION], candidates, samples) if CHAMPION in models else None
    return judge(
        candidates, EvaluationConfig(**settings_), "auc", samples, Trivial.of(rows, "auc"), same, not_compared, champion_uri
    )


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
    found = compare(one, other, "auc", samples, EvaluationConfig())
    assert abs(found.difference) < 0.01
    assert found.low < 0 < found.high
    # Whichever way the coin fell: neither replaces the other.
    for first, second in ((noisy, scores), (scores, noisy)):
        _, judged = gate(labels, {"a": first, CHAMPION: second})
        assert not judged["a"].blessed
    _, judged = gate(labels, {"a": max((noisy, scores), key=lambda s: roc_auc_score(labels, s)), CHAMPION: scores * 0 + 0.5})
    assert judged["a"].blessed


def test_the_champion_need_not_be_better_than_itself():
    labels, scores = binary(300, 1.0, 0)
    best, judged = gate(labels, {"a": scores, CHAMPION: scores}, champion_uri="uri-a")
    assert judged[best].blessed
    assert judged[best].notes == ["it is already the champion"]
    _, judged = gate(labels, {"a": scores, CHAMPION: scores})
    assert not judged["a"].blessed


def test_the_best_of_those_that_pass_is_blessed():
    labels, good = binary(1000, 2.0, 0)
    _, middling = binary(1000, 1.0, 0)
    best, judged = gate(labels, {"middling": middling, "good": good})
    assert best == "good"
    assert [judged[n].blessed for n in ("good", "middling")] == [True, False]
    assert "ranks below good's" in judged["middling"].notes[0]
    # The better of two is not taken when it breaks a threshold.
    best, judged = gate(labels, {"middling": middling, "good": good}, thresholds={"recall": {"lower_bound": 0.99}})
    assert not any(m.blessed for m in judged.values())
    assert "recall is" in judged[best].failures[0]


def with_slices(name, role, auc, **slices):
    rows = {key: {"auc": value, "example_count": count} for key, (value, count) in slices.items()}
    return ModelResult(name, role, name, "", None, {"auc": auc, "example_count": 500.0}, {}, rows, {})


def test_thresholds_hold_for_slices_that_are_large_enough():
    model = with_slices("a", CANDIDATE, 0.9, big=(0.7, 300), small=(0.1, 20))
    chosen = EvaluationConfig(thresholds={"auc": {"lower_bound": 0.8, "per_slice": True}}, min_slice_examples=100)
    failures, notes = check_thresholds(model, None, chosen)
    assert failures == ["auc where big is 0.7000, below its lower bound 0.8000"]
    assert notes == ["1 slices have fewer than 100 examples and were not checked"]
    whole = EvaluationConfig(thresholds={"auc": {"lower_bound": 0.8}}, min_slice_examples=100)
    assert check_thresholds(model, None, whole) == ([], [])


def test_change_thresholds_hold_overall_and_for_each_slice():
    model = with_slices("a", CANDIDATE, 0.9, big=(0.70, 300))
    champion = with_slices(CHAMPION, CHAMPION, 0.89, big=(0.75, 300))
    chosen = EvaluationConfig(thresholds={"auc": {"min_change": -0.02, "per_slice": True}}, min_slice_examples=100)
    [failure], _ = check_thresholds(model, champion, chosen)
    assert failure.startswith("auc where big is 0.7000, the champion's 0.7500: an improvement of -0.0500")
    failures, notes = check_thresholds(model, None, chosen)
    assert failures == []
    assert notes == ["auc.min_change was not checked: there is no champion"]


def test_lower_is_better_for_a_loss():
    model = ModelResult("a", CANDIDATE, "a", "", None, {"loss": 0.5}, {}, {}, {})
    champion = ModelResult(CHAMPION, CHAMPION, "a", "", None, {"loss": 0.4}, {}, {}, {})
    chosen = EvaluationConfig(thresholds={"loss": {"min_change": 0.0}}, min_slice_examples=1)
    [failure], _ = check_thresholds(model, champion, chosen)
    assert "-0.1000" in failure
    assert check_thresholds(champion, model, chosen) == ([], [])


def test_a_metric_that_could_not_be_computed_does_not_pass():
    model = ModelResult("a", CANDIDATE, "a", "", None, {}, {}, {}, {})
    chosen = EvaluationConfig(thresholds={"auc": {"lower_bound": 0.5}}, min_slice_examples=1)
    assert check_thresholds(model, None, chosen)[0] == ["auc could not be computed"]


def test_a_coin_flip_is_never_blessed_and_a_clear_signal_is():
    labels, coin = binary(120, 0.0, 0)
    best, judged = gate(labels, {"a": coin}, improvement=None)
    assert not judged[best].blessed
    assert judged[best].passed, "it keeps the thresholds: a person may promote it"
    assert "the trivial predictor's 0.5000: not significantly better" in judged[best].failures[0]
    _, good = binary(120, 2.0, 0)
    best, judged = gate(labels, {"a": good}, improvement=None)
    assert judged[best].blessed


def test_a_coin_flip_is_rarely_taken_for_a_signal_however_few_rows_there_are():
    """The interval of 95 % lies above 0.5 by chance in 2.5 of 100 samples."""
    for n in (10, 40):
        blessed = 0
        for seed in range(100):
            labels, coin = binary(n, 0.0, seed)
            if 0 < labels.sum() < n:
                best, judged = gate(labels, {"a": coin})
                blessed += judged[best].blessed
        assert blessed <= 7


def test_custom_thresholds_do_not_replace_the_trivial_predictor():
    labels, coin = binary(120, 0.0, 0)
    best, judged = gate(labels, {"a": coin}, thresholds={"accuracy": {"lower_bound": 0.1}})
    assert not judged[best].blessed


def test_a_candidate_worse_than_a_coin_flip_is_not_blessed_even_if_it_beats_the_champion():
    labels, good = binary(400, 1.0, 0)
    _, coin = binary(400, 0.0, 1)
    best, judged = gate(labels, {"a": coin, CHAMPION: 1 - good})
    assert not judged[best].blessed
    assert "trivial predictor" in judged[best].failures[0]


@pytest.mark.parametrize(
    ("task", "metric", "value"),
    [
        ("binary", "auc", 0.5),
        ("binary", "accuracy", 0.7),
        ("binary", "f1", 2 * 0.3 / 1.3),
        ("binary", "precision", 0.3),
        ("binary", "loss", -(0.3 * np.log(0.3) + 0.7 * np.log(0.7))),
        # Who says yes always has a recall of 1, which nothing beats: the task's own metric stands for it.
        ("binary", "recall", 0.5),
        ("multiclass", "accuracy", 0.5),
        ("multiclass", "loss", -(0.5 * np.log(0.5) + 0.3 * np.log(0.3) + 0.2 * np.log(0.2))),
        ("regression", "loss", 16.0),
        ("regression", "mae", 4.0),
    ],
)
def test_the_trivial_predictor_uses_only_the_labels_distribution(task, metric, value):
    labels = {
        "binary": np.repeat([0.0, 1.0], [70, 30]),
        "multiclass": np.repeat([0.0, 1.0, 2.0], [50, 30, 20]),
        "regression": np.repeat([1000.0, 1008.0], 50),
    }[task]
    trivial = Trivial.of(Rows(task, labels, {}), metric)
    assert trivial.value == pytest.approx(value, rel=1e-6)
    itself = ModelResult("a", CANDIDATE, "a", "", None, {trivial.metric: trivial.value}, {}, {}, {})
    assert "not significantly better" in trivial.not_better(itself, trivial.samples, 0.95)
    assert "not better" in trivial.not_better(itself, None, None)


def test_a_model_that_diverged_does_not_beat_the_mean_whatever_thresholds_say():
    labels = np.random.default_rng(0).normal(size=200)
    rows = Rows("regression", labels, {"a": (labels * 1e14)[:, np.newaxis]})
    model = ModelResult("a", CANDIDATE, "a", "", None, {"loss": 5.6e28}, {}, {}, {})
    assert "not significantly better" in Trivial.of(rows, "loss").not_better(model, replicates(rows)["a"]["loss"], 0.95)
    assert np.ptp(trivial_scores("regression", labels, "loss")) == 0


def test_a_champion_that_cannot_be_compared_is_kept_unless_the_config_says_otherwise():
    labels, good = binary(400, 2.0, 0)
    why = "champion version 1 of m cannot be compared: it needs the column 'age'"
    best, judged = gate(labels, {"a": good}, not_compared=why)
    assert (judged[best].passed, judged[best].blessed, judged[best].failures) == (True, False, [why])
    _, judged = gate(labels, {"a": good}, not_compared=why, incomparable_champion="replace")
    assert judged[best].blessed
    # Who compares with no champion does not need one that can be compared.
    _, judged = gate(labels, {"a": good}, not_compared=why, improvement=None)
    assert judged[best].blessed


def test_both_models_are_compared_on_the_rows_that_the_champion_can_score():
    """The candidate is good on all rows but those: there the champion is better, and stays."""
    labels, scores = binary(2000, 2.0, 0)
    there = np.arange(2000) < 500
    candidate = np.where(there[:, np.newaxis], 1 - scores, scores).astype(np.float32)
    on_all, champions_rows = Rows("binary", labels, {"a": candidate}), Rows("binary", labels[there], {})
    beside = {"a": candidate[there], CHAMPION: scores[there]}
    same = SameRows(
        result(CHAMPION, CHAMPION, scores[there], labels[there]),
        {"a": result("a", CANDIDATE, candidate[there], labels[there])},
        replicates(Rows("binary", champions_rows.labels, beside)),
        "500 of 2,000 rows",
    )
    settings_ = EvaluationConfig(thresholds={"auc": {"min_change": 0.0}}, min_slice_examples=1)
    models = {"a": result("a", CANDIDATE, candidate, labels)}
    assert models["a"].metrics["auc"] > 0.6
    _, judged = judge(models, settings_, "auc", replicates(on_all), Trivial.of(on_all, "auc"), same)
    change, worse = judged["a"].failures
    assert "an improvement of -0." in change
    assert "on 500 of 2,000 rows: worse" in worse


def test_undefined_metrics_are_null_in_the_file_and_restored_when_read(tmp_path):
    slices = {"city=Ulm": {"example_count": 3.0, "accuracy": 1.0}}
    model = ModelResult("a", CANDIDATE, "a", "", None, {"auc": 0.9}, {}, slices, {})
    nothing = Comparison("a", CHAMPION, "auc", float("nan"), None, None, None)
    found = Evaluation("binary", "auc", "test", 10, "a", {"a": model}, [nothing], {}, None, 0, "m has no champion yet", None, [])
    found.save(tmp_path)
    text = (tmp_path / "metrics.json").read_text()
    assert '"auc": null' in text
    assert "NaN" not in text
    read = Evaluation.load(tmp_path)
    assert read.models == found.models
    assert read.comparisons[0].sentence() == "a against champion: auc is not defined for both"


def test_the_text_below_the_table_names_the_split_and_which_models_were_compared():
    model = ModelResult("a", CANDIDATE, "a", "", None, {"auc": 0.9}, {}, {}, {})
    against = Comparison("a", CHAMPION, "auc", 0.1, 0.05, 0.15, 0.99, "97 of 100 rows")

    def lines(split, champion, rows, why, comparisons=()):
        found = Evaluation(
            "binary", "auc", split, 100, "a", {"a": model}, list(comparisons), {}, champion, rows, why, champion, []
        )
        return found.lines()

    assert lines("test", None, 0, "m has no champion yet") == [
        "figures on 100 rows of the split 'test'",
        "not compared with a champion: m has no champion yet",
    ]
    optimistic, *_ = lines("eval", None, 0, "m has no champion yet")
    assert optimistic.endswith("which training also uses for validation: the metrics are optimistic")
    _, difference, share = lines("test", "1", 97, "", [against])
    assert difference.startswith("a against champion on 97 of 100 rows: auc +0.1000")
    assert share == "compared with champion version 1 on the 97 of 100 rows (97.0%) that it can predict"
    assert len(lines("test", "1", 100, "", [against])) == 2


def test_a_champion_of_another_data_set_is_marked_below_the_table():
    model = ModelResult("a", CANDIDATE, "a", "", None, {"auc": 0.9}, {}, {}, {})
    origin = "champion version 3 was trained on another data set, /d/fraud/*.csv"
    found = Evaluation("binary", "auc", "test", 100, "a", {"a": model}, [], {}, "3", 100, "", "3", [], champion_origin=origin)
    assert found.lines()[-1] == origin
