"""The gates' part of the config: what stops bad data, and what a model must reach to be blessed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from switchyard.components.config import Names, Number, Positive, Section

Action = Literal["fail", "warn"]
Share = Annotated[Number, Field(ge=0, le=1)]


class AnomalyActions(Section):
    """The action on an anomaly, by TFDV's severity or by feature. Short form in YAML: `warn` or `fail` for errors.

    Attributes:
        error: action on anomalies of severity ERROR.
        warning: action on anomalies of severity WARNING.
        features: feature to action, whatever the severity.
    """

    error: Action = "fail"
    warning: Action = "warn"
    features: dict[str, Action] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"error": value, "warning": "warn"} if isinstance(value, str) else value


class Distances(Section):
    """Distances between two distributions, from 0 (identical) to 1, above which a feature warns or stops the run.

    Both apply to the Jensen-Shannon divergence (base 2) and, for categorical features, to the L-infinity distance.

    Attributes:
        warn: distance above which the run warns.
        fail: distance above which the run stops.
    """

    warn: Share = 0.1
    fail: Share = 0.5

    @model_validator(mode="after")
    def _check(self) -> Distances:
        if self.warn > self.fail:
            raise ValueError(f"warn {self.warn} is above fail {self.fail}")
        return self


class DriftConfig(Distances):
    """Drift against the champion's training data and the previous run, and skew against a sample of serving requests.

    Attributes:
        warn: distance above which the run warns.
        fail: distance above which the run stops.
        features: feature to distances of its own.
    """

    features: dict[str, Distances] = Field(default_factory=dict)


class LeakageConfig(Section):
    """Limits on leakage of the label or of training rows.

    Attributes:
        max_duplicates: largest share of a split's rows that may also be in `train`, beyond the duplicates within `train`; above
            it the run stops.
        max_information: largest normalized mutual information between one feature and the label; above it the run warns.
        max_id_information: largest share of the label's variance explained by a row's neighbours in an id, index or order
            column; above it the run stops. `validation.on_anomaly.features.COLUMN: warn` lets one column pass.
    """

    max_duplicates: Share = 0.1
    max_information: Share = 0.9
    max_id_information: Share = 0.3


class ValidationConfig(Section):
    """The data gate.

    Attributes:
        schema_path: reviewed `schema.pbtxt`; `switchyard schema infer` writes the first. Without it the schema is inferred from
            the training split, and values that occur only in other splits are warnings, not errors.
        environment: schema environment in which examples are checked. Default: `TRAINING` if the schema has it.
        on_anomaly: action on anomalies against the schema.
        drift: limits on drift and skew.
        serving_sample: file of requests as served; compared with the training split by the distances of `drift`.
        leakage: limits on leakage.
    """

    schema_path: str | None = Field(default=None, alias="schema")
    environment: str | None = None
    on_anomaly: AnomalyActions = AnomalyActions()
    drift: DriftConfig = DriftConfig()
    serving_sample: str | None = None
    leakage: LeakageConfig = LeakageConfig()
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


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
    """By how much, and how surely, a candidate must be better than the champion to replace it.

    The metric and the confidence also apply to the comparison with the trivial predictor, see `EvaluationConfig`.

    Attributes:
        metric: metric that decides between candidate and champion, and between candidates. Default: `auc` (binary), `accuracy`
            (multiclass), `loss` (regression).
        minimum: required improvement, in the metric's unit and better direction.
        confidence: confidence of the paired bootstrap: a one-sided bound above `minimum` against the champion, the two-sided
            interval shown in the table against the trivial predictor; `null` compares the bare differences.
    """

    metric: str | None = None
    minimum: Number = 0.0
    confidence: Annotated[Number, Field(ge=0.5, lt=1)] | None = 0.95


class EvaluationConfig(Section):
    """The model gate: slices, thresholds and the comparison with the champion.

    Whatever is set here, a model becomes champion only if it is surely better than the trivial predictor, which knows the
    label's distribution and no feature: AUC 0.5, the majority class's accuracy, the mean's MSE.

    Attributes:
        slices: columns, or lists of columns, to slice by.
        thresholds: metric to bounds. Default: at least as good as the trivial predictor.
        improvement: required improvement over the champion; with `null` any model that keeps the thresholds and is surely
            better than the trivial predictor replaces the champion without a comparison.
        comparable: share of the held-out rows that the champion must be able to predict; both models are compared on these
            rows.
        incomparable_champion: if the champion can predict fewer rows, `keep` it and register the candidate as challenger (exit
            code 4), or `replace` it without a comparison.
        min_slice_examples: smaller slices are shown but not judged.
    """

    slices: tuple[Names, ...] = ()
    thresholds: dict[str, Threshold] = Field(default_factory=dict)
    improvement: Improvement | None = Improvement()
    comparable: Share = 0.9
    incomparable_champion: Literal["keep", "replace"] = "keep"
    min_slice_examples: Positive = 100
