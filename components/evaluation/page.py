"""Renders the evaluation page: verdict, metrics of all models overall and by slice, plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.evaluation.results import CHAMPION, Evaluation, verdict_of
from switchyard.components.evaluation.row_plots import shares
from switchyard.components.pages.page import COLOURS, INK, axes, legend, number, render, svg, table

_MOST_CLASSES = 10


def evaluation_html(result: Evaluation, summary: DatasetSummary) -> str:
    """Returns the page as HTML."""
    sections = [verdict_section(result), *evaluation_sections(result, summary)]
    return render(
        f"Evaluation on {summary.about}", f"{summary.task}, {result.rows:,} examples of the split {result.split}", sections
    )


def verdict_section(result: Evaluation) -> dict[str, Any]:
    """Returns the section on the model gate's verdict."""
    lines = []
    if result.blessed:
        lines.append(f"Blessed: {result.best}. Every threshold holds.")
    else:
        lines.append(f"Not blessed. The best candidate is {result.best}.")
    lines += [f"{name}: {reason}." for name, m in result.models.items() for reason in (*m.failures, *m.notes)]
    lines += [f"{line}." for line in result.lines()]
    lines += [f"{note}." for note in result.notes if note]
    head = ("metric", "value", "at least", "at most", "improvement at least", "per slice")
    rows = [
        [
            name,
            number(result.metrics.get(name)),
            *(number(b.get(k)) for k in ("lower_bound", "upper_bound", "min_change")),
            "yes" if b.get("per_slice") else "no",
        ]
        for name, b in result.thresholds.items()
    ]
    return {
        "title": "Model gate",
        "good": result.blessed,
        "verdict": "blessed" if result.blessed else "not blessed",
        "lines": lines,
        "table": table(head, rows),
    }


