"""PipelineConfig, the typed and frozen config of a pipeline, with all checks of user input that need no data.

Unknown keys are refused. Relative paths are relative to the YAML's folder and absolute after loading.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, field_validator, model_validator

from switchyard.components.config import Names, Section
from switchyard.components.data.summary import TEST
from switchyard.components.data.windows import future_names
from switchyard.components.data_gate.config import ValidationConfig
from switchyard.components.evaluation.config import EvaluationConfig
from switchyard.components.infra_validation.config import InfraValidationConfig
from switchyard.components.ingest.config import DataConfig
from switchyard.components.signing.config import SigningConfig
from switchyard.components.tasks import BINARY, CUSTOM, DEFAULT_QUANTILES, MULTILABEL, QUANTILE, TASKS, Task
from switchyard.components.text.addresses import has_host
from switchyard.components.text.redaction import mask
from switchyard.components.training.config import TrainerConfig, is_code
from switchyard.components.training.huggingface import folder_in
from switchyard.components.training.losses import unknown_loss
from switchyard.components.training.names import ENSEMBLE, LOSSES, MODEL_PARAMETER, NETWORKS, TREES
from switchyard.components.transform.config import TokenizerConfig
from switchyard.components.tuning.config import TuneConfig
from switchyard.components.user_code.dependencies import pinned
from switchyard.pipelines.config.beam import BeamConfig
from switchyard.pipelines.config.kubeflow import KubeflowConfig

# MLflow's own rules (for registered and logged models, experiments and its database's columns), which it would enforce only at
# the end of the run; and no @, which separates a model's name from its alias. A promotion's lock has a longer name.
_NOT_IN_MODEL_NAMES = "/:.%\"'@"
_LONGEST_MODEL_NAME, _LONGEST_EXPERIMENT = 256 - len(".promotion-lock"), 256


# Classes are identified by their text, however YAML parses it.
ClassName = Annotated[
    str, BeforeValidator(lambda v: str(v).lower() if isinstance(v, bool) else str(v) if isinstance(v, int | float) else v)
]


class ServingConfig(Section):
    """Registration of the model, and its check for serving.

    Attributes:
        model_name: name in MLflow's model registry: up to 241 printable characters, none of `/ : . % " ' @`. Default: the
            pipeline's name.
        infra_validation: serving check before promotion; `null` disables infra validation.
    """

    model_name: str | None = None
    infra_validation: InfraValidationConfig | None = InfraValidationConfig()

    @field_validator("model_name")
    @classmethod
    def _registrable(cls, name: str | None) -> str | None:
        if name is None:
            return None
        if not name.strip() or not name.isprintable() or set(name) & set(_NOT_IN_MODEL_NAMES):
            raise ValueError(
                f"{name!r} is not a valid name for a registered model: MLflow takes printable characters other than "
                f"{' '.join(_NOT_IN_MODEL_NAMES)}; choose another, for example my_model"
            )
        if len(name) > _LONGEST_MODEL_NAME:
            raise ValueError(
                f"has {len(name)} characters, a registered model's name has at most {_LONGEST_MODEL_NAME}; shorten it"
            )
        return name


class TrackingConfig(Section):
    """Tracking of runs and models.

    Attributes:
        uri: MLflow tracking server or database. Default: `MLFLOW_TRACKING_URI`, then SQLite in the workspace. A password in it
            is never written to a file; for servers `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD` can be set
            instead.
        experiment: MLflow experiment, up to 256 printable characters; a deleted one is refused. Default: the pipeline's name.
    """

    uri: str | None = None
    experiment: str | None = None

    @field_validator("experiment")
    @classmethod
    def _acceptable(cls, name: str | None) -> str | None:
        if name is not None and (not name.strip() or not name.isprintable()):
            raise ValueError(f"{name!r} is not a valid name for an experiment: MLflow takes printable characters; choose another")
        if name is not None and len(name) > _LONGEST_EXPERIMENT:
            raise ValueError(f"has {len(name)} characters, an experiment's name has at most {_LONGEST_EXPERIMENT}; shorten it")
        return name

    @model_validator(mode="after")
    def _check(self) -> TrackingConfig:
        allowed = r"(https?|sqlite|postgresql|mysql|mssql|databricks)([+a-z0-9]*)(://.*)?"
        if self.uri is not None and not (re.fullmatch(allowed, self.uri) and has_host(self.uri)):
            raise ValueError(
                f"uri: {mask(self.uri)!r} is not a tracking server; allowed: http(s)://..., sqlite:///..., postgresql://..., "
                "mysql://... (MLflow 3 refuses plain folders)"
            )
        return self


class PipelineConfig(Section):
    """The whole pipeline; only `name`, `data` and, except in a `custom` task, `label` are required.

    Attributes:
        name: name of the pipeline, its runs and its model: 1 to 63 lower-case letters, digits, `_` or `-`, starting with a
            letter. Without a YAML it is derived from the data: `rides.csv` is `rides`, `churn/*.csv` is `churn`,
            `fraud/part-*.csv` is `fraud_part`, `churn/data/train.csv` is `churn_data_train`.
        data: the examples.
        label: column to predict; of `multioutput` (without `data.windows`) and `multilabel` a list of at least two. Of
            `multilabel` also one column that lists the classes of each row; of `custom` one column of numbers or of lists of
            numbers, or none.
        task: `auto` infers binary, multiclass or regression from the first 20,000 labels. Set
            here only are `quantile`, `multioutput` (several quantities), `multilabel` (several classes per row),
            `ranking` (relevance, from 0 to 31) and `custom` (your loss, metrics and output shape).
        group: of a `ranking`, the column whose values are the queries: rows are ranked among those of their query, and a query
            is in one split. It is no feature.
        positive_class: class of a binary task whose probability is predicted and to which the metrics refer. Default: the one
            with a usual name (`1`, `true`, `yes`, `positive`, ...), then the champion's, then the rarer one, or the last by name
            if both are equally frequent. `compile` and `submit` read the champion's when `tracking.uri` is set and infer from
            data readable on this machine; a schedule keeps the result.
        preprocessing: `file.py` with `preprocessing_fn(inputs)`, or `file.py:function`. Default: z-scores and vocabularies.
        tokenizer: Python code or a model folder that turns texts into arrays, in training and serving alike. Short form in YAML:
            the file with the code. Default with `trainer.model.huggingface`: that folder's.
        files: extra files, folders or globs in the folder of the user's code that the code opens; they travel with it to the
            cluster and into the bundle. Files that the code names by literals are found without it.
        dependencies: packages that the user's code needs, each as `name==version`. A run that lacks one is refused; `switchyard
            dependencies add` installs and lists them. Bundles made by code of yours require them; a change of them runs the
            stages with code of yours again.
        trainer: framework, model, hyperparameters and devices.
        tune: hyperparameter search before training, for each trainer separately; `null` disables it.
        validation: the data gate.
        evaluation: the model gate.
        serving: registration and infra validation.
        signing: signature of every registered version, by a private key; `null`: none.
        tracking: MLflow.
        beam: engine of the Beam stages.
        kubeflow: settings for Kubeflow Pipelines; local runs ignore them.
    """

    name: str
    data: DataConfig
    label: str | tuple[str, ...] = ""
    task: Literal["auto", "binary", "multiclass", "regression", "quantile", "multioutput", "multilabel", "ranking", "custom"] = (
        "auto"
    )
    group: str | None = None
    positive_class: ClassName | None = None
    preprocessing: str | None = None
    tokenizer: TokenizerConfig | None = None
    files: Names = ()
    dependencies: Names = ()
    trainer: TrainerConfig = TrainerConfig()
    tune: TuneConfig | None = None
    validation: ValidationConfig = ValidationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()
    signing: SigningConfig | None = None
    tracking: TrackingConfig = TrackingConfig()
    beam: BeamConfig = BeamConfig()
    kubeflow: KubeflowConfig = KubeflowConfig()

    @field_validator("dependencies")
    @classmethod
    def _pinned(cls, listed: tuple[str, ...]) -> tuple[str, ...]:
        return pinned(listed)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns; those of windows are named by `future_names`."""
        if self.data.windows:
            return tuple(future_names(str(self.label), self.data.windows.future))
        return (self.label,) * bool(self.label) if isinstance(self.label, str) else self.label

    @property
    def lists_classes(self) -> bool:
        """Whether the label is one column that lists the classes of each row."""
        return self.task == MULTILABEL and isinstance(self.label, str)

    @property
    def label_name(self) -> str:
        """The label's column; of several, their names joined by commas; empty without one."""
        return ", ".join(self.labels)

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the model's outputs if they are no classes: the quantiles as texts, or the label columns.

        Empty as well if the classes are listed in the label column: ingest finds them.
        """
        if self.task in TASKS and TASKS[self.task].has_labels:
            return () if self.lists_classes else self.labels
        if self.task != QUANTILE:
            return ()
        return tuple(str(float(q)) for q in self.trainer.quantiles or DEFAULT_QUANTILES)

    @property
    def model_name(self) -> str:
        """The model's name in the registry."""
        return self.serving.model_name or self.name

    @property
    def experiment(self) -> str:
        """The name of the MLflow experiment."""
        return self.tracking.experiment or self.name

    def to_yaml(self) -> str:
        """Returns the resolved config as YAML for `load_config` (paths absolute, defaults included)."""
        document = self.model_dump(mode="json", by_alias=True)
        # The kubeflow section has many keys, most of them unused.
        document["kubeflow"] = self.kubeflow.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if self.tune is None:
            del document["tune"]
        if self.tokenizer is None:
            del document["tokenizer"]
        if self.signing is None:
            del document["signing"]
        if self.beam == BeamConfig():
            del document["beam"]
        return yaml.safe_dump(document, sort_keys=False)

    def public_yaml(self) -> str:
        """Returns `to_yaml` with the tracking server's password masked, for files, MLflow and reports."""
        return mask(self.to_yaml())

    @model_validator(mode="before")
    @classmethod
    def _models_tokenizer(cls, value: Any) -> Any:
        """Adds the tokenizer of a Hugging Face model's folder."""
        folder = folder_in(value.get("trainer")) if isinstance(value, dict) else None
        given = (value.get("tokenizer") or {}) if folder else None
        if not isinstance(given, dict) or given.get("code") or given.get("huggingface"):
            return value
        return {**value, "tokenizer": {**given, "huggingface": folder}}

    @model_validator(mode="after")
    def _check(self) -> PipelineConfig:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", self.name):
            raise ValueError(
                f"name: {self.name!r} must be 1 to 63 lower-case letters, digits, '_' or '-', starting with a letter"
            )
        if self.tokenizer:
            model = self.trainer.huggingface
            self.tokenizer.check(model.huggingface if model else None, own_preprocessing=self.preprocessing is not None)
        self._check_losses()
        self._check_windows()
        self._check_labels()
        self._check_group()
        self._check_weight()
        self._check_columns()
        if self.tune:
            parameters = [n for n in self.tune.space if n.startswith(MODEL_PARAMETER)]
            if parameters and any(f in NETWORKS and not self.trainer.model_file_for(f) for f in self.trainer.frameworks):
                raise ValueError(
                    f"tune.space: {parameters[0]!r} is a model parameter, and the default model has none, nor has a "
                    "model folder; set trainer.model to a file."
                )
            self.tune.check_frameworks(self.trainer.frameworks)
            workers = self.trainer.profile().workers
            uneven = self.tune.batch_size_not_shared_by(workers)
            if uneven:
                raise ValueError(
                    f"tune.space.batch_size: {uneven} rows cannot be divided equally among {workers} workers "
                    "(trainer.accelerator: count times nodes); give choices that can be, or low, high and step"
                )
            self.tune.check_combinations(self.trainer.hyperparameters)
        if self.positive_class is not None and self.task not in ("auto", BINARY):
            raise ValueError(
                f"positive_class: a {self.task} task has none, received {self.positive_class!r}. "
                "Remove it, or set task to binary."
            )
        task = TASKS.get(self.task)
        if task and task.own_shape and (trees := sorted(set(self.trainer.frameworks) & set(TREES))):
            raise ValueError(f"task: {trees[0]} trains no {self.task} task; choose another trainer.framework")
        self._check_custom()
        self._check_ensemble(task)
        if self.trainer.quantiles is not None and self.task != QUANTILE:
            raise ValueError(f"trainer.quantiles: a model of task {self.task} has none; remove it, or set task to quantile")
        if self.task in TASKS and not TASKS[self.task].has_classes and self.trainer.hyperparameters.class_weights is not None:
            raise ValueError(f"trainer.hyperparameters.class_weights: a {self.task} task has no classes; remove it")
        return self

    def _check_losses(self) -> None:
        for framework in self.trainer.frameworks:
            name = self.trainer.loss_for(framework)
            if name and not is_code(name) and name not in LOSSES.get(self.task, chain.from_iterable(LOSSES.values())):
                raise ValueError(unknown_loss(name, self.task))

    def _check_custom(self) -> None:
        custom, shape = self.task == CUSTOM, self.trainer.output_shape
        if shape is not None and not custom:
            raise ValueError(f"trainer.output_shape: a model of task {self.task} has none; remove it, or set task to custom")
        if not custom:
            return
        if shape is None:
            raise ValueError("trainer.output_shape: a custom task needs the shape of a row's output, for example [8]; set it")

    def _check_ensemble(self, task: Task | None) -> None:
        if not self.trainer.ensemble:
            return
        if task and not task.has_means:
            why = "the scores of different models have no common scale" if task.groups else "the loss of its outputs is your own"
            raise ValueError(f"trainer.framework: a {self.task} task has no ensemble, as {why}; remove {ENSEMBLE}")
        if TEST not in self.data.splits:
            raise ValueError(
                "trainer.framework: the weights of an ensemble are found on the split eval, and it is judged on the split test, "
                f"which data.splits lacks ({', '.join(self.data.splits)}); add one, or remove {ENSEMBLE}"
            )

    def _check_labels(self) -> None:
        if not self.label and self.task != CUSTOM:
            raise ValueError("label: is missing and has no default. Add it; only a custom task may have none.")
        for label in self.labels:
            if label in self.data.exclude:
                raise ValueError(f"data.exclude: lists the label {label!r}; a label cannot be excluded")
        several = [name for name, task in TASKS.items() if task.has_labels]
        if self.data.label_separator and not self.lists_classes:
            raise ValueError(
                f"data.label_separator: only the one label of a multilabel task is a list, and task is {self.task}; remove it"
            )
        if self.task in several and not self.lists_classes and len(set(self.labels)) < max(2, len(self.labels)):
            raise ValueError(f"label: a {self.task} task has at least two columns, all different, received {list(self.labels)}")
        if not isinstance(self.label, str) and self.task not in several:
            raise ValueError(f"label: {list(self.label)} is a list; set task to {' or '.join(several)}, or give one column")

    def _check_windows(self) -> None:
        windows = self.data.windows
        if windows is None:
            return
        windows.check(self.label, self.task, self.data.exclude)
        if self.trainer.sample_weight is not None:
            raise ValueError("trainer.sample_weight: all windows weigh the same; remove it, or remove data.windows")
        if self.tokenizer is not None:
            raise ValueError("tokenizer: reads rows as they are in the files, not windows; remove it, or remove data.windows")

    def _check_group(self) -> None:
        grouped = self.task in TASKS and TASKS[self.task].groups
        if grouped and self.group is None:
            raise ValueError(f"group: a {self.task} task needs the column that names the query of each row, for example query_id")
        if self.group is None:
            return
        if not grouped:
            raise ValueError(f"group: a task {self.task} has none; remove it, or set task to ranking")
        if self.group in (*self.labels, *self.data.exclude):
            raise ValueError(f"group: {self.group!r} is the label, or listed in data.exclude; give the column of the query")
        if self.data.split_key not in (None, self.group):
            raise ValueError(
                f"data.split_key: a ranking is split by its group, {self.group!r}, received {self.data.split_key!r}; remove it"
            )
        if (workers := self.trainer.profile().workers) > 1:
            raise ValueError(
                f"trainer.accelerator: a ranking keeps the rows of a query in one batch, received {workers} workers; set count "
                "and nodes to 1"
            )
        if (batches := self.trainer.hyperparameters.accumulate_steps) > 1:
            raise ValueError(
                f"trainer.hyperparameters.accumulate_steps: the batches of a ranking differ in their rows, received {batches}; "
                "leave it out, and set a larger batch_size"
            )
        if self.tune and "accumulate_steps" in self.tune.space:
            raise ValueError("tune.space.accumulate_steps: the batches of a ranking differ in their rows; remove it")

    def _check_columns(self) -> None:
        others = {"the label": self.labels, "group": [self.group], "trainer.sample_weight": [self.trainer.sample_weight]}
        others["data.split_key"] = [self.data.split_key]
        for name in (n for n, column in self.data.columns.items() if column.type in ("image", "sequence")):
            if found := [what for what, names in others.items() if name in names]:
                kind = self.data.columns[name].type
                raise ValueError(f"data.columns: {name!r} has the type {kind} and is {found[0]}; name another column for one")
            if any(name in group for group in self.evaluation.slices):
                raise ValueError(
                    f"evaluation.slices: {name!r} has the type {self.data.columns[name].type}, so it has no value to slice by; "
                    "remove it"
                )
        for key in self.data.of_networks:
            if self.preprocessing:
                raise ValueError(f"{key}: describes the default features, and preprocessing returns others; remove it")
            if self.group and key.endswith(".augment"):
                raise ValueError(f"{key}: a ranking's examples are not changed; remove it")
        if set(self.trainer.frameworks) & set(TREES) and (unread := self.data.unread_by_trees()):
            raise ValueError(unread)

    def _check_weight(self) -> None:
        weight = self.trainer.sample_weight
        if weight is None:
            return
        if not weight:
            raise ValueError("trainer.sample_weight: is empty; name a column, or remove it")
        if weight in (*self.labels, *self.data.exclude):
            what = "is the label" if weight in self.labels else "is listed in data.exclude"
            raise ValueError(f"trainer.sample_weight: the column {weight!r} {what}; name a column of its own")
        if self.group:
            raise ValueError(
                f"trainer.sample_weight: a ranking is trained and measured by query, not by row, received {weight!r}; remove it, "
                "and list the column in data.exclude if it is no feature"
            )
        if (declared := self.data.columns.get(weight)) and declared.type == "text":
            raise ValueError(f"trainer.sample_weight: data.columns declares {weight!r} as text; declare a number")
