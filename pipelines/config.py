"""PipelineConfig: the one file a user writes, typed and frozen. Every check on the user's input that needs no data.

Unknown keys are refused. Relative paths are relative to the YAML's folder and absolute after loading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, ValidationError, model_validator

from components.accelerators import AcceleratorProfile
from components.errors import UserError, did_you_mean
from pipelines.config_errors import explain

FRAMEWORKS = ("tensorflow", "pytorch")
FORMATS = ("auto", "csv", "parquet", "jsonl", "tfrecord")


def _number(value: Any) -> Any:
    # bool is an int in Python, and PyYAML reads 1e-3 as text: refuse the one, let pydantic convert the other.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[StrictInt, Field(ge=1)]
# YAML reads the class 1 as a number; the label's classes are known by their text.
ClassWeights = Annotated[
    dict[str, Annotated[Number, Field(gt=0)]],
    BeforeValidator(lambda v: {str(k): w for k, w in v.items()} if isinstance(v, dict) else v),
]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]


class Section(BaseModel):
    """A part of the config: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Section):
    """Where the examples come from and how they are split.

    Attributes:
        path: a file, a glob or a list of them, local or any URI that Beam's filesystems open.
        format: `auto` goes by the file name's ending.
        exclude: columns that are never read into the pipeline.
        splits: split -> weight (rows are assigned by hash), or split -> path. `train` and `eval` must be there.
        split_key: the hash is of this column (all rows of a user in one split), else of the whole row.
        max_bad_rows: ragged, undecodable or unlabelled rows that are tolerated (and left out).
        missing_values: texts in a CSV that mean "missing"; default: Arrow's (empty, NA, NaN, null, ...).
    """

    path: Names = ()
    format: Literal["auto", "csv", "parquet", "jsonl", "tfrecord"] = "auto"
    exclude: Names = ()
    splits: dict[str, Number | Names] = Field(default={"train": 0.8, "eval": 0.2})
    split_key: str | None = None
    max_bad_rows: Annotated[StrictInt, Field(ge=0)] = 0
    missing_values: Names | None = None

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


class EarlyStopping(Section):
    """Stop when `val_loss` has not improved by `min_delta` for `patience` epochs; the best weights are kept."""

    patience: Positive = 5
    min_delta: Annotated[Number, Field(ge=0)] = 0.0


class Hyperparameters(Section):
    """The same names and meanings for every trainer. Give `epochs` or `steps`, not both."""

    epochs: Positive | None = None
    steps: Positive | None = None
    batch_size: Positive = 64
    learning_rate: Annotated[Number, Field(gt=0)] = 0.001
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 42
    early_stopping: EarlyStopping | None = EarlyStopping()
    class_weights: Literal["balanced"] | ClassWeights | None = None

    @model_validator(mode="after")
    def _check(self) -> Hyperparameters:
        if self.epochs and self.steps:
            raise ValueError("epochs and steps exclude each other: give one")
        return self


class Accelerator(Section):
    """See `components.accelerators.AcceleratorProfile`. In YAML also in short: `gpu` or `gpu:2`."""

    kind: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    count: Positive = 1
    precision: Literal["float32", "bf16", "fp16"] = "float32"

    def profile(self) -> AcceleratorProfile:
        """Returns the plain-data form that trainers take."""
        return AcceleratorProfile(self.kind, self.count, self.precision)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            kind, _, count = value.partition(":")
            return {"kind": kind, "count": int(count) if count.isdigit() else count} if count else {"kind": kind}
        return value

    @model_validator(mode="after")
    def _check(self) -> Accelerator:
        if self.count > 1:
            raise ValueError(f"count: one device per run is what this version trains on, received {self.count}; set count to 1")
        return self


class TrainerConfig(Section):
    """Which trainer, which model.

    Attributes:
        framework: `tensorflow`, `pytorch`, or `package.module:Class` of a `Trainer` of your own.
        model: a Python file with `build_model(spec)`, or `file.py:function`, or one of these per framework;
            without it the trainer's default model for the task.
        model_parameters: free values, handed to `build_model` as `spec.parameters`.
    """

    framework: str = "tensorflow"
    model: str | dict[str, str] | None = None
    model_parameters: dict[str, Any] = Field(default_factory=dict)
    hyperparameters: Hyperparameters = Hyperparameters()
    accelerator: Accelerator = Accelerator()

    @property
    def model_for_framework(self) -> str | None:
        """The model file of the chosen framework, if any."""
        return self.model.get(self.framework) if isinstance(self.model, dict) else self.model

    @model_validator(mode="after")
    def _check(self) -> TrainerConfig:
        own = r"([A-Za-z_][\w.]*|.*\.py):[A-Za-z_]\w*"
        if self.framework not in FRAMEWORKS and not re.fullmatch(own, self.framework):
            raise ValueError(
                f"framework: {self.framework!r} is not a trainer; allowed: {', '.join(FRAMEWORKS)}, or "
                f"'package.module:Class'.{did_you_mean(self.framework, FRAMEWORKS)}"
            )
        if isinstance(self.model, dict) and self.framework in FRAMEWORKS and self.framework not in self.model:
            raise ValueError(
                f"model: has no entry for the framework {self.framework!r}, received {sorted(self.model)}; "
                "add one, or leave model out for the default model"
            )
        return self


