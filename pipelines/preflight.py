"""Checks before a run starts: the config against the data's first rows, the user's code and the devices.

`check_inputs` needs no framework and takes a second; `check_environment` runs in a stage process.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from switchyard.components.data.class_order import ordered, usual_positive
from switchyard.components.data_gate.label_check import check_label_values
from switchyard.components.errors import DataGateError, UserError, did_you_mean, first_line
from switchyard.components.evaluation.metrics_trial import trial_rows
from switchyard.components.evaluation.own_metrics import own_names, try_metrics
from switchyard.components.evaluation.results import CHAMPION
from switchyard.components.evaluation.thresholds import check_settings
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import EMPTY
from switchyard.components.ingest.scan import Scan
from switchyard.components.ingest.sources import find_files
from switchyard.components.ingest.texts import first_texts, text_columns
from switchyard.components.ingest.windowed import first_rows
from switchyard.components.metrics import trained_names
from switchyard.components.progress import say, warn
from switchyard.components.signing.signatures import check_signer
from switchyard.components.tasks import TASKS
from switchyard.components.text.visible import in_a_line
from switchyard.components.training.class_weights import class_weights
from switchyard.components.training.config import is_code
from switchyard.components.training.hooks import check_hooks, hooks_in, may_train_itself
from switchyard.components.training.huggingface import HuggingFaceModel
from switchyard.components.training.job import check_trainer
from switchyard.components.training.losses import check_smoothing, named_loss
from switchyard.components.training.names import ENSEMBLE, LOSSES, NETWORKS
from switchyard.components.training.settings import TrainerSettings
from switchyard.components.training.trainers import boosts_trees
from switchyard.components.training.workers.training_process import STAGES_OWN, training_server
from switchyard.components.user_code.dependencies import check_installed
from switchyard.components.user_code.loading import load_function, snapshot_file, split_reference
from switchyard.components.user_code.tokenizer import Tokenizer
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.stage_settings import (
    evaluation_settings,
    input_spec,
    preprocessing_code,
    tokenizer_code,
    trainer_settings,
)

# If a class has less than this share of the first rows, it is taken to be the rarer one of all rows.
_SURELY_RARER = 0.4


def check_inputs(config: PipelineConfig, store: Path, champions_class: Callable[[], str | None] = lambda: None) -> PipelineConfig:
    """Returns the config with `task` inferred, and `positive_class` set if the champion's differs from the default.

    Args:
        config: the loaded config.
        store: folder for snapshots of the user's code.
        champions_class: looks up the champion's positive class in the registry; called only if needed.

    Raises:
        UserError: files do not exist, code is no Python, or columns do not fit the config.
        DataGateError: the label has values that the reviewed schema lacks.
    """
    check_code(config, store)
    found = first_rows(input_spec(config), BadRows(config.data.max_bad_rows))
    columns = [n for n, t in found.types.items() if t.kind != EMPTY]
    if config.tokenizer and not config.preprocessing:
        _check_read(config, columns, text_columns(input_spec(config), found, config.tokenizer.columns))
    for name in {f for group in config.evaluation.slices for f in group}:
        if name not in found.types:
            raise UserError(
                f"evaluation.slices: unknown column {name!r}.{did_you_mean(name, columns)} Columns: {in_a_line(columns)}."
            )
        if config.data.windows and found.types[name].is_list:
            raise UserError(
                f"evaluation.slices: {name!r} is a list of values in a window, so it has no value to slice by; name a text, or "
                "list it in data.windows.static."
            )
    checks = config.validation
    if checks.schema_path:
        verdict = check_label_values(Path(checks.schema_path), config.label_name, found.label_counts, checks.on_anomaly)
        if not verdict.passed:
            raise DataGateError(verdict.message())
    check_task(config, found.task, None if found.is_partial else found.targets)
    _check_class_weights(config, found)
    if config.validation.serving_sample:
        find_files([config.validation.serving_sample], "validation.serving_sample")
    decided = {"task": found.task}
    if config.positive_class is None and (kept := _kept_class(found, champions_class)):
        decided["positive_class"] = kept
    return config.model_copy(update=decided)


def _check_read(config: PipelineConfig, columns: Sequence[str], texts: Sequence[str]) -> None:
    """Refuses columns beside the texts of a Hugging Face model, which reads nothing else."""
    known = {*texts, *config.labels, *filter(None, (config.group, config.trainer.sample_weight, config.data.split_key))}
    others = [name for name in columns if name not in known]
    if others and any(isinstance(config.trainer.model_for(f), HuggingFaceModel) for f in config.trainer.frameworks):
        raise UserError(
            f"trainer.model: a Hugging Face model reads texts alone ({in_a_line(texts)}), and the data have also "
            f"{in_a_line(others)}; list these columns in data.exclude"
        )


def _kept_class(found: Scan, champions_class: Callable[[], str | None]) -> str | None:
    """Returns the champion's positive class if the rarer class is, or may be, the other one.

    For large data only the first rows are read: the champion's choice is kept if the two classes are about equally frequent.
    """
    counts = found.label_counts
    if found.task != "binary" or len(counts) != 2 or usual_positive(sorted(counts)) is not None:
        return None
    kept = champions_class()
    if kept not in counts:
        return None
    is_certain = not found.is_partial or min(counts.values()) < _SURELY_RARER * sum(counts.values())
    rarer = ordered(sorted(counts), counts, None)[0][-1]
    return None if is_certain and kept == rarer else kept


def check_task(config: PipelineConfig, task: str, targets: Sequence[str] | None = None) -> None:
    """Checks metrics, losses and the functions of model files against the task.

    Args:
        config: the loaded config.
        task: name of a task.
        targets: see `DatasetSummary.targets`; None if listed classes are not known yet. Then the evaluation checks them.

    Raises:
        UserError: the task has no such metric or loss, or two settings exclude each other.
    """
    if targets is None:
        improvement = config.evaluation.improvement
        measured = [*config.evaluation.thresholds, (improvement and improvement.metric) or ""]
        named = list(dict.fromkeys(name.partition("/")[2] for name in measured if "/" in name))
        targets = named if config.lists_classes else config.targets
    check_settings(config.evaluation, task, targets)
    _check_hooks(config)
    _check_losses(config, task)
    _check_monitored(config, task)


def _check_class_weights(config: PipelineConfig, found: Scan) -> None:
    """Checks class weights if all rows were read; else there may be more classes, and the training stage checks them."""
    if not found.is_partial or not TASKS[found.task].has_classes:
        class_weights(config.trainer.hyperparameters.class_weights, found.classes, found.label_counts, config.label_name)


def _check_hooks(config: PipelineConfig) -> None:
    given, searched = config.trainer.hyperparameters, config.tune.space if config.tune else {}
    for framework in config.trainer.frameworks:
        if model := config.trainer.model_file_for(framework):
            check_hooks(
                split_reference(model, "")[0],
                loss=config.trainer.loss_for(framework),
                callbacks=config.trainer.callbacks_for(framework),
                given=given.model_dump(),
                defaults=type(given)().model_dump(),
                searched=searched,
            )


def _check_losses(config: PipelineConfig, task: str) -> None:
    for framework in config.trainer.frameworks:
        name, model = config.trainer.loss_for(framework), config.trainer.model_file_for(framework)
        file = split_reference(model, "")[0] if model else None
        own = framework not in NETWORKS or "build_loss" in hooks_in(file) or may_train_itself(file)
        if name is None and own and not LOSSES[task]:
            continue
        if name is None or not is_code(name):
            name = named_loss(task, name).name
        searched = config.tune is not None and "label_smoothing" in config.tune.space
        check_smoothing(name, config.trainer.hyperparameters.label_smoothing or float(searched))


def _check_monitored(config: PipelineConfig, task: str) -> None:
    allowed, trainer = trained_names(task), config.trainer
    for section, stopping in {
        "hyperparameters": trainer.hyperparameters.early_stopping,
        "trees": trainer.trees.early_stopping,
    }.items():
        if stopping and stopping.metric not in allowed:
            raise UserError(
                f"trainer.{section}.early_stopping.metric: {stopping.metric!r} is not measured in a {task} task; "
                f"allowed: {', '.join(allowed)}"
            )
    if config.tune and config.tune.metric not in allowed:
        raise UserError(f"tune.metric: {config.tune.metric!r} does not exist for a {task} task; allowed: {', '.join(allowed)}")


def check_code(config: PipelineConfig, store: Path) -> None:
    """Snapshots the user's files. Raises UserError for a file that does not exist or is no Python, or a missing dependency."""
    check_installed(config.dependencies)
    for framework in config.trainer.frameworks:
        trainer_settings(config, store, framework)
    preprocessing_code(config, store)
    tokenizer_code(config, store)
    evaluation_settings(config, store)
    if config.validation.schema_path:
        snapshot_file(Path(config.validation.schema_path), store, key="validation.schema")
    _check_key_stays(config, store)


