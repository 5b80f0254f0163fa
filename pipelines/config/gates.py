"""The gates' part of the config: what stops bad data, and what a model must reach to be blessed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from switchyard.components.config import Names, Number, Positive, Section

Action = Literal["fail", "warn"]
Share = Annotated[Number, Field(ge=0, le=1)]


class AnomalyActions(Section):
    """What an anomaly does: by TFDV's severity, or for one feature whatever the severity. In YAML also in short: `warn`."""

    error: Action = "fail"
    warning: Action = "warn"
    features: dict[str, Action] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"error": value, "warning": "warn"} if isinstance(value, str) else value


class Distances(Section):
    """Distances between two distributions, 0 (the same) to 1, above which a feature warns or stops the run.

    Both hold for the Jensen-Shannon divergence (base 2) and, of categorical features, the L-infinity distance.
    """

    warn: Share = 0.1
    fail: Share = 0.5

    @model_validator(mode="after")
    def _check(self) -> Distances:
        if self.warn > self.fail:
            raise ValueError(f"warn {self.warn} is above fail {self.fail}")
        return self


class DriftConfig(Distances):
    """Drift against the champion's training data and the previous run, skew against a sample of serving requests.

    Attributes:
        features: feature -> distances of its own.
    """

    features: dict[str, Distances] = Field(default_factory=dict)


class LeakageConfig(Section):
    """What of the label or of the training split may leak.

    Attributes:
        max_duplicates: share of a split's rows that may also be in the training split, beyond what the training split
            repeats in itself; above it the run stops.
        max_information: share of the label's entropy that one feature may hold (normalized mutual information); above
            it the run warns.
        max_id_information: share of the label's variance that the neighbours of a row explain in a column that is an id, an
            index or an order; above it the run stops, unless `on_anomaly.features` says `warn` for the column.
    """

    max_duplicates: Share = 0.1
    max_information: Share = 0.9
    max_id_information: Share = 0.3


class ValidationConfig(Section):
    """The data gate.

    Attributes:
        schema_path: a reviewed `schema.pbtxt`; without it the schema is inferred from the training split, and values
            that the other splits alone have are warnings, not errors.
        environment: the schema environment that the examples are checked in.
        serving_sample: a file of requests as they are served; compared with the training split.
    """

    schema_path: str | None = Field(default=None, alias="schema")
    environment: str | None = None
    on_anomaly: AnomalyActions = AnomalyActions()
    drift: DriftConfig = DriftConfig()
    serving_sample: str | None = None
    leakage: LeakageConfig = LeakageConfig()
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Threshold(Section):
    """Bounds, inclusive, that a metric must keep.

    Attributes:
        min_change: the least change against the champion on the same rows, in the direction that is better for the
            metric; -0.01 lets it get worse by 0.01.
        per_slice: the bounds hold for every slice with `min_slice_examples` too, not only for the whole held-out split.
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
    """By how much, and how surely, a model must be better than the champion to take its place.

    The metric and the confidence are those of the trivial predictor's check too, see `EvaluationConfig`.

    Attributes:
        metric: default: `auc` (binary), `accuracy` (multiclass), `loss` (regression).
        minimum: in the metric's own unit, in the direction that is better.
        confidence: of the one-sided bootstrap bound that must lie above `minimum`; null: the bare difference must.
    """

    metric: str | None = None
    minimum: Number = 0.0
    confidence: Annotated[Number, Field(ge=0.5, lt=1)] | None = 0.95


class EvaluationConfig(Section):
    """Slices (a feature or a list of features each), thresholds, and the comparison with the champion.

    Whatever is set here, a model becomes champion only if it is surely better than the trivial predictor, which knows the
    label's distribution and no feature: AUC 0.5, the majority class's accuracy, the mean's MSE.

    Attributes:
        improvement: null: any model that is surely better than the trivial predictor and keeps the thresholds replaces the
            champion, which it is not compared with.
        comparable: share of the held-out rows that the champion must be able to judge; both models are compared on these.
        incomparable_champion: what becomes of a candidate whose champion can judge fewer: `keep` leaves the champion and keeps
            the candidate as challenger, `replace` promotes it without a comparison.
        min_slice_examples: smaller slices are shown and not judged.
    """

    slices: tuple[Names, ...] = ()
    thresholds: dict[str, Threshold] = Field(default_factory=dict)
    improvement: Improvement | None = Improvement()
    comparable: Share = 0.9
    incomparable_champion: Literal["keep", "replace"] = "keep"
    min_slice_examples: Positive = 100
