"""TFMA's result files as one plain object, `metrics.json`: what the CLI, the registry and reports read."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FILE = "metrics.json"


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: metric -> value on the whole eval split.
        slices: slice (`feature=value`, several joined by `, `) -> metric -> value.
        plots: `confusion` (rows of threshold, tp, fp, tn, fn), `calibration` (rows of prediction, label, count) or
            `multiclass` (rows of actual, predicted, count).
        thresholds: metric -> bounds.
        blessed: all thresholds hold.
        failures: one sentence for each that does not.
    """

    metrics: dict[str, float]
    slices: dict[str, dict[str, float]]
    plots: dict[str, list[dict[str, float]]]
    thresholds: dict[str, dict[str, float | None]]
    blessed: bool
    failures: list[str] = field(default_factory=list)

    def save(self, folder: str) -> None:
        """Writes it."""
        with open(os.path.join(folder, FILE), "w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file, indent=1)

    @classmethod
    def load(cls, folder: str) -> Evaluation:
        """Reads it."""
        with open(os.path.join(folder, FILE), encoding="utf-8") as file:
            return cls(**json.load(file))


def read_evaluation(folder: str, names: Sequence[str], thresholds: Mapping[str, Mapping[str, float | None]]) -> Evaluation:
    """Reads what TFMA wrote to `folder`; `names` are the metrics to keep. The verdict is TFMA's own."""
    import tensorflow_model_analysis as tfma

    result = tfma.load_eval_result(folder)
    slices: dict[str, dict[str, float]] = {}
    for key, outputs in result.slicing_metrics:
        slices[", ".join(f"{k}={v}" for k, v in key)] = _values(outputs, names)
    overall = slices.pop("")
    verdict = tfma.load_validation_result(folder)
    failures = [sentence(name, overall.get(name, math.nan), bounds) for name, bounds in thresholds.items()]
    failures = [f for f in failures if f]
    if not verdict.validation_ok and not failures:
        failures = [f"TFMA could not check the thresholds on {', '.join(thresholds)}: {str(verdict).strip()[:500]}"]
    return Evaluation(
        metrics=overall,
        slices=dict(sorted(slices.items())),
        plots=_plots(folder),
        thresholds={k: dict(v) for k, v in thresholds.items()},
        blessed=bool(verdict.validation_ok),
        failures=failures,
    )


def sentence(name: str, value: float, bounds: Mapping[str, float | None]) -> str:
    """Returns what is wrong with a value, or an empty string."""
    low, high = bounds.get("lower_bound"), bounds.get("upper_bound")
    if low is not None and not value >= low:
        return f"{name} is {value:.4f}, below its lower bound {low:.4f}"
    if high is not None and not value <= high:
        return f"{name} is {value:.4f}, above its upper bound {high:.4f}"
    return ""


def _values(outputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for sub_keys in outputs.values():
        for metrics in sub_keys.values():
            for name, value in metrics.items():
                number = value.get("doubleValue")
                if name in names and number is not None and math.isfinite(float(number)):
                    found[name] = float(number)
    return {n: found[n] for n in names if n in found}


def _plots(folder: str) -> dict[str, list[dict[str, float]]]:
    import tensorflow_model_analysis as tfma
    from google.protobuf.json_format import MessageToDict

    plots: dict[str, list[dict[str, float]]] = {}
    # From the records: TFMA's EvalResult keeps one of the plots only.
    for record in tfma.load_plots(folder):
        if not record.slice_key.single_slice_keys:
            for plot in record.plot_keys_and_values:
                plots |= _plot(MessageToDict(plot.value))
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
    """TFMA's many narrow buckets, added up to ten."""
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