def check_signing(config: PipelineConfig, workspace: Path) -> None:
    """Checks that the private key of `signing` can sign and lies outside the workspace.

    Raises:
        UserError: it cannot, or a workspace, which is copied and sent, holds it.
    """
    if config.signing is None:
        return
    check_signer(config.signing)
    if Path(config.signing.key).resolve().is_relative_to(workspace.resolve()):
        raise UserError(f"signing.key: {config.signing.key} lies in the workspace {workspace}; move it out of there")


def _check_key_stays(config: PipelineConfig, store: Path) -> None:
    """Refuses a private key that the user's code names, or `files` lists: it would travel with them."""
    key = Path(config.signing.key) if config.signing else None
    if key is None or not key.is_file():
        return
    content = key.read_bytes()
    copies = [f for f in store.rglob("*") if f.name == key.name and f.is_file() and f.read_bytes() == content]
    # Whole snapshots: without one of its files, a snapshot would be taken for a complete one by the next run.
    for snapshot in {store / copy.relative_to(store).parts[0] for copy in copies}:
        shutil.rmtree(snapshot)
    if copies:
        raise UserError(f"signing.key: {key} is one of the files of your code (`files`, or named in it); move it elsewhere")


def check_code_loads(config: PipelineConfig, store: Path, *, data: bool = True) -> None:
    """Imports the user's code, and calls the user's metrics on rows of the `data` if this machine can read it.

    Raises:
        UserError: a file cannot be imported or lacks its function, or a metric fails.
    """
    code = (preprocessing_code(config, store), tokenizer_code(config, store))
    settings = [trainer_settings(config, store, f) for f in config.trainer.frameworks]
    for found in (*code, *(c for s in settings for c in (s.code, s.loss_code, s.callbacks_code))):
        if found:
            found.load()
    _load_metrics(config, store, data=data)


