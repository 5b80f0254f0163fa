"""The data gate's section of the config."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from switchyard.components.config import Names, Section, Share

Action = Literal["fail", "warn"]


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
        max_duplicates: largest share of a split's rows that may also be in `train`, beyond the duplicates within `train`; of a
            ranking also the largest share of its queries; above it the run stops.
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


class DataGateSettings(ValidationConfig):
    """The data gate's settings: the config's `validation` section and the keys of other sections that affect it.

    Attributes:
        version: Switchyard's version.
        curated: whether the schema is a reviewed one.
        excluded: columns excluded on purpose.
        split_paths: whether splits are separate inputs.
        comparable: see `EvaluationConfig`.
        incomparable_champion: see `EvaluationConfig`.
        missing_values: see `DataConfig`.
    """

    version: str = ""
    curated: bool = False
    excluded: Names = ()
    split_paths: bool = False
    comparable: Share = 0.9
    incomparable_champion: Literal["keep", "replace"] = "keep"
    missing_values: Names | None = None
