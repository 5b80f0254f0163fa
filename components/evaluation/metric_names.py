"""The metrics of each task, by the names that users see: the same for every trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.errors import UserError, did_you_mean

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


def check_names(thresholds: Sequence[str], task: str) -> None:
    """Raises UserError for a threshold on a metric that the task does not have."""
    for name in thresholds:
        if name not in METRICS[task]:
            raise UserError(
                f"evaluation.thresholds: {name!r} is no metric of a {task} task.{did_you_mean(name, METRICS[task])} "
                f"Allowed: {', '.join(METRICS[task])}."
            )
