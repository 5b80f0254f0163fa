"""Converts the config to the settings of each stage; imports neither TFX nor a framework."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Any

from switchyard.components.data_gate.config import DataGateSettings
from switchyard.components.ensemble.config import EnsembleSettings
from switchyard.components.errors import UserError
from switchyard.components.evaluation.config import EvaluationSettings
from switchyard.components.infra_validation.config import InfraValidationSettings
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.tracking.manifest import FORMAT
from switchyard.components.training.config import is_code, trainer_name
from switchyard.components.training.huggingface import CODE, HuggingFaceModel
from switchyard.components.training.hyperparameters_config import HyperparametersConfig
from switchyard.components.training.names import COMMON_TO_TREES, FRAMEWORKS, NETWORKS, TREES
from switchyard.components.training.settings import TrainerSettings
from switchyard.components.tuning.config import TuningSettings
from switchyard.components.user_code.files import listed_files
from switchyard.components.user_code.huggingface import model_snapshot, tokenizer_snapshot
from switchyard.components.user_code.loading import UserCode, file_of, imported_files, is_file, snapshot, split_reference
from switchyard.pipelines.config.pipeline import PipelineConfig

# Part of the stages' settings, so that a newer Switchyard does not reuse an older one's cached results.
VERSION = metadata.version("switchyard")
# Prefix of the names of warm start stages.
WARM_START = "warm_start"


def input_spec(config: PipelineConfig) -> InputSpec:
    """Returns the input of ingest."""
    data = config.data
    return InputSpec(
        path=data.path,
        split_paths=data.split_paths,
        weights={} if data.split_paths else {k: float(v) for k, v in data.splits.items() if not isinstance(v, tuple)},
        split_key=config.group or data.split_key,
        group=config.group,
        format=data.format,
        exclude=data.exclude,
        max_bad_rows=data.max_bad_rows,
        missing_values=data.missing_values,
        label=config.label_name,
        sample_weight=config.trainer.sample_weight,
        task=config.task,
        targets=config.targets,
        output_shape=config.trainer.output_shape or (),
        positive_class=config.positive_class,
        max_float32_loss=data.max_float32_loss,
        columns={name: "text" if column.shape else column.type for name, column in data.columns.items()},
        images={name: column.shape for name, column in data.columns.items() if column.shape},
        sequences={name: column.sequence for name, column in data.columns.items() if column.length},
        csv=data.csv.model_dump(exclude_defaults=True),
        label_separator=data.label_separator or "",
        windows=_windows(config),
    )


def _windows(config: PipelineConfig) -> dict[str, Any] | None:
    """Returns the arguments of `WindowSettings` as plain data."""
    windows = config.data.windows
    if windows is None:
        return None
    return {**windows.model_dump(mode="json", exclude_defaults=True), "label": config.label, "splits": list(config.data.splits)}


def preprocessing_code(config: PipelineConfig, store: Path) -> UserCode | None:
    """Returns the snapshot of the user's `preprocessing_fn`, or None without one."""
    code = config.preprocessing
    return _snapshot(config, code, "preprocessing_fn", store, key="preprocessing") if code else None


def tokenizer_code(config: PipelineConfig, store: Path) -> UserCode | None:
    """Returns the snapshot of `build_tokenizer`, the user's or that of a model folder's tokenizer, or None without one."""
    given = config.tokenizer
    if given is None:
        return None
    if given.huggingface:
        key = "trainer.model.huggingface" if config.trainer.huggingface else "tokenizer.huggingface"
        return tokenizer_snapshot(given.huggingface, given.columns, given.max_length, store, key=key)
    return _snapshot(config, str(given.code), "build_tokenizer", store, key="tokenizer")


def _snapshot(config: PipelineConfig, reference: str, function: str, store: Path, *, key: str) -> UserCode:
    return snapshot(reference, function, store, key=key, files=code_files(config), dependencies=config.dependencies)


def code_paths(config: PipelineConfig) -> list[Path]:
    """Returns the user's files with preprocessing, tokenizer, models, losses, callbacks and metrics."""
    frameworks = config.trainer.frameworks
    models = [config.trainer.model_file_for(f) for f in frameworks]
    losses = [loss for f in frameworks if (loss := config.trainer.loss_for(f)) and is_code(loss)]
    callbacks = [config.trainer.callbacks_for(f) for f in frameworks]
    tokenizer = config.tokenizer.code if config.tokenizer else None
    code = (config.preprocessing, tokenizer, *models, *losses, *callbacks, config.evaluation.metrics)
    return [split_reference(c, "")[0] for c in code if c]


def code_files(config: PipelineConfig) -> list[Path]:
    """Returns the files that the config lists to travel with the user's code.

    Raises:
        UserError: a file does not exist, or lies in no folder of the code.
    """
    files = listed_files(config.files)
    folders = {f.parent for f in _python_files(config)}
    for file in files:
        if not any(file.is_relative_to(folder) for folder in folders):
            known = (
                f"in {', '.join(map(str, sorted(folders)))}"
                if folders
                else "no code is configured (preprocessing, trainer.model)"
            )
            raise UserError(f"files: {file} is outside the folders of the code ({known}); move it beside the code that opens it.")
    return files


