"""The table of tasks, and the tasks' formulas and settings, without a framework."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    mean_absolute_error,
    mean_pinball_loss,
    mean_squared_error,
    roc_auc_score,
)

from switchyard.components.bundle.model import BundleInfo, format_predictions
from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import Rows, weighted_metrics
from switchyard.components.evaluation.config import EvaluationConfig
from switchyard.components.evaluation.thresholds import check_settings, default_thresholds
from switchyard.components.evaluation.trivial import Trivial
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.scan import scan
from switchyard.components.tasks import TASKS
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import input_spec
from tests.bad_input import Case, config

QUANTILES = ["0.1", "0.5", "0.9"]


def test_scores_are_named_after_classes_or_targets():
    assert TASKS["binary"].prediction_names(["no", "yes"]) == ["prediction", "probability"]
    assert TASKS["multiclass"].prediction_names([1, 2]) == ["prediction", "probability_1", "probability_2"]
    assert TASKS["regression"].prediction_names([]) == ["prediction"]
    assert TASKS["quantile"].prediction_names([], QUANTILES) == ["quantile_0.1", "quantile_0.5", "quantile_0.9"]
    assert TASKS["multioutput"].prediction_names([], ["a", "b"]) == ["prediction_a", "prediction_b"]
    assert TASKS["multilabel"].prediction_names([], ["a", "b"]) == [
        *("prediction_a", "prediction_b"),
        *("probability_a", "probability_b"),
    ]


@pytest.mark.parametrize(
    ("task", "targets", "fits"),
    [
        ("quantile", QUANTILES, True),
        ("quantile", ["0.5"], True),
        ("quantile", [], False),
        ("quantile", ["0.9", "0.1"], False),
        ("quantile", ["0", "0.5"], False),
        ("quantile", ["a"], False),
        ("regression", [], True),
        ("regression", ["0.5"], False),
        ("multilabel", ["a", "b"], True),
        ("multilabel", ["a"], False),
        ("multioutput", ["a", "b"], True),
        ("multioutput", ["a", "a"], False),
    ],
)
def test_a_bundle_with_other_targets_than_its_task_has_is_refused(task, targets, fits):
    assert TASKS[task].fits_targets(targets) is fits


def test_the_pinball_loss_equals_scikit_learns_and_coverage_is_the_share_between_the_outer_quantiles():
    random = np.random.default_rng(0)
    labels, scores = random.normal(size=300), np.sort(random.normal(size=(300, 3)), axis=1)
    weights = random.poisson(1, 300).astype(float)
    found = {m: float(f(weights)) for m, f in weighted_metrics("quantile", labels, scores, QUANTILES).items()}
    each = [mean_pinball_loss(labels, scores[:, i], sample_weight=weights, alpha=float(q)) for i, q in enumerate(QUANTILES)]
    assert found["loss"] == pytest.approx(np.mean(each))
    inside = (scores[:, 0] <= labels) & (labels <= scores[:, 2])
    assert found["coverage"] == pytest.approx(np.average(inside, weights=weights))


def test_metrics_of_several_labels_are_scikit_learns_of_each_and_their_means():
    random = np.random.default_rng(0)
    weights = random.poisson(1, 300).astype(float)
    labels, scores = random.integers(0, 2, (300, 2)).astype(float), random.uniform(0.01, 0.99, (300, 2)).round(2)
    found = {m: float(f(weights)) for m, f in weighted_metrics("multilabel", labels, scores, ["a", "b"]).items()}
    for i, name in enumerate(["a", "b"]):
        given = labels[:, i], scores[:, i]
        assert found[f"auc/{name}"] == pytest.approx(roc_auc_score(*given, sample_weight=weights), abs=1e-3)
        assert found[f"loss/{name}"] == pytest.approx(log_loss(*given, sample_weight=weights))
        assert found[f"accuracy/{name}"] == pytest.approx(accuracy_score(given[0], given[1] >= 0.5, sample_weight=weights))
    for metric in ("auc", "loss", "accuracy"):
        assert found[metric] == pytest.approx((found[f"{metric}/a"] + found[f"{metric}/b"]) / 2)
    together = roc_auc_score(labels.ravel(), scores.ravel(), sample_weight=np.repeat(weights, 2))
    assert found["auc_micro"] == pytest.approx(together, abs=1e-3)

    labels[:, 0] = 0
    found = {m: float(f(weights)) for m, f in weighted_metrics("multilabel", labels, scores, ["a", "b"]).items()}
    assert np.isnan(found["auc/a"])
    assert found["auc"] == found["auc/b"]

    quantities = random.normal(size=(300, 2))
    found = {m: float(f(weights)) for m, f in weighted_metrics("multioutput", quantities, scores, ["a", "b"]).items()}
    for metric, of in {"loss": mean_squared_error, "mae": mean_absolute_error}.items():
        each = of(quantities, scores, sample_weight=weights, multioutput="raw_values")
        assert [found[f"{metric}/a"], found[f"{metric}/b"]] == pytest.approx(list(each))
        assert found[metric] == pytest.approx(each.mean())


def test_the_trivial_predictor_of_several_labels_is_that_of_each():
    labels = np.random.default_rng(0).integers(0, 2, (400, 2)).astype(float)
    assert Trivial.of(Rows("multilabel", labels, {}, targets=["a", "b"]), "auc").value == pytest.approx(0.5)
    mean = Trivial.of(Rows("multioutput", labels, {}, targets=["a", "b"]), "loss")
    assert mean.value == pytest.approx(labels.var(axis=0).mean())
    assert default_thresholds("multioutput", labels, ["a", "b"])["loss"].upper_bound == pytest.approx(mean.value)


def test_each_label_of_0_and_1_is_predicted_at_a_half():
    info = BundleInfo("pytorch", "pytorch", "multilabel", "a, b", [], [], targets=["a", "b"])
    assert info.labels == ["a", "b"]
    found = format_predictions(info, np.array([[0.5, 0.1], [0.4, 0.9]], np.float32))
    assert found["prediction_a"].tolist() == [1, 0]
    assert found["prediction_b"].tolist() == [0, 1]
    assert found["probability_b"] == pytest.approx([0.1, 0.9])


def test_a_threshold_may_be_set_on_a_metric_of_one_label():
    bounds = EvaluationConfig(thresholds={"auc/a": {"lower_bound": 0.6, "min_change": 0.01}})
    check_settings(bounds, "multilabel", ["a", "b"])
    with pytest.raises(UserError, match=r"'auc/a' is not a metric of a multilabel task. Did you mean 'auc/y'"):
        check_settings(bounds, "multilabel", ["x", "y"])


def test_the_trivial_predictor_of_quantiles_predicts_the_labels_quantiles():
    labels = np.random.default_rng(0).exponential(size=1000)
    trivial = Trivial.of(Rows("quantile", labels, {}, targets=QUANTILES), "loss")
    values = np.quantile(labels, [0.1, 0.5, 0.9], method="inverted_cdf")
    assert trivial.value == pytest.approx(
        np.mean([mean_pinball_loss(labels, np.full(1000, v), alpha=float(q)) for v, q in zip(values, QUANTILES, strict=True)])
    )
    assert default_thresholds("quantile", labels, QUANTILES)["loss"].upper_bound == pytest.approx(trivial.value)


@pytest.mark.parametrize("quantile", ["0.1", "0.5", "0.9"])
def test_no_constant_beats_the_trivial_predictor_of_a_quantile(quantile):
    labels = np.array([1.0, 2.0, 3.0, 4.0, 10.0])
    trivial = Trivial.of(Rows("quantile", labels, {}, targets=[quantile]), "loss").value
    others = [mean_pinball_loss(labels, np.full(5, value), alpha=float(quantile)) for value in np.linspace(0, 11, 111)]
    assert trivial == pytest.approx(min(others))


def test_the_quantiles_are_part_of_the_input_and_have_a_default(tmp_path):
    def targets(**trainer):
        return input_spec(load_config(Case("c", "", config=config(task="quantile", trainer=trainer)).write(tmp_path))).targets

    assert targets() == ("0.1", "0.5", "0.9")
    assert targets(quantiles=[0.025, 0.975]) == ("0.025", "0.975")
    close = targets(quantiles=[1e-7, 0.12345671, 0.12345674, 0.9999999])
    assert close == ("1e-07", "0.12345671", "0.12345674", "0.9999999")
    assert TASKS["quantile"].fits_targets(close)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trainer": {"quantiles": [0.5]}},
            "trainer.quantiles: a model of task auto has none; remove it",
        ),
        ({"task": "quantile", "trainer": {"quantiles": [0.5, 0.1]}}, "must be ascending"),
        ({"task": "quantile", "trainer": {"quantiles": []}}, "at least one"),
        ({"task": "quantile", "trainer": {"quantiles": [0.5, 1]}}, "must be less than 1"),
        ({"task": "multilabel", "label": ["y"]}, "label: a multilabel task has at least two columns"),
        ({"task": "multioutput", "label": ["y", "y"]}, "label: a multioutput task has at least two columns, all different"),
        ({"label": ["y", "x"]}, "is a list; set task to multioutput or multilabel, or give one column"),
        ({"task": "multilabel", "label": ["y", "x"], "data": {"path": "d.csv", "exclude": ["x"]}}, "lists the label 'x'"),
        ({"task": "quantile", "positive_class": "1"}, "a quantile task has none"),
        ({"task": "quantile", "trainer": {"hyperparameters": {"class_weights": "balanced"}}}, "a quantile task has no classes"),
    ],
)
def test_settings_that_a_task_does_not_have_are_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        load_config(Case("c", "", config=config(**changes)).write(tmp_path))


def input_of(task, folder, values, **options):
    """Returns the scan of 100 rows with the labels `a` and `b`, of which `b` has the values, in turn."""
    rows = "x,a,b\n" + "".join(f"{i % 7}.5,{i % 2},{values[i % len(values)]}\n" for i in range(100))
    case = Case("c", "", files={"d.csv": rows}, config=config(task=task, label=["a", "b"]))
    return scan(input_spec(load_config(case.write(folder))), BadRows(30), **options)


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("multilabel", ["0", "1", "2"], "label: 'b' holds 2; each label of a multilabel task is 0 or 1"),
        ("multilabel", ["no", "yes"], "label: 'b' is text; a multilabel task needs numbers"),
        ("multilabel", ["1"], "label: 'b' has only the value 1; there is nothing to learn"),
        ("multioutput", ["no", "yes"], "label: 'b' is text; a multioutput task needs numbers"),
        ("multioutput", ["false", "true"], "label: 'b' holds true and false; a multioutput task needs numbers"),
    ],
)
def test_a_label_that_is_none_of_the_task_is_refused_by_its_name(task, values, message, tmp_path):
    with pytest.raises(UserError, match=message):
        input_of(task, tmp_path, values)


def test_a_row_without_one_of_its_labels_is_a_bad_row(tmp_path):
    found = input_of("multioutput", tmp_path, ["0.5", "1.5", "", "2", "3"])
    assert found.rows == 80
    assert found.task == "multioutput"
    assert not found.classes
    assert input_of("multilabel", tmp_path, ["0", "1", "1"]).rows == 100


@pytest.mark.parametrize("values", [["false", "true"], ["0.0", "1.0"], [" 1", "0"], ["True", "False"]])
def test_every_spelling_of_0_and_1_is_a_label_of_a_multilabel_task(values, tmp_path):
    found = input_of("multilabel", tmp_path, values)
    assert found.types["a"].kind == found.types["b"].kind == "integer"


def test_a_rare_label_may_have_no_one_in_the_first_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("switchyard.components.ingest.scan.PEEK_ROWS", 50)
    assert input_of("multilabel", tmp_path, ["0"], peek=True).task == "multilabel"
    with pytest.raises(UserError, match="'b' has only the value 0"):
        input_of("multilabel", tmp_path, ["0"])
