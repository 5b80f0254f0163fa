"""The evaluation page: verdict, metrics overall and by slice, curves."""

from __future__ import annotations

from typing import Any

import numpy as np

from components.dataset import DatasetSummary
from components.evaluation.results import Evaluation
from components.reports.page import COLOURS, axes, number, render, svg, table


def evaluation_html(result: Evaluation, summary: DatasetSummary) -> str:
    """Returns the page."""
    verdict = "Blessed: every threshold holds." if result.blessed else "Not blessed: " + "; ".join(result.failures) + "."
    bounds = [
        [name, number(result.metrics.get(name)), number(b.get("lower_bound")), number(b.get("upper_bound"))]
        for name, b in result.thresholds.items()
    ]
    sections: list[dict[str, Any]] = [
        {"title": "Verdict", "text": verdict, "table": table(("metric", "value", "at least", "at most"), bounds)},
        {"title": "Metrics", "table": table(("metric", "value"), [(k, number(v)) for k, v in result.metrics.items()])},
    ]
    if result.slices:
        names = list(result.metrics)
        rows = [[key, *(number(values.get(n)) for n in names)] for key, values in result.slices.items()]
        sections.append({"title": "Slices", "table": table(("slice", *names), rows)})
    sections.append({"title": "Plots", "plots": _plots(result, summary)})
    return render(f"Evaluation on {summary.label}", f"{summary.task}, {summary.rows['eval']:,} examples", sections)


def _plots(result: Evaluation, summary: DatasetSummary) -> list[Any]:
    plots = []
    if rows := result.plots.get("confusion"):
        plots += _curves(rows)
    if rows := result.plots.get("calibration"):
        figure, ax = axes(title="Calibration", x="mean prediction", y="share of positives")
        ax.plot([0, 1], [0, 1], color="#7a8699", linewidth=0.8, linestyle=":")
        ax.plot([r["prediction"] for r in rows], [r["label"] for r in rows], marker="o", markersize=3, color=COLOURS[0])
        plots.append(svg(figure, "Calibration"))
    if rows := result.plots.get("multiclass"):
        plots.append(_matrix(rows, [str(c) for c in summary.classes]))
    return plots


def _curves(rows: list[dict[str, float]]) -> list[Any]:
    tp, fp, tn, fn = (np.asarray([r[k] for r in rows]) for k in ("tp", "fp", "tn", "fn"))
    tpr, fpr = tp / np.maximum(tp + fn, 1), fp / np.maximum(fp + tn, 1)
    found = tp + fp > 0
    figure, ax = axes(title="ROC", x="false positive rate", y="true positive rate")
    ax.plot([0, 1], [0, 1], color="#7a8699", linewidth=0.8, linestyle=":")
    ax.plot(fpr, tpr, color=COLOURS[0])
    roc = svg(figure, "ROC curve")
    figure, ax = axes(title="Precision and recall", x="recall", y="precision")
    ax.plot(tpr[found], (tp[found] / (tp + fp)[found]), color=COLOURS[1])
    ax.set_ylim(0, 1.02)
    at = int(np.argmin(np.abs(np.asarray([r["threshold"] for r in rows]) - 0.5)))
    half = [
        {"actual": 0, "predicted": 0, "count": tn[at]},
        {"actual": 0, "predicted": 1, "count": fp[at]},
        {"actual": 1, "predicted": 0, "count": fn[at]},
        {"actual": 1, "predicted": 1, "count": tp[at]},
    ]
    return [roc, svg(figure, "Precision and recall"), _matrix(half, ["negative", "positive"])]


def _matrix(rows: list[dict[str, float]], classes: list[str]) -> Any:
    n = len(classes)
    counts = np.zeros((n, n))
    for row in rows:
        counts[int(row["actual"]), int(row["predicted"])] += row["count"]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, ax = axes(min(8.0, 2.4 + 0.35 * n), min(7.0, 2.0 + 0.3 * n), title="Confusion matrix", x="predicted", y="actual")
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= 20:
        ax.set_xticks(range(n), classes, rotation=45 if n > 4 else 0)
        ax.set_yticks(range(n), classes)
        for i in range(n):
            for j in range(n):
                ax.text(
                    j,
                    i,
                    number(counts[i, j]),
                    ha="center",
                    va="center",
                    fontsize=6,
                    color="white" if shares[i, j] > 0.5 else "#1c2430",
                )
    return svg(figure, "Confusion matrix")
