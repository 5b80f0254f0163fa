"""Builds TFMA's configuration for a task: metrics, models and slices. Names are the same for every trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tensorflow_model_analysis.proto import config_pb2

from switchyard.components.metrics import METRICS, base

# Column of the sample weights beside `label`.
WEIGHT = "sample_weight"
PLOTS = {
    "binary": ("ConfusionMatrixPlot", "CalibrationPlot"),
    "multiclass": ("MultiClassConfusionMatrixPlot",),
    "regression": (),
    "quantile": (),
    "multioutput": (),
    "multilabel": (),
    "ranking": (),
    "custom": (),
}


def eval_config(
    task: str, slices: Sequence[Sequence[str]], models: Sequence[str], targets: Sequence[str] = (), *, weighted: bool = False
) -> config_pb2.EvalConfig:
    """Returns TFMA's EvalConfig, without thresholds: `model_gate` decides, as it accounts for noise.

    Args:
        task: name of a task.
        slices: lists of features to slice by; the overall slice is always included.
        models: names of the models, which are evaluated on the same rows.
        targets: see `DatasetSummary.targets`.
        weighted: whether the rows have weights, `WEIGHT` in TFMA's inputs.
    """
    config = config_pb2.EvalConfig()
    for name in models:
        config.model_specs.add(name=name, label_key="label", example_weight_key=WEIGHT if weighted else "")
    config.slicing_specs.add()
    for features in slices:
        config.slicing_specs.add(feature_keys=list(features))
    # Means over rows need a metrics spec per model, as each reads a feature of its own.
    for group in [[m] for m in models] if of_rows(task) else [list(models)]:
        names = group if len(models) > 1 else []
        by_weight = config_pb2.MetricsSpec(model_names=names)
        # The number of rows, and TFMA's Mean, which takes weights as an argument.
        by_row = config_pb2.MetricsSpec(model_names=names, example_weights={"unweighted": True}) if weighted else by_weight
        for metric in METRICS:
            for name in metric.names(task, targets) if metric.has_threshold(task) else ():
                formula = metric.formulas[task]
                spec = by_row if formula.of_rows or metric.name == "example_count" else by_weight
                settings = _settings(formula.settings, name, group[0], weighted=weighted)
                spec.metrics.add(class_name=formula.tfma, config=json.dumps(settings))
        for kind in PLOTS[task]:
            by_weight.metrics.add(class_name=kind)
        config.metrics_specs.extend([spec for spec in ([by_weight, by_row] if weighted else [by_weight]) if spec.metrics])
    return config


def of_rows(task: str) -> frozenset[str]:
    """Returns the names of the task's metrics that are means of values of single rows."""
    return frozenset(m.name for m in METRICS if task in m.formulas and m.formulas[task].of_rows)


def _settings(settings: Mapping[str, Any], name: str, model: str, *, weighted: bool) -> dict[str, Any]:
    path = settings.get("feature_key_path")
    if not path:
        return {**settings, "name": name}
    # TFMA's Mean does not distinguish models, so its name includes the model.
    label = name.removeprefix(base(name))
    weights = {"example_weights_key_path": ["example_weights"]} if weighted else {}
    return {"feature_key_path": [path[0], row_feature(path[1] + label, model)], "name": row_feature(name, model), **weights}


def row_feature(name: str, model: str) -> str:
    """Returns the name of a per-row value of one model in the features of the extracts."""
    return f"{name}_{model}"
