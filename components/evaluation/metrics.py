"""The metrics of each task, by the names that users see: the same for every trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from switchyard.components.errors import UserError, did_you_mean

# Multiclass accuracy and loss are means over rows; TFMA's own need one-hot labels, or have keys that thresholds miss.
ROW_ACCURACY, ROW_LOSS = "__accuracy", "__loss"

# Our name -> TFMA's class and its settings.
METRICS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "binary": {
        "example_count": ("ExampleCount", {}),
        "loss": ("BinaryCrossEntropy", {}),
        "accuracy": ("BinaryAccuracy", {}),
        "auc": ("AUC", {}),
        "auc_precision_recall": ("AUCPrecisionRecall", {}),
        "precision": ("Precision", {}),
        "recall": ("Recall", {}),
        "f1": ("F1Score", {}),
        "calibration": ("Calibration", {}),
    },
    "multiclass": {
        "example_count": ("ExampleCount", {}),
        "loss": ("Mean", {"feature_key_path": ["features", ROW_LOSS]}),
        "accuracy": ("Mean", {"feature_key_path": ["features", ROW_ACCURACY]}),
    },
    "regression": {
        "example_count": ("ExampleCount", {}),
        "loss": ("MeanSquaredError", {}),
        "mae": ("MeanAbsoluteError", {}),
        "mean_label": ("MeanLabel", {}),
        "mean_prediction": ("MeanPrediction", {}),
    },
}


# What decides between two models, unless the config names another.
PRIMARY = {"binary": "auc", "multiclass": "accuracy", "regression": "loss"}

# +1: higher is better, -1: lower is better. A metric that is not here says nothing about which model is better.
DIRECTION = {
    "auc": 1,
    "auc_precision_recall": 1,
    "accuracy": 1,
    "precision": 1,
    "recall": 1,
    "f1": 1,
    "precision_macro": 1,
    "recall_macro": 1,
    "f1_macro": 1,
    "loss": -1,
    "mae": -1,
}


def check_settings(evaluation: Mapping[str, Any], task: str) -> None:
    """Raises UserError for thresholds and comparisons that the task's metrics do not allow."""
    thresholds = evaluation["thresholds"]
    check_names(list(thresholds), task)
    directed = [n for n in METRICS[task] if n in DIRECTION]
    for name, bounds in thresholds.items():
        if bounds["min_change"] is not None and name not in DIRECTION:
            raise UserError(
                f"evaluation.thresholds.{name}.min_change: neither more nor less of {name!r} is better. "
                f"Allowed with min_change: {', '.join(directed)}."
            )
    metric = (evaluation["improvement"] or {}).get("metric")
    if metric is not None and metric not in directed:
        raise UserError(
            f"evaluation.improvement.metric: {metric!r} cannot decide between two models of a {task} task."
            f"{did_you_mean(metric, directed)} Allowed: {', '.join(directed)}."
        )


def check_names(thresholds: Sequence[str], task: str) -> None:
    """Raises UserError for a threshold on a metric that the task does not have."""
    for name in thresholds:
        if name not in METRICS[task]:
            raise UserError(
                f"evaluation.thresholds: {name!r} is no metric of a {task} task.{did_you_mean(name, METRICS[task])} "
                f"Allowed: {', '.join(METRICS[task])}."
            )
