"""PipelineConfig: the one file a user writes, typed and frozen. Every check on the user's input that needs no data.

Unknown keys are refused. Relative paths are relative to the YAML's folder and absolute after loading.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import yaml
from pydantic import BeforeValidator, Field, StrictInt, field_validator, model_validator

from switchyard.components.config import LARGEST, Names, Number, Positive, Section
from switchyard.components.text.redaction import mask
from switchyard.pipelines.config.beam import BeamConfig
from switchyard.pipelines.config.columns import ColumnConfig, CsvConfig
from switchyard.pipelines.config.gates import EvaluationConfig, ValidationConfig
from switchyard.pipelines.config.kubeflow import KubeflowConfig
from switchyard.pipelines.config.trainer import FRAMEWORKS, TrainerConfig
from switchyard.pipelines.config.tuning import MODEL_PARAMETER, TuneConfig

FORMATS = ("auto", "csv", "parquet", "jsonl", "tfrecord")
# MLflow's own rules (of registered and of logged models, of experiments, of its database's columns), which it would apply at the
# end of the run; and no @, which stands between a model's name and its alias. A promotion's lock has a longer name.
_NOT_IN_MODEL_NAMES = "/:.%\"'@"
_LONGEST_MODEL_NAME, _LONGEST_EXPERIMENT = 256 - len(".promotion-lock"), 256


# Classes are known by their text, whatever YAML makes of it.
ClassName = Annotated[
    str, BeforeValidator(lambda v: str(v).lower() if isinstance(v, bool) else str(v) if isinstance(v, int | float) else v)
]


class DataConfig(Section):
    """Where the examples come from and how they are split.

    Attributes:
        path: a file, a glob or a list of them, local or any URI that Beam's filesystems open.
        format: `auto` goes by the file name's ending.
        exclude: columns that are never read into the pipeline.
        splits: split -> weight (rows are assigned by hash), or split -> path. `train` and `eval` must be there; early stopping
            and tuning look at `eval`, so `test`, where there is one, is what the model gate and the report judge by.
        split_key: the hash is of this column (all rows of a user in one split), else of the whole row.
        max_bad_rows: ragged, undecodable or unlabelled rows that are tolerated (and left out).
        missing_values: texts that mean "missing" in every column and format, besides an empty one, and besides the usual words
            (NA, NaN, null, ...) in a column that is no text.
        max_float32_loss: share of the distinct values of a column of fractions that may become one as float32 (what
            examples hold); above it the run stops. Whole numbers are kept as integers instead.
        csv: how CSVs are written.
        columns: column -> what it is declared to be; the others are what all their values are.
    """

    path: Names = ()
    format: Literal["auto", "csv", "parquet", "jsonl", "tfrecord"] = "auto"
    exclude: Names = ()
    splits: dict[str, Number | Names] = Field(default={"train": 0.7, "eval": 0.1, "test": 0.2})
    split_key: str | None = None
    max_bad_rows: Annotated[StrictInt, Field(ge=0, le=LARGEST)] = 0
    missing_values: Names | None = None
    max_float32_loss: Annotated[Number, Field(ge=0, le=1)] = 0.5
    csv: CsvConfig = CsvConfig()
    columns: dict[str, ColumnConfig] = Field(default_factory=dict)

    @property
    def split_paths(self) -> dict[str, tuple[str, ...]] | None:
        """Split -> paths when splits are separate inputs, else None."""
        paths = {k: v for k, v in self.splits.items() if isinstance(v, tuple)}
        return paths or None

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        for needed in ("train", "eval"):
            if needed not in self.splits:
                raise ValueError(f"splits must name 'train' and 'eval' (others are free), received {sorted(self.splits)}")
        for name, value in self.splits.items():
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                raise ValueError(f"splits: {name!r} is not a name (letters, digits and '_' only)")
            if isinstance(value, float) and value <= 0:
                raise ValueError(f"splits.{name} must be a weight above 0, received {value}")
        paths = self.split_paths
        if paths and len(paths) != len(self.splits):
            raise ValueError("splits must be all weights or all paths, received a mixture")
        if paths and self.path:
            raise ValueError("path and splits by path exclude each other: give one")
        if paths and self.split_key:
            raise ValueError("split_key means nothing when splits are separate inputs: remove it")
        if not paths and not self.path:
            raise ValueError("path is missing: a file, a glob or a list of them")
        return self


class InfraValidation(Section):
    """Before promotion: `rows` of the held-out split go over HTTP to a server of the model's own, ready in `startup_seconds`."""

    rows: Positive = 200
    startup_seconds: Annotated[Number, Field(gt=0)] = 120.0


