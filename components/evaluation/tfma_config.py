"""TFMA's configuration for a task: which metrics under which names, models, slices. Names are the same for every trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tensorflow_model_analysis.proto import config_pb2

from switchyard.components.metrics import METRICS

PLOTS = {
    "binary": ("ConfusionMatrixPlot", "CalibrationPlot"),
    "multiclass": ("MultiClassConfusionMatrixPlot",),
    "regression": (),
}


def eval_config(task: str, slices: Sequence[Sequence[str]], models: Sequence[str]) -> config_pb2.EvalConfig:
    """Returns TFMA's EvalConfig. It holds no thresholds: the verdict is `model_gate`'s, which knows of noise.

    Args:
        task: binary, multiclass or regression.
        slices: features to slice by, each a list; the overall slice is always there.
        models: names of the models, evaluated side by side on the same rows.
    """
    config = config_pb2.EvalConfig()
    for name in models:
        config.model_specs.add(name=name, label_key="label")
    config.slicing_specs.add()
    for features in slices:
        config.slicing_specs.add(feature_keys=list(features))
    # Means over rows read a feature of the model's own.
    for group in [[m] for m in models] if task == "multiclass" else [list(models)]:
        spec = config.metrics_specs.add(model_names=group if len(models) > 1 else [])
        for metric in METRICS:
            if metric.has_threshold(task):
                formula = metric.formulas[task]
                spec.metrics.add(class_name=formula.tfma, config=json.dumps(_settings(formula.settings, metric.name, group[0])))
        for kind in PLOTS[task]:
            spec.metrics.add(class_name=kind)
    return config


def _settings(settings: Mapping[str, Any], name: str, model: str) -> dict[str, Any]:
    path = settings.get("feature_key_path")
    if not path:
        return {**settings, "name": name}
    # TFMA's Mean knows of no models: its name says which one it is of.
    return {"feature_key_path": [path[0], row_feature(path[1], model)], "name": row_feature(name, model)}


def row_feature(name: str, model: str) -> str:
    """Returns the name of a per-row value of one model, among the extracts' features."""
    return f"{name}_{model}"
