"""TFMA's configuration for a task: which metrics under which names, slices, thresholds. Names are the same for every trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tensorflow_model_analysis.proto import config_pb2

from components.evaluation.metric_names import METRICS

PLOTS = {
    "binary": ("ConfusionMatrixPlot", "CalibrationPlot"),
    "multiclass": ("MultiClassConfusionMatrixPlot",),
    "regression": (),
}


def eval_config(
    task: str, slices: Sequence[Sequence[str]], thresholds: Mapping[str, Mapping[str, float | None]]
) -> config_pb2.EvalConfig:
    """Returns TFMA's EvalConfig.

    Args:
        task: binary, multiclass or regression.
        slices: features to slice by, each a list; the overall slice is always there.
        thresholds: metric -> lower_bound, upper_bound; they hold for the overall slice.
    """
    config = config_pb2.EvalConfig()
    config.model_specs.add(name="candidate", label_key="label")
    config.slicing_specs.add()
    for features in slices:
        config.slicing_specs.add(feature_keys=list(features))
    spec = config.metrics_specs.add()
    for name, (kind, settings) in METRICS[task].items():
        metric = spec.metrics.add(class_name=kind, config=json.dumps({**settings, "name": name}))
        if name in thresholds:
            # For the overall slice only: `threshold` would hold for every slice, and a slice of one class never blesses.
            bounded = metric.per_slice_thresholds.add(slicing_specs=[config_pb2.SlicingSpec()])
            for bound, value in thresholds[name].items():
                if value is not None:
                    getattr(bounded.threshold.value_threshold, bound).value = value
    for kind in PLOTS[task]:
        spec.metrics.add(class_name=kind)
    return config


def default_thresholds(task: str, labels: Any) -> dict[str, dict[str, float | None]]:
    """Returns what the trivial predictor reaches: AUC 0.5, the majority class's share, the variance of the label.

    Args:
        task: binary, multiclass or regression.
        labels: encoded labels of the eval split, NumPy (n,).
    """
    import numpy as np

    if task == "binary":
        return {"auc": {"lower_bound": 0.5, "upper_bound": None}}
    if task == "multiclass":
        share = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
        return {"accuracy": {"lower_bound": share, "upper_bound": None}}
    return {"loss": {"lower_bound": None, "upper_bound": float(np.var(labels))}}
