"""Reads TFMA's result files: metrics by slice and plots of each model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_model_analysis as tfma
from google.protobuf.json_format import MessageToDict

from switchyard.components.evaluation.results import Plots
from switchyard.components.evaluation.tfma_config import row_feature

Slices = dict[str, dict[str, float]]


def read_metrics(folder: str, models: Sequence[str], names: Sequence[str]) -> dict[str, Slices]:
    """Returns model -> slice -> metric -> value; the slice of all rows is the empty string.

    Args:
        folder: TFMA's output folder.
        models: names of the models; TFMA omits the name of a single one.
        names: metrics to return, in this order.
    """
    found: dict[str, Slices] = {m: {} for m in models}
    of_rows = {row_feature(n, m): (n, m) for n in names for m in models}
    for record in tfma.load_metrics(folder):
        key = ", ".join(f"{k.column}={_slice_text(k)}" for k in record.slice_key.single_slice_keys)
        values: dict[str, dict[str, float]] = {m: {} for m in models}
        for metric in record.metric_keys_and_values:
            number = metric.value.double_value.value
            name, model = of_rows.get(metric.key.name, (metric.key.name, metric.key.model_name or models[0]))
            if name in names and metric.value.HasField("double_value") and math.isfinite(number):
                values[model][name] = float(number)
        for model in models:
            found[model][key] = {n: values[model][n] for n in names if n in values[model]}
    return {m: dict(sorted(s.items())) for m, s in found.items()}


def _slice_text(key: Any) -> str:
    kind = key.WhichOneof("kind")
    value = getattr(key, kind) if kind else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def read_plots(folder: str, models: Sequence[str]) -> dict[str, Plots]:
    """Returns model -> plots on all rows, see `ModelResult`."""
    plots: dict[str, Plots] = {m: {} for m in models}
    # Read from the records, as TFMA's EvalResult keeps only one of the plots.
    for record in tfma.load_plots(folder):
        if not record.slice_key.single_slice_keys:
            for plot in record.plot_keys_and_values:
                plots[plot.key.model_name or models[0]] |= _plot(MessageToDict(plot.value))
    return plots


def _plot(data: Mapping[str, Any]) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    matrices = data.get("confusionMatrixAtThresholds", {}).get("matrices", [])
    if matrices:
        keys = {
            "threshold": "threshold",
            "tp": "truePositives",
            "fp": "falsePositives",
            "tn": "trueNegatives",
            "fn": "falseNegatives",
        }
        rows = [{k: float(m.get(source, 0.0)) for k, source in keys.items()} for m in matrices]
        rows = [r for r in rows if 0 <= r["threshold"] <= 1]
        found["confusion"] = rows[:: max(1, len(rows) // 200)]
    buckets = data.get("calibrationHistogramBuckets", {}).get("buckets", [])
    if buckets:
        found["calibration"] = _calibration(buckets)
    matrix = data.get("multiClassConfusionMatrixAtThresholds", {}).get("matrices", [])
    if matrix:
        found["multiclass"] = [
            {
                "actual": float(e.get("actualClassId", 0)),
                "predicted": float(e.get("predictedClassId", 0)),
                "count": float(e.get("numWeightedExamples", 0)),
            }
            for e in matrix[0].get("entries", [])
        ]
    return found


def _calibration(buckets: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Returns TFMA's narrow calibration buckets merged into ten."""
    rows: dict[int, list[float]] = {}
    for bucket in buckets:
        count = float(bucket.get("numWeightedExamples", 0))
        if count:
            total = rows.setdefault(
                min(9, int(10 * float(bucket.get("totalWeightedRefinedPrediction", 0)) / count)), [0.0, 0.0, 0.0]
            )
            total[0] += float(bucket.get("totalWeightedRefinedPrediction", 0))
            total[1] += float(bucket.get("totalWeightedLabel", 0))
            total[2] += count
    return [{"prediction": p / n, "label": label / n, "count": n} for _, (p, label, n) in sorted(rows.items())]