def code_texts(config: PipelineConfig) -> dict[str, str]:
    """Returns the user's Python files, with those of their folders that they import: path below `code/` -> content."""
    files = {file for given in _python_files(config) for file in imported_files(given, "files")}
    root = os.path.commonpath([file.parent for file in files]) if files else ""
    return {f"code/{f.relative_to(root).as_posix()}": f.read_text(encoding="utf-8", errors="replace") for f in sorted(files)}


def _python_files(config: PipelineConfig) -> list[Path]:
    return [*code_paths(config), *(file_of(f) for f in config.trainer.frameworks if is_file(f))]


def trainer_settings(config: PipelineConfig, store: Path, framework: str) -> TrainerSettings:
    """Returns the settings of one framework's training stage, with snapshots of the user's code."""
    trainer = config.trainer
    model = trainer.model_for(framework)
    if is_file(framework):
        name = framework.rpartition(":")[2]
        taken = _snapshot(config, str(file_of(framework)), name, store, key="trainer.framework")
        framework = f"{taken.path}:{name}"
    code: UserCode | None = None
    if isinstance(model, HuggingFaceModel):
        code = model_snapshot(CODE, model.huggingface, model.settings(), store, key="trainer.model.huggingface")
    elif model:
        code = _snapshot(config, model, "build_model", store, key="trainer.model")
    loss = trainer.loss_for(framework)
    loss_code = _snapshot(config, loss, "loss", store, key="trainer.loss") if loss and is_code(loss) else None
    callbacks = trainer.callbacks_for(framework)
    callbacks_code = _snapshot(config, callbacks, "build_callbacks", store, key="trainer.callbacks") if callbacks else None
    # Whether code of the user has a part in the model.
    is_own = framework not in FRAMEWORKS or bool(config.preprocessing or config.tokenizer or code or loss_code or callbacks_code)
    return TrainerSettings(
        version=VERSION,
        # Prevents cache hits on bundles of another format.
        bundle=FORMAT,
        framework=framework,
        own_preprocessing=config.preprocessing is not None,
        code=code,
        model_parameters=trainer.model_parameters,
        loss=f"{Path(loss_code.path).name}:{loss_code.function}" if loss_code else loss,
        loss_code=loss_code,
        loss_parameters=trainer.loss_parameters if loss else {},
        callbacks_code=callbacks_code,
        start_from=trainer.start_for(framework),
        initialize=trainer.initialize_for(framework),
        freeze=trainer.freeze_for(framework),
        sample_weight=trainer.sample_weight,
        augment={name: column.augment for name, column in config.data.columns.items() if column.augment},
        # What a framework does not read is left out, so that a change of it does not train again.
        hyperparameters=_read_by(framework, trainer.hyperparameters),
        trees=None if framework in NETWORKS else trainer.trees,
        accelerator=trainer.profile(),
        dependencies=config.dependencies if is_own else (),
    )


def _read_by(framework: str, given: HyperparametersConfig) -> HyperparametersConfig:
    return HyperparametersConfig(**given.model_dump(include=set(COMMON_TO_TREES))) if framework in TREES else given


def tuning_settings(config: PipelineConfig, framework: str) -> TuningSettings | None:
    """Returns the settings of one framework's tuning stage, or None without one."""
    tune = config.tune
    return TuningSettings(**{**tune.model_dump(), "space": tune.space_of(framework)}, version=VERSION) if tune else None


def ensemble_settings(config: PipelineConfig, store: Path) -> EnsembleSettings:
    """Returns the settings of the ensemble stage."""
    settings = [trainer_settings(config, store, framework) for framework in config.trainer.frameworks]
    dependencies = next((s.dependencies for s in settings if s.dependencies), ())
    return EnsembleSettings(version=VERSION, bundle=FORMAT, dependencies=dependencies)


def training_stages(config: PipelineConfig) -> list[str]:
    """Returns the names of the training stages: `training`, or one per framework."""
    frameworks = config.trainer.frameworks
    return ["training"] if len(frameworks) == 1 else [f"training_{trainer_name(f)}" for f in frameworks]


def warm_start_stage(training: str) -> str:
    """Returns the name of the warm start stage before a training stage."""
    return training.replace("training", WARM_START, 1)


def tuning_stage(training: str) -> str:
    """Returns the name of the tuning stage before a training stage."""
    return training.replace("training", "tuning", 1)


def data_gate_settings(config: PipelineConfig) -> DataGateSettings:
    """Returns the settings of the data gate; the schema is passed as an artifact."""
    return DataGateSettings(
        **config.validation.model_dump(exclude={"schema_path"}),
        version=VERSION,
        curated=config.validation.schema_path is not None,
        excluded=config.data.exclude,
        split_paths=bool(config.data.split_paths),
        comparable=config.evaluation.comparable,
        incomparable_champion=config.evaluation.incomparable_champion,
        missing_values=config.data.missing_values,
    )


def infra_validation_settings(config: PipelineConfig) -> InfraValidationSettings | None:
    """Returns the settings of infra validation, or None if it is disabled."""
    wanted = config.serving.infra_validation
    return InfraValidationSettings(**wanted.model_dump(), version=VERSION) if wanted else None


def evaluation_settings(config: PipelineConfig, store: Path) -> EvaluationSettings:
    """Returns the settings of the evaluation stage, with a snapshot of the user's metrics."""
    metrics = config.evaluation.metrics
    taken = _snapshot(config, metrics, "", store, key="evaluation.metrics").path if metrics else None
    return EvaluationSettings(**{**config.evaluation.model_dump(), "metrics": taken}, version=VERSION)
