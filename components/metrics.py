"""The table of metrics, used by thresholds, model comparison, tuning, curves, tables and the docs.

The area under the ROC curve has three implementations:

- `components.evaluation.curves`, over TFMA's 10,000 probability bins: the deciding metric, its interval, `models compare`;
- Keras's and torchmetrics' streaming ones over 200 thresholds, for each epoch: they run on the trainer's device without
  keeping every row's prediction, and a framework's own loop requires the framework's own metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from switchyard.components.tasks import BINARY, CUSTOM, MULTICLASS, MULTILABEL, MULTIOUTPUT, QUANTILE, RANKING, REGRESSION, TASKS

# Means over rows. TFMA's own multiclass accuracy and loss need one-hot labels, or have keys that thresholds do not match.
ROW_ACCURACY, ROW_LOSS, ROW_COVERAGE, ROW_ERROR = "__accuracy", "__loss", "__coverage", "__mae"


@dataclass(frozen=True)
class Formula:
    """A metric's formula for one task.

    Attributes:
        tfma: name of TFMA's class for this formula, measured over all rows and each slice; empty: computed from the confusion
            matrix of all rows only.
        meaning: description of the formula.
        settings: arguments of the class.
    """

    tfma: str
    meaning: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_rows(self) -> bool:
        """Whether it is a mean of values of single rows, which differ by model."""
        return "feature_key_path" in self.settings


@dataclass(frozen=True)
class Metric:
    """A metric under its public name, the same for every trainer.

    Attributes:
        name: name in thresholds, tables, files and MLflow.
        direction: +1: higher is better, -1: lower is better, 0: no direction.
        formulas: task -> formula.
        interval: whether `bootstrap` samples it, which gives it and its differences a confidence interval.
        primary: tasks in which it decides between two models by default.
        trained: whether trainers report it each epoch, for the training split and, prefixed with `val_`, for the eval split;
            `tune` may optimize it, and the report plots its curve.
        each: tasks in which it is measured of each label column, too.
        headline: position in terminal tables; None: in files and on pages only.
    """

    name: str
    direction: int
    formulas: Mapping[str, Formula]
    interval: bool = False
    primary: tuple[str, ...] = ()
    trained: bool = False
    headline: int | None = None
    each: tuple[str, ...] = ()

    def names(self, task: str, targets: Sequence[str]) -> list[str]:
        """Returns its name and, if it is also measured of each label column, its names there: `mae/temperature`."""
        return [self.name, *(f"{self.name}/{t}" for t in targets if task in self.each)]

    def has_threshold(self, task: str) -> bool:
        """Whether a threshold may be set on it, which requires that it is measured in every slice too."""
        return task in self.formulas and bool(self.formulas[task].tfma)


def _row_mean(value: str, meaning: str) -> Formula:
    return Formula("Mean", meaning, {"feature_key_path": ["features", value]})


def _by_class(what: str) -> dict[str, Formula]:
    return {MULTICLASS: Formula("", f"mean of the classes' {what}")}


METRICS = (
    Metric("example_count", 0, {task: Formula("ExampleCount", "rows") for task in TASKS}),
    Metric(
        "loss",
        -1,
        {
            BINARY: Formula("BinaryCrossEntropy", "cross-entropy, natural logarithm"),
            MULTICLASS: _row_mean(ROW_LOSS, "cross-entropy, natural logarithm"),
            REGRESSION: Formula("MeanSquaredError", "mean squared error"),
            QUANTILE: _row_mean(ROW_LOSS, "pinball loss, mean of the quantiles"),
            MULTIOUTPUT: _row_mean(ROW_LOSS, "mean squared error, mean of the labels"),
            MULTILABEL: _row_mean(ROW_LOSS, "cross-entropy, mean of the labels"),
            RANKING: _row_mean(ROW_LOSS, "listwise cross-entropy, mean of the queries"),
            CUSTOM: Formula("", "your loss, in training only"),
        },
        interval=True,
        primary=(REGRESSION, QUANTILE, MULTIOUTPUT),
        each=(MULTIOUTPUT, MULTILABEL),
        trained=True,
        headline=4,
    ),
    Metric(
        "accuracy",
        1,
        {
            BINARY: Formula("BinaryAccuracy", "share of rows with the correct class"),
            MULTICLASS: _row_mean(ROW_ACCURACY, "share of rows with the correct class"),
            MULTILABEL: _row_mean(ROW_ACCURACY, "share of correct labels, mean of the labels"),
        },
        each=(MULTILABEL,),
        interval=True,
        primary=(MULTICLASS,),
        trained=True,
        headline=2,
    ),
    Metric(
        "auc",
        1,
        {
            BINARY: Formula("AUC", "area under the ROC curve"),
            MULTILABEL: Formula("AUC", "area under the ROC curve, mean of the labels that have both values"),
        },
        interval=True,
        primary=(BINARY, MULTILABEL),
        each=(MULTILABEL,),
        trained=True,
        headline=1,
    ),
    Metric(
        "ndcg_10",
        1,
        {RANKING: _row_mean("__ndcg_10", "normalized discounted cumulative gain of the first 10 rows, mean of the queries")},
        interval=True,
        primary=(RANKING,),
        headline=6,
    ),
    Metric("ndcg_5", 1, {RANKING: _row_mean("__ndcg_5", "`ndcg_10`, of the first 5 rows")}, interval=True),
    Metric("ndcg", 1, {RANKING: _row_mean("__ndcg", "`ndcg_10`, of all rows")}, interval=True),
    Metric("map", 1, {RANKING: _row_mean("__map", "mean average precision, of rows with a label above 0")}, interval=True),
    Metric("auc_micro", 1, {MULTILABEL: Formula("AUC", "area under the ROC curve of all labels together")}, interval=True),
    Metric("auc_precision_recall", 1, {BINARY: Formula("AUCPrecisionRecall", "area under the precision-recall curve")}),
    Metric("precision", 1, {BINARY: Formula("Precision", "share of true positives among predicted positives")}, interval=True),
    Metric("recall", 1, {BINARY: Formula("Recall", "share of positives that are predicted positive")}, interval=True),
    Metric("f1", 1, {BINARY: Formula("F1Score", "harmonic mean of precision and recall")}, interval=True),
    Metric("calibration", 0, {BINARY: Formula("Calibration", "mean prediction divided by mean label")}),
    Metric("precision_macro", 1, _by_class("precision")),
    Metric("recall_macro", 1, _by_class("recall")),
    Metric("f1_macro", 1, _by_class("F1")),
    Metric(
        "mae",
        -1,
        {
            REGRESSION: Formula("MeanAbsoluteError", "mean absolute error"),
            MULTIOUTPUT: _row_mean(ROW_ERROR, "mean absolute error, mean of the labels"),
        },
        interval=True,
        trained=True,
        headline=3,
        each=(MULTIOUTPUT,),
    ),
    Metric(
        "coverage",
        0,
        {QUANTILE: _row_mean(ROW_COVERAGE, "share of labels from the first quantile to the last")},
        interval=True,
        headline=5,
    ),
    Metric("mean_label", 0, {REGRESSION: Formula("MeanLabel", "mean label")}),
    Metric("mean_prediction", 0, {REGRESSION: Formula("MeanPrediction", "mean prediction")}),
)

DIRECTION = {m.name: m.direction for m in METRICS if m.direction}
PRIMARY = {task: m.name for m in METRICS for task in m.primary}
TRAINED = [m.name for m in METRICS if m.trained]
HEADLINE = [m.name for m in sorted(METRICS, key=lambda m: m.headline or 0) if m.headline]


def names(task: str, wanted: Callable[[Metric], bool] = lambda metric: True, targets: Sequence[str] = ()) -> list[str]:
    """Returns the names of a task's metrics that can have thresholds, in the order of tables and files.

    Args:
        task: name of a task.
        wanted: filter on the metrics.
        targets: see `DatasetSummary.targets`.
    """
    return [name for m in METRICS if m.has_threshold(task) and wanted(m) for name in m.names(task, targets)]


def trained_names(*tasks: str) -> list[str]:
    """Returns the names of the metrics that trainers measure on the eval split in any of the given tasks; default: all tasks."""
    return [f"val_{m.name}" for m in METRICS if m.trained and m.formulas.keys() & set(tasks or TASKS)]


def direction(name: str) -> int:
    """Returns +1 if higher is better, -1 if lower is better; a `val_` prefix is ignored.

    Raises:
        KeyError: the metric has no direction or does not exist.
    """
    return DIRECTION[base(name.removeprefix("val_"))]


def base(name: str) -> str:
    """Returns the name of a metric in the table, without the label column that it is of."""
    return name.partition("/")[0]