class ServingConfig(Section):
    """How the model is served.

    Attributes:
        model_name: in MLflow's registry; default: the pipeline's name.
        infra_validation: null disables it.
    """

    model_name: str | None = None
    infra_validation: InfraValidation | None = InfraValidation()

    @field_validator("model_name")
    @classmethod
    def _registrable(cls, name: str | None) -> str | None:
        if name is None:
            return None
        if not name.strip() or not name.isprintable() or set(name) & set(_NOT_IN_MODEL_NAMES):
            raise ValueError(
                f"{name!r} is no name for a registered model: MLflow takes printable characters other than "
                f"{' '.join(_NOT_IN_MODEL_NAMES)}; choose another, for example my_model"
            )
        if len(name) > _LONGEST_MODEL_NAME:
            raise ValueError(f"has {len(name)} characters, a registered model's name at most {_LONGEST_MODEL_NAME}; shorten it")
        return name


class TrackingConfig(Section):
    """`uri`: an MLflow tracking server or database; default: SQLite in the workspace. `experiment`: default: the name."""

    uri: str | None = None
    experiment: str | None = None

    @field_validator("experiment")
    @classmethod
    def _acceptable(cls, name: str | None) -> str | None:
        if name is not None and (not name.strip() or not name.isprintable()):
            raise ValueError(f"{name!r} is no name for an experiment: MLflow takes printable characters; choose another")
        if name is not None and len(name) > _LONGEST_EXPERIMENT:
            raise ValueError(f"has {len(name)} characters, an experiment's name at most {_LONGEST_EXPERIMENT}; shorten it")
        return name

    @model_validator(mode="after")
    def _check(self) -> TrackingConfig:
        allowed = r"(https?|sqlite|postgresql|mysql|mssql|databricks)([+a-z0-9]*)(://.*)?"
        if self.uri is not None and not re.fullmatch(allowed, self.uri):
            raise ValueError(
                f"uri: {self.uri!r} is not a tracking server; allowed: http(s)://..., sqlite:///..., postgresql://..., "
                "mysql://... (MLflow 3 refuses plain folders)"
            )
        return self


class PipelineConfig(Section):
    """The whole pipeline. Everything but `name`, `data` and `label` has a default.

    Attributes:
        positive_class: of a binary task: whose probability is predicted, and which the metrics are about; default: the one
            with a usual name (1, true, yes, ...), else the champion's, else the rarer one.
    """

    name: str
    data: DataConfig
    label: str
    task: Literal["auto", "binary", "multiclass", "regression"] = "auto"
    positive_class: ClassName | None = None
    preprocessing: str | None = None
    files: Names = ()
    trainer: TrainerConfig = TrainerConfig()
    tune: TuneConfig | None = None
    validation: ValidationConfig = ValidationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()
    tracking: TrackingConfig = TrackingConfig()
    beam: BeamConfig = BeamConfig()
    kubeflow: KubeflowConfig = KubeflowConfig()

    @property
    def model_name(self) -> str:
        """Name in the model registry."""
        return self.serving.model_name or self.name

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.tracking.experiment or self.name

    def to_yaml(self) -> str:
        """The resolved config, as `load_config` takes it (paths absolute, defaults written out)."""
        document = self.model_dump(mode="json", by_alias=True)
        # What a cluster is asked for has many keys, of which few are used.
        document["kubeflow"] = self.kubeflow.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if self.tune is None:
            del document["tune"]
        if self.beam == BeamConfig():
            del document["beam"]
        return yaml.safe_dump(document, sort_keys=False)

    def public_yaml(self) -> str:
        """The same without the tracking server's password: fit for files, MLflow and reports."""
        return mask(self.to_yaml())

    @model_validator(mode="after")
    def _check(self) -> PipelineConfig:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", self.name):
            raise ValueError(
                f"name: {self.name!r} must be 1 to 63 lower-case letters, digits, '_' or '-', starting with a letter"
            )
        if self.label in self.data.exclude:
            raise ValueError(f"data.exclude: lists the label {self.label!r}; a label cannot be excluded")
        if self.tune:
            untold = [n for n in self.tune.space if n.startswith(MODEL_PARAMETER)]
            if untold and any(f in FRAMEWORKS and not self.trainer.model_for(f) for f in self.trainer.frameworks):
                raise ValueError(
                    f"tune.space: {untold[0]!r} is a parameter of a model of your own; the default model has none. "
                    "Set trainer.model."
                )
            workers = self.trainer.accelerator.profile().workers
            uneven = self.tune.batch_size_not_shared_by(workers)
            if uneven:
                raise ValueError(
                    f"tune.space.batch_size: {uneven} rows cannot be shared equally by {workers} workers "
                    "(trainer.accelerator: count times nodes); give choices that can, or low, high and step"
                )
        if self.positive_class is not None and self.task in ("multiclass", "regression"):
            raise ValueError(
                f"positive_class: a {self.task} task has none, received {self.positive_class!r}. "
                "Remove it, or set task to binary."
            )
        if self.task == "regression" and self.trainer.hyperparameters.class_weights is not None:
            raise ValueError("trainer.hyperparameters.class_weights: a regression has no classes; remove it")
        return self
