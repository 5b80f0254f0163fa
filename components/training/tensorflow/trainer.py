"""The TensorFlow trainer, based on Keras 3 `fit`. Mirrors `pytorch/trainer.py`: same names, same order."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from switchyard.components.errors import UserError, first_line
from switchyard.components.progress import warn
from switchyard.components.tasks import MULTICLASS
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.beside import Beside
from switchyard.components.training.contract import (
    ALL_SETTINGS,
    Predictor,
    Report,
    Trainer,
    TrainRequest,
    TrainResult,
    WorkerGroup,
)
from switchyard.components.training.examples import placeholder_batch
from switchyard.components.training.ledger import TrainingLedger
from switchyard.components.training.model_check import explained
from switchyard.components.training.model_spec import check_output
from switchyard.components.training.tensorflow.default_model import default_model
from switchyard.components.training.tensorflow.epochs import CHECKPOINT, Checkpoints, Epochs, load, state
from switchyard.components.training.tensorflow.export import export
from switchyard.components.training.tensorflow.losses import MeanLoss, RowLosses, row_losses
from switchyard.components.training.tensorflow.metrics import metrics
from switchyard.components.training.tensorflow.model_check import check_logits, check_loss, check_training, refuse_averages
from switchyard.components.training.tensorflow.optimizer import optimizer_for
from switchyard.components.training.tensorflow.predictor import TensorflowPredictor
from switchyard.components.training.tensorflow.replicas import Replicas, strategy_for
from switchyard.components.training.tensorflow.start import begin, freeze
from switchyard.components.training.tensorflow.steps import Steps
from switchyard.components.user_code.loading import blamed, folder_of

_POLICIES = {"float32": "float32", "tf32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


class TensorflowTrainer(Trainer):
    """A trainer of Keras models, exported as a SavedModel whose `serve` maps transformed features to probabilities."""

    name = "tensorflow"
    supports = ALL_SETTINGS

    def __init__(self) -> None:
        self._strategy = tf.distribute.get_strategy()

    def prepare(self, accelerator: AcceleratorProfile, group: WorkerGroup | None = None) -> None:
        """See Trainer."""
        resolved = self.resolve(accelerator)
        if resolved.kind == "cpu":
            tf.config.set_visible_devices([], "GPU")
        else:
            for gpu in tf.config.list_physical_devices("GPU"):
                # Refused if TensorFlow was used before, by the transform stage of the same Kubeflow task: it holds the memory.
                with suppress(RuntimeError):
                    tf.config.experimental.set_memory_growth(gpu, True)
        if resolved.workers > 1 or resolved.kind == "tpu":
            self._strategy = strategy_for(resolved, group)

    def available_devices(self) -> Mapping[str, int]:
        """See Trainer."""
        found = {kind: len(tf.config.list_physical_devices(kind.upper())) for kind in ("gpu", "tpu")}
        return {"cpu": os.cpu_count() or 1, **found}

    def processes(self, accelerator: AcceleratorProfile) -> int:
        """See Trainer. Uses one process for all devices of a node, except on CPUs of several nodes."""
        if accelerator.shard_model and accelerator.workers > 1:
            raise UserError(
                "trainer.accelerator.shard_model: TensorFlow replicates the model on every device; use the PyTorch trainer, or "
                "set it to false"
            )
        if accelerator.kind == "tpu" and accelerator.nodes > 1:
            raise UserError(
                f"trainer.accelerator.nodes: TensorFlow trains on the TPUs of one machine, received {accelerator.nodes}; set it "
                "to 1"
            )
        return accelerator.count if accelerator.nodes > 1 and accelerator.kind == "cpu" else 1

    def is_out_of_memory(self, error: Exception) -> bool:
        """See Trainer."""
        return isinstance(error, tf.errors.ResourceExhaustedError | MemoryError)

    def fit(self, request: TrainRequest, report: Report) -> TrainResult:
        """See the base class."""
        hyper = request.hyperparameters
        keras.utils.set_random_seed(hyper.seed)
        keras.mixed_precision.set_global_policy(_POLICIES[request.accelerator.precision])
        # By default TensorFlow multiplies in TF32 on a GPU.
        tf.config.experimental.enable_tensor_float_32_execution(request.accelerator.precision == "tf32")
        if request.accelerator.deterministic:
            tf.config.experimental.enable_op_determinism()
        ledger = TrainingLedger.open(request.checkpoint_dir, hyper)
        replicas = None
        # Keras' own accumulation weighs an epoch's last batches otherwise, and its schedules count batches.
        by_hand = self._strategy.num_replicas_in_sync > 1 or request.accelerator.kind == "tpu" or hyper.accumulate_steps > 1
        if (request.build_model or request.loss.function) and not ledger.epochs and request.shard.first:
            self._try_out(request, by_hand=by_hand)
        with self._strategy.scope():
            model = self._build(request)
            if request.start and not ledger.epochs:
                begin(model, request, request.start)
            freeze(model, request.freeze)
            used = _own_training(model)
            if not used:
                clip, count = not by_hand, self._strategy.num_replicas_in_sync
                optimizer = optimizer_for(request, model, clip=clip, replicas=count)
                _compile(model, request, optimizer, _losses(request), jit=_jit(model, request, by_hand))
            model.optimizer.build(model.trainable_variables)
            if by_hand:
                replicas = Replicas(self._strategy, model, request, _losses(request), lambda: metrics(request))
        if ledger.epochs:
            load(state(model), ledger.last(CHECKPOINT))
        if not ledger.finished:
            _train(model, request, ledger, report, replicas)
        parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        if request.shard.first:
            if replicas:
                # A plain copy: distributed variables and layers cannot be exported to a SavedModel.
                model = self._build(request)
            load({"model": model.variables}, ledger.best(CHECKPOINT))
            model = self._in_float32(model, request)
            if request.build_model:
                check_logits(model, request)
            export(model, request)
        if replicas:
            replicas.barrier()
        workers = self._strategy.num_replicas_in_sync
        result = ledger.result(parameters=parameters, device=_device(request.accelerator.kind), workers=workers)
        return replace(result, used=used)

    def _build(self, request: TrainRequest) -> keras.Model:
        build = request.build_model or partial(default_model, start=request.start)
        with blamed("trainer.model: build_model failed: ", folder_of(build)):
            model = build(request.spec)
            output = model(placeholder_batch(request.spec, 2)) if isinstance(model, keras.Model) else None
        if output is None:
            raise UserError(f"trainer.model: build_model must return a keras.Model, received {type(model).__name__}.")
        check_output(tuple(output.shape), 2, request.spec)
        return model

    def _try_out(self, request: TrainRequest, *, by_hand: bool) -> None:
        """Runs all steps that follow training with an untrained model, so that their errors appear before training."""
        policy = keras.mixed_precision.global_policy()
        keras.mixed_precision.set_global_policy("float32")
        model = self._build(request)
        check_training(model, request, by_hand=by_hand)
        with explained(request.build_model):
            check_logits(model, request)
            check_loss(model, request)
        with tempfile.TemporaryDirectory(prefix="switchyard-") as folder:
            export(model, replace(request, export_dir=Path(folder)))
            self.load_predictor(Path(folder))(placeholder_batch(request.spec, 3))
        keras.mixed_precision.set_global_policy(policy)
        keras.utils.set_random_seed(request.hyperparameters.seed)

    def _in_float32(self, model: keras.Model, request: TrainRequest) -> keras.Model:
        """Returns the model for serving in float32, whatever the precision and devices of training."""
        if keras.mixed_precision.global_policy().name == "float32":
            return model
        keras.mixed_precision.set_global_policy("float32")
        served = self._build(request)
        served.set_weights(model.get_weights())
        return served

    @classmethod
    def load_predictor(cls, export_dir: Path) -> Predictor:
        """See Trainer."""
        return TensorflowPredictor.load_predictor(export_dir)


def _losses(request: TrainRequest) -> RowLosses:
    return row_losses(request.spec.task, request.loss, request.hyperparameters.label_smoothing)


def _compile(model: keras.Model, request: TrainRequest, optimizer: Any, losses: RowLosses, *, jit: bool | str) -> None:
    measured = {"weighted_metrics" if request.train.weighted else "metrics": metrics(request)}
    model.compile(optimizer=optimizer, loss=MeanLoss(request.spec.task, losses), jit_compile=jit, **measured)


def _train(model: keras.Model, request: TrainRequest, ledger: TrainingLedger, report: Report, replicas: Replicas | None) -> None:
    """Trains a compiled model from the ledger's last epoch on: by Keras' `fit`, or by `replicas`."""
    hyper, task = request.hyperparameters, request.spec.task
    steps_per_epoch = hyper.steps_per_epoch(request.train.rows)
    callbacks = request.hooks.callbacks(request.spec, keras.callbacks.Callback)
    refuse_averages(model, callbacks)
    with Beside() as writer:
        checkpoints = Checkpoints(writer)
        if replicas:
            replicas.fit(ledger.epochs, [*callbacks, Epochs(ledger, report, request.shard, checkpoints, steps_per_epoch)])
            return
        device = "/GPU:0" if request.accelerator.kind == "gpu" else "/CPU:0"
        # The results of a step that the user wrote are not those of the model's metrics.
        own = [_overrides(model, step, "compute_metrics") for step in ("train_step", "test_step")]
        train = Steps(request.train, hyper.batch_size, device=device, one_by_one=own[0] or bool(callbacks))
        held_out = Steps(request.eval, hyper.eval_batch_size(1), device=device, one_by_one=own[1])
        model.train_function = train.function(model, model.train_step, _prepare(task, hyper.class_weights))
        model.test_function = held_out.function(model, model.test_step, _prepare(task, None))
        epochs = Epochs(ledger, report, request.shard, checkpoints, steps_per_epoch, per_call=train.per_call)
        model.fit(
            train.dataset(seed=hyper.seed, first_epoch=ledger.epochs, limit=hyper.steps and hyper.steps - ledger.steps),
            steps_per_epoch=train.calls,
            shuffle=False,
            initial_epoch=ledger.epochs,
            epochs=hyper.epochs,
            validation_data=held_out.dataset(),
            validation_steps=held_out.calls,
            callbacks=[*callbacks, epochs],
            verbose=0,
        )


def _overrides(model: keras.Model, *methods: str) -> bool:
    return any(getattr(type(model), name) is not getattr(keras.Model, name) for name in methods)


def _own_training(model: keras.Model) -> dict[str, Any]:
    """Returns the loss and the optimizer of a model that the user compiled, by the names of hyperparameters; empty for others."""
    if not model.compiled:
        return {}
    # With fp16 Keras wraps the optimizer in one that scales the loss.
    loss, optimizer = model.loss, getattr(model.optimizer, "inner_optimizer", model.optimizer)
    rate = optimizer.get_config()["learning_rate"]
    used = {
        "loss": loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__),
        "optimizer": type(optimizer).__name__,
    }
    return used | ({"schedule": rate["class_name"]} if isinstance(rate, dict) else {"learning_rate": float(rate)})


def _jit(model: keras.Model, request: TrainRequest, by_hand: bool) -> bool | str:
    """Returns Keras' `jit_compile`; falls back from XLA to eager mode, with a warning, if XLA does not support the model."""
    if not request.accelerator.compile:
        return "auto" if request.accelerator.kind == "tpu" else False
    if by_hand:
        warn("trainer.accelerator.compile: several devices, and accumulated gradients, are trained without XLA")
        return False
    try:
        tf.function(model, jit_compile=True)(placeholder_batch(request.spec, 2))
    except Exception as error:
        reason = first_line(error)
        warn(f"trainer.accelerator.compile: XLA failed for this model, falling back to training without it: {reason}")
        return False
    return True


def _prepare(task: str, class_weights: tuple[float, ...] | None) -> Any:
    """Returns a function from features, labels (B,) and any weights (B,) to the data of Keras' steps."""

    def prepare(features: Any, labels: tf.Tensor, *weights: tf.Tensor) -> Any:
        # (B, 1) like the model's output: Keras broadcasts (B,).
        target = labels if task == MULTICLASS else _column(labels)
        if class_weights:
            weights = (*weights, tf.gather(class_weights, labels))
        return (features, target, math.prod(weights)) if weights else (features, target)

    return prepare


def _column(labels: tf.Tensor) -> tf.Tensor:
    labels = tf.cast(labels, tf.float32)
    return labels[:, tf.newaxis] if labels.shape.rank == 1 else labels


def _device(kind: str) -> str:
    if kind != "gpu":
        return kind
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return f"gpu ({details.get('device_name', 'unknown')})"
