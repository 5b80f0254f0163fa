"""The table of tasks, and the tasks' formulas and settings, without a framework."""

import numpy as np
import pytest
from sklearn.metrics import mean_pinball_loss

from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import Rows, weighted_metrics
from switchyard.components.evaluation.thresholds import default_thresholds
from switchyard.components.evaluation.trivial import Trivial
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
        ({"task": "quantile", "trainer": {"framework": "lightgbm"}}, "lightgbm trains no quantile task"),
        ({"task": "quantile", "trainer": {"quantiles": []}}, "at least one"),
        ({"task": "quantile", "trainer": {"quantiles": [0.5, 1]}}, "must be less than 1"),
        ({"task": "quantile", "positive_class": "1"}, "a quantile task has none"),
        ({"task": "quantile", "trainer": {"hyperparameters": {"class_weights": "balanced"}}}, "a quantile task has no classes"),
    ],
)
def test_settings_that_a_task_does_not_have_are_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        load_config(Case("c", "", config=config(**changes)).write(tmp_path))
