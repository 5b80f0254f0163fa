"""Config section `evaluation`: the model gate's slices, thresholds and comparison with the champion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from switchyard.components.config import Names, Number, Positive, Section, Share
from switchyard.components.metrics import direction


class Threshold(Section):
    """Inclusive bounds on a metric; at least one of `lower_bound`, `upper_bound` and `min_change` is required.

    Attributes:
        lower_bound: smallest accepted value.
        upper_bound: largest accepted value.
        min_change: smallest accepted change against the champion on the same rows, in the metric's better direction; -0.01
            accepts a loss of 0.01.
        per_slice: apply the bounds to every slice with at least `min_slice_examples` too.
    """

    lower_bound: Number | None = None
    upper_bound: Number | None = None
    min_change: Number | None = None
    per_slice: bool = False

    @model_validator(mode="after")
    def _check(self) -> Threshold:
        if self.lower_bound is None and self.upper_bound is None and self.min_change is None:
            raise ValueError("give lower_bound, upper_bound or min_change")
        if self.lower_bound is not None and self.upper_bound is not None and self.lower_bound > self.upper_bound:
            raise ValueError(f"lower_bound {self.lower_bound} is above upper_bound {self.upper_bound}")
        return self


class Improvement(Section):
    """The improvement over the champion that a candidate needs to replace it, and its statistical confidence.

    The metric and the confidence also apply to the comparison with the trivial predictor, see `EvaluationConfig`.

    Attributes:
        metric: metric that decides between candidate and champion, and between candidates. Default: `auc` (binary, multilabel),
            `accuracy` (multiclass), `ndcg_10` (ranking), `loss` (regression, quantile, multioutput); a custom task has none. A
            metric of your own needs `better`.
        better: of a metric of your own (`evaluation.metrics`), which values are better: `higher` or `lower`.
        minimum: required improvement, in the metric's unit and better direction.
        confidence: confidence of the paired bootstrap: a one-sided bound above `minimum` against the champion, the two-sided
            interval shown in the table against the trivial predictor; `null` compares the bare differences.
    """

    metric: str | None = None
    better: Literal["higher", "lower"] | None = None
    minimum: Number = 0.0
    confidence: Annotated[Number, Field(ge=0.5, lt=1)] | None = 0.95

    def direction(self, metric: str) -> int:
        """Returns +1 if higher values of a metric are better, -1 if lower ones are. Raises KeyError for another own metric."""
        if self.better and metric == self.metric:
            return 1 if self.better == "higher" else -1
        return direction(metric)


class EvaluationConfig(Section):
    """The model gate: slices, thresholds and the comparison with the champion.

    Whatever the settings, a model becomes champion only if it is significantly better than the trivial predictor, which uses only
    the label's distribution and no feature: AUC 0.5, the majority class's accuracy, the mean's MSE, the label's quantiles. A
    custom task has none, and needs a bound on the deciding metric in `thresholds` in its place.

    Attributes:
        slices: columns, or lists of columns, to slice by.
        metrics: `file.py` with metrics of your own: each function `metric(labels, scores)` returns a number for NumPy labels
            (n,), int64 class indices or float64, and scores (n, outputs): the positive class's probability, the classes',
            the value, or the quantiles'; in a custom task labels (n, *label_shape), None without a label, and scores
            (n, *output_shape). Each is tried on a few rows before the run. NaN is an undefined metric, which fails its
            thresholds. Slices of at least `min_slice_examples` rows are measured, too. A function with a third parameter
            `weights` receives the sample weights (n,), 1 without `trainer.sample_weight`.
        thresholds: metric to bounds. Default: at least as good as the trivial predictor.
        improvement: required improvement over the champion; with `null` any model that passes the thresholds and is significantly
            better than the trivial predictor replaces the champion without a comparison.
        comparable: share of the held-out rows that the champion must be able to predict; both models are compared on these
            rows.
        incomparable_champion: if the champion can predict fewer rows, `keep` it and register the candidate as challenger (exit
            code 4), or `replace` it without a comparison.
        min_slice_examples: slices with fewer examples are shown but not judged.
    """

    slices: tuple[Names, ...] = ()
    metrics: str | None = None
    thresholds: dict[str, Threshold] = Field(default_factory=dict)
    improvement: Improvement | None = Improvement()
    comparable: Share = 0.9
    incomparable_champion: Literal["keep", "replace"] = "keep"
    min_slice_examples: Positive = 100

    def direction(self, metric: str) -> int:
        """Returns +1 if higher values of a metric are better, -1 if lower ones are."""
        return self.improvement.direction(metric) if self.improvement else direction(metric)

    @model_validator(mode="after")
    def _check(self) -> EvaluationConfig:
        if self.metrics is not None and not self.metrics.endswith(".py"):
            raise ValueError(f"metrics: {self.metrics!r} is not a Python file; use a file such as metrics.py")
        return self


class EvaluationSettings(EvaluationConfig):
    """The settings of the evaluation stage: the config's `evaluation`, with `metrics` as a snapshot, and Switchyard's version."""

    version: str = ""
