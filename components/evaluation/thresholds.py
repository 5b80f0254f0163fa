"""Validates thresholds on a task's metrics, and computes the default ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from switchyard.components.errors import UserError, did_you_mean
from switchyard.components.evaluation.config import EvaluationConfig, Threshold
from switchyard.components.evaluation.own_metrics import own_names
from switchyard.components.metrics import PRIMARY, direction, names
from switchyard.components.tasks import TASKS


def check_settings(evaluation: EvaluationConfig, task: str, targets: Sequence[str] = ()) -> None:
    """Raises UserError for thresholds or an improvement metric that the task's metrics do not support."""
    own = own_names(evaluation.metrics)
    if TASKS[task].own_shape:
        _check_custom(evaluation)
    thresholds, allowed = evaluation.thresholds, [*names(task, targets=targets), *own]
    for name in thresholds:
        if name not in allowed:
            raise UserError(
                f"evaluation.thresholds: {name!r} is not a metric of a {task} task.{did_you_mean(name, allowed)} "
                f"Allowed: {', '.join(allowed)}."
            )
    directed = names(task, lambda metric: metric.direction != 0, targets)
    improvement = evaluation.improvement
    decides = improvement.metric if improvement else None
    if decides is not None and decides not in (*directed, *own):
        raise UserError(
            f"evaluation.improvement.metric: {decides!r} cannot decide between two models of a {task} task."
            f"{did_you_mean(decides, [*directed, *own])} Allowed: {', '.join([*directed, *own])}"
            f"{'' if own else ', or a function in the file of evaluation.metrics'}."
        )
    if improvement and (decides in own) != (improvement.better is not None):
        missing = f"is missing, and {decides!r} is a metric of your own; set it to higher or lower, whichever is better"
        raise UserError(
            "evaluation.improvement.better: " + (missing if decides in own else "only a metric of your own needs it; remove it")
        )
    directed += [decides] if decides in own else []
    for name, bounds in thresholds.items():
        if bounds.min_change is not None and name not in directed:
            raise UserError(
                f"evaluation.thresholds.{name}.min_change: {name!r} has no direction, so no change is an improvement. "
                f"Allowed with min_change: {', '.join(directed)}."
            )


def _check_custom(evaluation: EvaluationConfig) -> None:
    """Raises UserError unless a metric of the user's decides, with a bound in place of the trivial predictor."""
    improvement = evaluation.improvement
    if evaluation.metrics is None:
        raise UserError(
            "evaluation.metrics: a custom task has no metrics of its own; give a file with functions metric(labels, scores)"
        )
    if improvement is None or improvement.metric is None:
        raise UserError(
            "evaluation.improvement.metric: a custom task needs the metric of yours that decides between models; set it, and "
            "evaluation.improvement.better"
        )
    bounds = evaluation.thresholds.get(improvement.metric)
    bound = "upper_bound" if improvement.better == "lower" else "lower_bound"
    if bounds is None or getattr(bounds, bound) is None:
        raise UserError(
            f"evaluation.thresholds.{improvement.metric}.{bound}: is missing; a custom task has no trivial predictor that a "
            "model must beat, so this bound takes its place: set the value of a useless model, or what is good enough"
        )


def default_thresholds(
    task: str, labels: Any, targets: Sequence[str] = (), weights: Any = None, last: Any = None
) -> dict[str, Threshold]:
    """Returns the trivial predictor's performance as threshold: AUC 0.5, the majority class's share, the label's variance.

    Args:
        task: name of a task.
        labels: encoded labels of the held-out split, NumPy (n,).
        targets: see `DatasetSummary.targets`.
        weights: sample weights, NumPy (n,); None weighs all rows the same.
        last: see `Rows`.
    """
    from switchyard.components.evaluation.bootstrap import unit_weights, weighted_metrics
    from switchyard.components.evaluation.trivial import trivial_scores

    metric = PRIMARY[task]
    scores = trivial_scores(task, labels, metric, targets, weights, last)
    value = float(weighted_metrics(task, labels, scores, targets)[metric](unit_weights(task, labels, weights)))
    return {metric: Threshold(lower_bound=value) if direction(metric) > 0 else Threshold(upper_bound=value)}