class ValidationConfig(Section):
    """`schema`: a reviewed `schema.pbtxt`; without it the schema is inferred from the training split."""

    schema_path: str | None = Field(default=None, alias="schema")
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Threshold(Section):
    """Bounds, inclusive, that a metric on the eval split must keep for the model to be blessed."""

    lower_bound: Number | None = None
    upper_bound: Number | None = None

    @model_validator(mode="after")
    def _check(self) -> Threshold:
        if self.lower_bound is None and self.upper_bound is None:
            raise ValueError("give lower_bound or upper_bound")
        if self.lower_bound is not None and self.upper_bound is not None and self.lower_bound > self.upper_bound:
            raise ValueError(f"lower_bound {self.lower_bound} is above upper_bound {self.upper_bound}")
        return self


class EvaluationConfig(Section):
    """Slices (a feature or a list of features each) and thresholds (metric -> bounds on the whole eval split).

    Without thresholds the model must beat the trivial predictor: AUC 0.5, the majority class's share, the mean's MSE.
    """

    slices: tuple[Names, ...] = ()
    thresholds: dict[str, Threshold] = Field(default_factory=dict)


class ServingConfig(Section):
    """`model_name`: the name in MLflow's registry; default: the pipeline's name."""

    model_name: str | None = None


class TrackingConfig(Section):
    """`uri`: an MLflow tracking server or database; default: SQLite in the workspace. `experiment`: default: the name."""

    uri: str | None = None
    experiment: str | None = None

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
    """The whole pipeline. Everything but `name`, `data` and `label` has a default."""

    name: str
    data: DataConfig
    label: str
    task: Literal["auto", "binary", "multiclass", "regression"] = "auto"
    preprocessing: str | None = None
    trainer: TrainerConfig = TrainerConfig()
    validation: ValidationConfig = ValidationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()
    tracking: TrackingConfig = TrackingConfig()

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
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False)

    @model_validator(mode="after")
    def _check(self) -> PipelineConfig:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", self.name):
            raise ValueError(
                f"name: {self.name!r} must be 1 to 63 lower-case letters, digits, '_' or '-', starting with a letter"
            )
        if self.label in self.data.exclude:
            raise ValueError(f"data.exclude: lists the label {self.label!r}; a label cannot be excluded")
        if self.task == "regression" and self.trainer.hyperparameters.class_weights is not None:
            raise ValueError("trainer.hyperparameters.class_weights: a regression has no classes; remove it")
        return self


def load_config(
    path: Path | None, *, document: Mapping[str, Any] | None = None, overrides: Sequence[str] = (), base: Path | None = None
) -> PipelineConfig:
    """Reads and checks a pipeline's YAML.

    Args:
        path: the YAML file; None when `document` is the whole config.
        document: values under the file's (CLI options that make up a config without a YAML).
        overrides: `a.b.c=value`, value in YAML, applied last.
        base: folder that relative paths start from; default: the YAML's.

    Raises:
        UserError: names the key, the value received and what is allowed.
    """
    data = _read(path) if path else {}
    merged: dict[str, Any] = {**(document or {}), **data}
    for override in overrides:
        _override(merged, override)
    where = str(path) if path else "the command line"
    try:
        config = PipelineConfig.model_validate(merged)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, PipelineConfig)}") from None
    return _absolute(config, base or (path.parent if path else Path.cwd()))


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the pipeline's YAML file, for example {path / 'pipeline.yaml'}")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give a pipeline.yaml, or --data and --label.") from None
    except PermissionError:
        raise UserError(f"{path}: not allowed to read it. Check its permissions.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; a pipeline is described in YAML.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: must hold a mapping (name: ..., data: ..., label: ...), received {type(loaded).__name__}")
    return loaded


def _override(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"--set {override!r}: must be key=value, for example trainer.hyperparameters.learning_rate=0.01")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override!r}: the value is not valid YAML; quote it, for example {key}='\"{text}\"'") from None
    node = document
    for part in parts[:-1]:
        child = node.get(part)
        # `accelerator: gpu` and the like give way to the long form.
        node[part] = dict(child) if isinstance(child, dict) else {"kind": child} if part == "accelerator" and child else {}
        node = node[part]
    node[parts[-1]] = value


def _absolute(config: PipelineConfig, base: Path) -> PipelineConfig:
    def fix(text: str) -> str:
        return text if "://" in text or Path(text).is_absolute() else str((base / text).resolve())

    def fix_code(text: str) -> str:
        file, colon, function = text.rpartition(":")
        return f"{fix(file)}:{function}" if colon and file.endswith(".py") else fix(text)

    data = config.data.model_copy(
        update={
            "path": tuple(fix(p) for p in config.data.path),
            "splits": {k: tuple(fix(p) for p in v) if isinstance(v, tuple) else v for k, v in config.data.splits.items()},
        }
    )
    model = config.trainer.model
    framework = config.trainer.framework
    module, _, name = framework.rpartition(":")
    file = base / f"{module.replace('.', '/')}.py"
    if module and (module.endswith(".py") or file.is_file()):
        framework = f"{fix(module) if module.endswith('.py') else file.resolve()}:{name}"
    trainer = config.trainer.model_copy(
        update={
            "framework": framework,
            "model": {k: fix_code(v) for k, v in model.items()} if isinstance(model, dict) else model and fix_code(model),
        }
    )
    schema = config.validation.schema_path
    return config.model_copy(
        update={
            "data": data,
            "trainer": trainer,
            "preprocessing": config.preprocessing and fix_code(config.preprocessing),
            "validation": config.validation.model_copy(update={"schema_path": schema and fix(schema)}),
        }
    )