def models_table(result: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Returns the table's head and rows: for each model its verdict, the deciding metric's interval and all metrics."""
    names = [result.metric, *(m for m in result.metrics if m not in ("example_count", result.metric))]
    head = ["", "verdict", f"{result.metric}, 95 % interval", *names]
    rows = []
    for name, model in result.models.items():
        low_high = model.intervals.get(result.metric)
        between = f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else ""
        title = f"{name} (version {model.version}, {model.framework})" if model.version else name
        rows.append([title, verdict_of(model), between, *(number(model.metrics.get(n)) for n in names)])
    return head, rows


def evaluation_sections(result: Evaluation, summary: DatasetSummary) -> list[dict[str, Any]]:
    """Returns the sections with metrics of all models, slices and plots."""
    head, rows = models_table(result)
    sections: list[dict[str, Any]] = [{"title": "Models on the same rows", "table": table(head, rows)}]
    if result.candidate.slices:
        champion = result.models.get(CHAMPION)
        names = [n for n in result.metrics if any(n in values for values in result.candidate.slices.values())]
        cells = []
        names.sort(key=lambda n: n != result.slice_metric)
        for key, values in result.worst_first(result.candidate):
            before = [number(champion.slices.get(key, {}).get(result.slice_metric))] if champion else []
            cells.append([key, *(number(values.get(n)) for n in names[:1]), *before, *(number(values.get(n)) for n in names[1:])])
        columns = ("slice", *names[:1], *(["champion"] if champion else []), *names[1:])
        text = f"The worst by {result.slice_metric} first." if result.slice_metric in names else ""
        sections.append({"title": f"Slices of {result.best}", "text": text, "table": table(columns, cells)})
    plots = _plots(result, summary)
    if plots:
        sections.append({"title": "Plots", "plots": plots})
    return sections


def _plots(result: Evaluation, summary: DatasetSummary) -> list[Any]:
    plots = []
    by_model = {name: m.plots for name, m in result.models.items()}
    if curves := {n: p["confusion"] for n, p in by_model.items() if p.get("confusion")}:
        plots += _curves(curves)
    if classes := result.candidate.plots.get("one_vs_rest"):
        by_class: dict[str, list[dict[str, float]]] = {}
        for row in classes:
            by_class.setdefault(str(summary.classes[int(row["class"])]), []).append(row)
        plots += _curves(dict(list(by_class.items())[:_MOST_CLASSES]))
    if buckets := {n: p["calibration"] for n, p in by_model.items() if p.get("calibration")}:
        plots.append(_calibration(buckets))
    if rows := result.candidate.plots.get("confusion"):
        plots.append(_matrix(_half(rows), [str(c) for c in summary.classes]))
    if rows := result.candidate.plots.get("multiclass"):
        plots.append(_matrix(rows, [str(c) for c in summary.classes]))
    if rows := result.candidate.plots.get("fit"):
        plots.append(_fit(rows))
    if quantiles := {n: p["quantiles"] for n, p in by_model.items() if p.get("quantiles")}:
        plots.append(_quantiles(quantiles))
    if ranks := {n: p["ranks"] for n, p in by_model.items() if p.get("ranks")}:
        plots.append(_ranks(ranks))
    return plots


def _curves(curves: Mapping[str, list[dict[str, float]]]) -> list[Any]:
    roc, roc_ax = axes(title="ROC", x="false positive rate", y="true positive rate")
    pr, pr_ax = axes(title="Precision and recall", x="recall", y="precision")
    roc_ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    for i, (name, rows) in enumerate(curves.items()):
        tp, fp, tn, fn = (np.asarray([r[k] for r in rows]) for k in ("tp", "fp", "tn", "fn"))
        tpr, fpr = shares(tp, tp + fn), shares(fp, fp + tn)
        found = tp + fp > 0
        colour = COLOURS[i % len(COLOURS)]
        roc_ax.plot(fpr, tpr, color=colour, label=name)
        pr_ax.plot(tpr[found], (tp[found] / (tp + fp)[found]), color=colour, label=name)
    pr_ax.set_ylim(0, 1.02)
    if len(curves) > 1:
        legend(roc_ax)
        legend(pr_ax)
    return [svg(roc, "ROC curves"), svg(pr, "Precision and recall")]


def _calibration(buckets: Mapping[str, list[dict[str, float]]]) -> Any:
    figure, ax = axes(title="Calibration", x="mean prediction", y="share of positives")
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    for i, (name, rows) in enumerate(buckets.items()):
        x, y = [r["prediction"] for r in rows], [r["label"] for r in rows]
        ax.plot(x, y, marker="o", markersize=3, color=COLOURS[i % len(COLOURS)], label=name)
    if len(buckets) > 1:
        legend(ax)
    return svg(figure, "Calibration")


def _fit(rows: list[dict[str, float]]) -> Any:
    figure, ax = axes(title="Prediction and label, a sample", x="label", y="prediction")
    labels = [r["label"] for r in rows]
    ax.plot([min(labels), max(labels)], [min(labels), max(labels)], color=INK, linewidth=0.8, linestyle=":")
    ax.scatter(labels, [r["prediction"] for r in rows], s=6, alpha=0.6, color=COLOURS[0])
    return svg(figure, "Prediction and label")


def _quantiles(quantiles: Mapping[str, list[dict[str, float]]]) -> Any:
    figure, ax = axes(title="Calibration of the quantiles", x="quantile", y="share of labels up to it")
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    for i, (name, rows) in enumerate(quantiles.items()):
        x, y = [r["quantile"] for r in rows], [r["share"] for r in rows]
        ax.plot(x, y, marker="o", markersize=3, color=COLOURS[i % len(COLOURS)], label=name)
    if len(quantiles) > 1:
        legend(ax)
    return svg(figure, "Calibration of the quantiles")


def _ranks(relevance: Mapping[str, list[dict[str, float]]]) -> Any:
    title = "Mean relevance by rank"
    figure, ax = axes(title=title, x="rank", y="relevance")
    for i, (name, rows) in enumerate(relevance.items()):
        x = [r["rank"] for r in rows]
        if not i:
            ax.plot(x, [r["best"] for r in rows], color=INK, linewidth=0.8, linestyle=":", label="best order")
        ax.plot(x, [r["relevance"] for r in rows], marker="o", markersize=3, color=COLOURS[i % len(COLOURS)], label=name)
    legend(ax)
    return svg(figure, title)


def _half(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Returns the confusion matrix at a threshold of 0.5."""
    at = min(rows, key=lambda r: abs(r["threshold"] - 0.5))
    return [
        {"actual": 0, "predicted": 0, "count": at["tn"]},
        {"actual": 0, "predicted": 1, "count": at["fp"]},
        {"actual": 1, "predicted": 0, "count": at["fn"]},
        {"actual": 1, "predicted": 1, "count": at["tp"]},
    ]


def _matrix(rows: list[dict[str, float]], classes: list[str]) -> Any:
    n = len(classes)
    counts = np.zeros((n, n))
    for row in rows:
        counts[int(row["actual"]), int(row["predicted"])] += row["count"]
    of_actual = shares(counts, counts.sum(axis=1, keepdims=True))
    figure, ax = axes(min(8.0, 2.8 + 0.35 * n), min(7.0, 2.0 + 0.3 * n), title="Confusion matrix", x="predicted", y="actual")
    ax.imshow(of_actual, cmap="Blues", vmin=0, vmax=1)
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
                    fontsize=8,
                    color="white" if of_actual[i, j] > 0.5 else "#1c2430",
                )
    return svg(figure, "Confusion matrix")