def check_environment(payload: tuple[PipelineConfig, Path]) -> list[str]:
    """Imports the user's code, checks the trainers' devices and parses the schema.

    Args:
        payload: the config, and the folder of snapshots.

    Returns:
        The names of all candidates: the trainers', and the ensemble's.

    Raises:
        UserError: a check failed.
    """
    config, store = payload
    say("importing your code, detecting devices")
    names: list[str] = []
    boosting: list[str] = []
    for framework in config.trainer.frameworks:
        settings = trainer_settings(config, store, framework)
        name = _check_trainer(settings)
        if boosts_trees(settings.framework):
            boosting.append(framework)
        if name in (CHAMPION, ENSEMBLE, *names):
            raise UserError(f"trainer.framework: {framework!r} has the name {name!r}, which is already taken; rename it.")
        names.append(name)
    if boosting and (unread := config.data.unread_by_trees()):
        raise UserError(unread)
    if unused := config.trainer.unused(boosting):
        warn(unused)
    if config.tune:
        config.tune.check_read([f in boosting for f in config.trainer.frameworks])
    if preprocessing := preprocessing_code(config, store):
        preprocessing.load()
    _check_tokenizer(config, store)
    _load_metrics(config, store)
    if config.validation.schema_path:
        _check_schema(Path(config.validation.schema_path))
    return [*names, ENSEMBLE] if config.trainer.ensemble else names


def _load_metrics(config: PipelineConfig, store: Path, *, data: bool = True) -> None:
    if metrics := evaluation_settings(config, store).metrics:
        for name in own_names(metrics):
            load_function(metrics, name)
        if data:
            try_metrics(metrics, trial_rows(input_spec(config)))


def _check_tokenizer(config: PipelineConfig, store: Path) -> None:
    """Runs the tokenizer on the first rows. With a `preprocessing_fn` the texts are known in the transform stage only."""
    code = tokenizer_code(config, store)
    if code is None:
        return
    if config.preprocessing:
        code.load()
        return
    spec = input_spec(config)
    texts = first_texts(spec, config.tokenizer.columns if config.tokenizer else ())
    Tokenizer(code, [feature for feature, _ in texts])({feature.name: values for feature, values in texts})


def _check_trainer(settings: TrainerSettings) -> str:
    """Returns a trainer's name; it is checked in the environment where it trains."""
    if settings.framework == STAGES_OWN:
        return check_trainer(settings)
    with training_server(settings.framework) as server:
        return server.check(settings)


def _check_schema(path: Path) -> None:
    import tensorflow_data_validation as tfdv
    from google.protobuf.text_format import ParseError

    try:
        tfdv.load_schema_text(str(path))
    except ParseError as error:
        raise UserError(f"validation.schema: {path} is not a schema in text form: {error}") from None
    except Exception as error:  # TensorFlow's file errors are not OSErrors
        raise UserError(f"validation.schema: cannot read {path}: {first_line(error)}") from None
