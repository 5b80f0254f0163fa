"""Builds a trainer's request from the stage's settings and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from switchyard.components.data.summary import EVAL, TRAIN, DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.tasks import TASKS
from switchyard.components.training.augmentation import augmented
from switchyard.components.training.class_weights import class_weights
from switchyard.components.training.columns import read_features
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.example_source import WHOLE, Shard
from switchyard.components.training.examples import transformed_examples
from switchyard.components.training.hooks import Hooks, hooks_in
from switchyard.components.training.hyperparameters import EARLY_STOPPING_EPOCHS, Hyperparameters, Trees
from switchyard.components.training.hyperparameters_config import HyperparametersConfig, TreesConfig
from switchyard.components.training.losses import OF_MODEL, Loss, check_smoothing, named_loss
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.names import COMMON_TO_TREES
from switchyard.components.training.queries import query_examples
from switchyard.components.training.settings import TrainerSettings
from switchyard.components.training.start import Start, start_of
from switchyard.components.user_code.loading import blamed, folder_of, load_function

DEFAULT_EPOCHS = 20
DEFAULT_WEIGHT_DECAY = {"adam": 0.0, "adamw": 0.01, "sgd": 0.0, "rmsprop": 0.0}
# Folders in the training's state folder.
CHECKPOINTS, EXPORT = "checkpoints", "export"


def train_request(
    settings: TrainerSettings,
    summary: DatasetSummary,
    transformed: Path,
    state: Path,
    shard: Shard = WHOLE,
    *,
    trainer: str = "",
    boosts_trees: bool = False,
    start: Path | None = None,
) -> TrainRequest:
    """Returns the request for the stage's settings and inputs.

    Args:
        settings: settings of the training stage.
        summary: summary of the data.
        transformed: folder of the transformed examples.
        state: folder for checkpoints and the exported model.
        shard: this worker's part.
        trainer: name of the trainer.
        boosts_trees: see `Trainer`.
        start: folder of the starting point; None without one.
    """
    spec = ModelSpec(
        features=read_features(transformed),
        task=summary.task,
        outputs=summary.outputs,
        parameters=settings.model_parameters,
        targets=tuple(summary.targets),
        output_shape=tuple(summary.output_shape),
        label_shape=tuple(summary.label_shape) if TASKS[summary.task].own_shape and summary.label else None,
    )
    hooks = hooks_of(settings)
    examples = query_examples if TASKS[summary.task].groups else transformed_examples
    return TrainRequest(
        spec=spec,
        train=augmented(examples(transformed, TRAIN), settings.augment),
        eval=examples(transformed, EVAL),
        hyperparameters=hyperparameters(settings.hyperparameters, summary, settings.trees if boosts_trees else None),
        loss=loss(settings, spec),
        accelerator=settings.accelerator,
        build_model=settings.code.load() if settings.code else None,
        checkpoint_dir=state / CHECKPOINTS,
        export_dir=state / EXPORT,
        shard=shard,
        hooks=Hooks(**{hook: function for hook, function in hooks.items() if hook != "build_loss"}),
        start=_start(start, transformed, trainer, settings, summary, spec) if start else None,
        freeze=settings.freeze,
    )


def _start(
    folder: Path, transformed: Path, trainer: str, settings: TrainerSettings, summary: DatasetSummary, spec: ModelSpec
) -> Start | None:
    return start_of(
        folder,
        transformed,
        framework=trainer,
        predicts={name: getattr(summary, name) for name in ("task", "classes", "targets")},
        features=spec.features,
        initialize=settings.initialize,
    )


def hooks_of(settings: TrainerSettings) -> dict[str, Callable[..., Any]]:
    """Returns the user's functions beside `build_model`: name -> function."""
    code, callbacks = settings.code, settings.callbacks_code
    found = {hook: load_function(code.path, hook) for hook in hooks_in(code.path)} if code else {}
    return {**found, **({"build_callbacks": callbacks.load()} if callbacks else {})}


def loss(settings: TrainerSettings, spec: ModelSpec) -> Loss:
    """Returns the loss of the settings; of a `custom` task with the shape of its labels.

    Raises:
        UserError: the task has no such loss, the loss no label smoothing, or the user's file cannot be imported.
    """
    found = _loss(settings, spec)
    if not TASKS[spec.task].own_shape:
        return found
    return replace(found, label_shape=spec.label_shape, labelled=spec.label_shape is not None)


def _loss(settings: TrainerSettings, spec: ModelSpec) -> Loss:
    """Returns the loss of the settings.

    Raises:
        UserError: the task has no such loss, the loss no label smoothing, or the user's file cannot be imported.
    """
    name, parameters, code = settings.loss, settings.loss_parameters, settings.loss_code
    if build := hooks_of(settings).get("build_loss"):
        with blamed("trainer.model: build_loss failed: ", folder_of(build)):
            made = build(spec)
        if not callable(made):
            raise UserError(f"trainer.model: build_loss must return a function of labels and outputs, received {made!r}"[:500])
        return Loss(f"{Path(settings.code.path).name}:build_loss" if settings.code else "", {}, made)
    if name is None and TASKS[spec.task].own_shape:
        return Loss(OF_MODEL)
    found = Loss(name or "", parameters, code.load()) if code else named_loss(spec.task, name, parameters, spec.targets)
    check_smoothing(found.name, settings.hyperparameters.label_smoothing)
    return found


def hyperparameters(given: HyperparametersConfig, summary: DatasetSummary, trees: TreesConfig | None = None) -> Hyperparameters:
    """Returns the config's hyperparameters with all defaults resolved.

    Args:
        given: the config's `trainer.hyperparameters`.
        summary: summary of the data.
        trees: for boosted trees, the config's `trainer.trees`, which replaces all that is not common to both.

    Raises:
        UserError: the warm-up is not shorter than the training.
    """
    if trees:
        own = {"epochs": trees.rounds, "learning_rate": trees.learning_rate, "early_stopping": trees.early_stopping}
        given = HyperparametersConfig(**given.model_dump(include=set(COMMON_TO_TREES)), **own)
    stopping = given.early_stopping
    steps = given.steps
    rows = summary.rows["train"]
    epochs = given.epochs or (-(-steps // -(-rows // (given.batch_size * given.accumulate_steps))) if steps else None)
    decay = given.weight_decay
    found = Hyperparameters(
        epochs=epochs or (EARLY_STOPPING_EPOCHS if stopping else DEFAULT_EPOCHS),
        steps=steps,
        batch_size=given.batch_size,
        learning_rate=given.learning_rate,
        optimizer=given.optimizer,
        seed=given.seed,
        patience=stopping.patience if stopping else None,
        min_delta=stopping.min_delta if stopping else 0.0,
        monitor=stopping.metric if stopping else "val_loss",
        class_weights=class_weights(given.class_weights, summary.classes, summary.class_counts, summary.label),
        schedule=given.schedule,
        warmup_steps=given.warmup_steps,
        weight_decay=DEFAULT_WEIGHT_DECAY[given.optimizer] if decay is None else decay,
        clip_norm=given.clip_norm,
        label_smoothing=given.label_smoothing,
        accumulate_steps=given.accumulate_steps,
        trees=Trees(**{f.name: getattr(trees, f.name) for f in fields(Trees)}) if trees else None,
    )
    if found.warmup_steps >= (total := found.total_steps(rows)):
        raise UserError(
            f"trainer.hyperparameters.warmup_steps: {found.warmup_steps} steps, and the training has {total} ({rows} rows); "
            "use fewer, or train longer"
        )
    return found
