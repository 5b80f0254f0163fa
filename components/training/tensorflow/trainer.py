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
from switchyard.components.tasks import BINARY, MULTICLASS, MULTILABEL, MULTIOUTPUT, QUANTILE, RANKING, REGRESSION, TASKS
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
from switchyard.components.training.example_source import Shard
from switchyard.components.training.examples import placeholder_batch
from switchyard.components.training.hyperparameters import Hyperparameters
from switchyard.components.training.ledger import TrainingLedger, check_finite
from switchyard.components.training.model_check import explained
from switchyard.components.training.model_spec import check_output
from switchyard.components.training.names import Optimizer
from switchyard.components.training.positional import by_name, save_names
from switchyard.components.training.schedule import factor
from switchyard.components.training.tensorflow.default_model import default_model
from switchyard.components.training.tensorflow.losses import MeanLoss, RowLosses, row_losses
from switchyard.components.training.tensorflow.model_check import check_logits, check_loss, check_training, refuse_averages
from switchyard.components.training.tensorflow.predictor import TensorflowPredictor
from switchyard.components.training.tensorflow.replicas import Replicas, strategy_for
from switchyard.components.training.tensorflow.steps import Steps
from switchyard.components.user_code.loading import blamed, folder_of

_POLICIES = {"float32": "float32", "tf32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}
_ACTIVATIONS = {"sigmoid": keras.ops.sigmoid, "softmax": keras.ops.softmax, "identity": lambda x: x}
_CHECKPOINT = ".npz"


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
        task = request.spec.task
        losses = row_losses(task, request.loss, hyper.label_smoothing)
        replicas = None
        # Keras' own accumulation weighs an epoch's last batches otherwise, and its schedules count batches.
        by_hand = self._strategy.num_replicas_in_sync > 1 or request.accelerator.kind == "tpu" or hyper.accumulate_steps > 1
        if (request.build_model or request.loss.function) and not ledger.epochs and request.shard.first:
            self._try_out(request, by_hand=by_hand)
        with self._strategy.scope():
            model = self._build(request)
            used = _own_training(model)
            if not used:
                clip, count = not by_hand, self._strategy.num_replicas_in_sync
                optimizer = _optimizer_for(request, model, clip=clip, replicas=count)
                _compile(model, request, optimizer, losses, jit=_jit(model, request, by_hand))
            model.optimizer.build(model.trainable_variables)
            if by_hand:
                replicas = Replicas(self._strategy, model, request, losses, lambda: _metrics(request))
        if ledger.epochs:
            _load(_state(model), ledger.last(_CHECKPOINT))
        if not ledger.finished:
            _train(model, request, ledger, report, replicas)
        parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        if request.shard.first:
            if replicas:
                # A plain copy: distributed variables and layers cannot be exported to a SavedModel.
                model = self._build(request)
            _load({"model": model.variables}, ledger.best(_CHECKPOINT))
            model = self._in_float32(model, request)
            if request.build_model:
                check_logits(model, request)
            _export(model, request)
        if replicas:
            replicas.barrier()
        workers = self._strategy.num_replicas_in_sync
        result = ledger.result(parameters=parameters, device=_device(request.accelerator.kind), workers=workers)
        return replace(result, used=used)

    def _build(self, request: TrainRequest) -> keras.Model:
        build = request.build_model or default_model
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
            _export(model, replace(request, export_dir=Path(folder)))
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


def _compile(model: keras.Model, request: TrainRequest, optimizer: Any, losses: RowLosses, *, jit: bool | str) -> None:
    measured = {"weighted_metrics" if request.train.weighted else "metrics": _metrics(request)}
    model.compile(optimizer=optimizer, loss=MeanLoss(request.spec.task, losses), jit_compile=jit, **measured)


def _train(model: keras.Model, request: TrainRequest, ledger: TrainingLedger, report: Report, replicas: Replicas | None) -> None:
    """Trains a compiled model from the ledger's last epoch on: by Keras' `fit`, or by `replicas`."""
    hyper, task = request.hyperparameters, request.spec.task
    steps_per_epoch = hyper.steps_per_epoch(request.train.rows)
    callbacks = request.hooks.callbacks(request.spec, keras.callbacks.Callback)
    refuse_averages(model, callbacks)
    with Beside() as writer:
        if replicas:
            replicas.fit(ledger.epochs, [*callbacks, _Epochs(ledger, report, request.shard, writer, steps_per_epoch)])
            return
        device = "/GPU:0" if request.accelerator.kind == "gpu" else "/CPU:0"
        # The results of a step that the user wrote are not those of the model's metrics.
        own = [_overrides(model, step, "compute_metrics") for step in ("train_step", "test_step")]
        train = Steps(request.train, hyper.batch_size, device=device, one_by_one=own[0] or bool(callbacks))
        held_out = Steps(request.eval, hyper.eval_batch_size(1), device=device, one_by_one=own[1])
        model.train_function = train.function(model, model.train_step, _prepare(task, hyper.class_weights))
        model.test_function = held_out.function(model, model.test_step, _prepare(task, None))
        epochs = _Epochs(ledger, report, request.shard, writer, steps_per_epoch, per_call=train.per_call)
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


class _Epochs(keras.callbacks.Callback):
    """A callback at the end of each epoch: reports metrics, writes the checkpoint, stops when the ledger is finished."""

    def __init__(
        self, ledger: TrainingLedger, report: Report, shard: Shard, writer: Beside, steps_per_epoch: int, *, per_call: int = 1
    ) -> None:
        super().__init__()
        self._ledger, self._report, self._steps, self._shard = ledger, report, ledger.steps, shard
        self._writer, self._steps_per_epoch, self._per_call = writer, steps_per_epoch, per_call

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts the steps of call number `batch` of the epoch."""
        limit = self._ledger.hyperparameters.steps
        in_epoch = min((batch + 1) * self._per_call, self._steps_per_epoch)
        self._steps = self._ledger.epochs * self._steps_per_epoch + in_epoch
        if limit is not None and self._steps >= limit:
            self._steps = limit
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        check_finite("loss", float(logs["loss"]), epoch + 1)
        self._ledger.record(self._steps, logs)
        self._ledger.stopped |= self.model.stop_training  # by one of the user's callbacks, which run before this one
        if self._shard.first:
            _save(self.model, self._ledger, self._writer)
        self._report(self._steps, self._ledger.history[-1])
        self.model.stop_training = self._ledger.finished


def _save(model: keras.Model, ledger: TrainingLedger, writer: Beside) -> None:
    """Copies the state of the epoch that was recorded last; a thread writes it beside the next epoch, then the ledger."""
    writer.wait()  # one copy of the state at a time
    values = {f"{kind}-{i}": v.numpy() for kind, variables in _state(model).items() for i, v in enumerate(variables)}
    writer.submit(partial(_write, values, ledger.last(_CHECKPOINT), ledger.copy()))


def _write(values: Mapping[str, np.ndarray], path: Path, ledger: TrainingLedger) -> None:
    temporary = path.with_name(f"new_{path.name}")
    with temporary.open("wb") as file:
        np.savez(file, **values)
    os.replace(temporary, path)
    ledger.save()


def _state(model: keras.Model) -> dict[str, list[Any]]:
    """Returns the variables of a compiled model, in an order that only build_model determines: Keras' names count its models."""
    return {"model": model.variables, "optimizer": model.optimizer.variables}


def _load(state: Mapping[str, list[Any]], checkpoint: Path) -> None:
    with np.load(checkpoint) as values:
        for kind, variables in state.items():
            for i, variable in enumerate(variables):
                # NumPy's format does not know bfloat16, of which it keeps the bytes.
                variable.assign(values[f"{kind}-{i}"].view(tf.as_dtype(variable.dtype).as_numpy_dtype))


def _export(model: keras.Model, request: TrainRequest) -> None:
    activation = _activation(request)
    names = [f.name for f in request.spec.features]
    signature = {f"f{i}": tf.TensorSpec((None, *f.shape), f.dtype, f"f{i}") for i, f in enumerate(request.spec.features)}
    archive = keras.export.ExportArchive()
    try:
        archive.track(model)
        archive.add_endpoint(
            "serve",
            lambda features: keras.ops.cast(
                activation(keras.ops.cast(model(by_name(features, names), training=False), "float32")), "float32"
            ),
            input_signature=[signature],
        )
        archive.write_out(str(request.export_dir), verbose=False)
    except Exception as error:
        raise UserError(
            f"trainer.model: the model cannot be exported as a SavedModel: {first_line(error)}. Keep Python control flow on "
            "tensor values, NumPy and files out of call()."
        ) from error
    save_names(request.export_dir, names)


def _activation(request: TrainRequest) -> Any:
    """Returns the function from the model's outputs to what is served."""
    if request.loss.of_log:
        return keras.ops.exp
    return _ACTIVATIONS[TASKS[request.spec.task].activation]


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


def _optimizer_for(
    request: TrainRequest, model: keras.Model, *, clip: bool = True, replicas: int = 1
) -> keras.optimizers.Optimizer:
    """Returns the user's optimizer, or the configured one, see `_optimizer`."""
    own = request.hooks.optimizer(model, request.spec, keras.optimizers.Optimizer)
    if own is None:
        return _optimizer(request.hyperparameters, request.train.rows, clip=clip)
    for name in ("clipnorm", "global_clipnorm", "clipvalue"):
        if replicas > 1 and getattr(own, name, None) is not None:
            raise UserError(
                f"trainer.model: build_optimizer sets {name}, and each of {replicas} devices would clip its own part of the "
                "gradient; train on one device, or leave it out"
            )
    return own


def _optimizer(hyper: Hyperparameters, rows: int, *, clip: bool = True) -> keras.optimizers.Optimizer:
    """Returns the optimizer. `clip` must be False for `Replicas`, which clips the whole gradient, of which each has a part."""
    rate: Any = hyper.learning_rate
    if hyper.schedule != "constant" or hyper.warmup_steps:
        rate = _Course(rate, hyper.schedule, hyper.total_steps(rows), hyper.warmup_steps)
    norm = hyper.clip_norm if clip else None
    optimizers: dict[Optimizer, tuple[type[keras.optimizers.Optimizer], dict[str, Any]]] = {
        "adam": (keras.optimizers.Adam, {"epsilon": 1e-7}),
        "adamw": (keras.optimizers.AdamW, {"epsilon": 1e-7, "weight_decay": hyper.weight_decay}),
        "sgd": (keras.optimizers.SGD, {"weight_decay": hyper.weight_decay or None}),
        "rmsprop": (keras.optimizers.RMSprop, {"epsilon": 1e-7, "rho": 0.9}),
    }
    kind, options = optimizers[hyper.optimizer]
    return (_dense(kind) if norm else kind)(rate, global_clipnorm=norm, **options)


def _dense(kind: type[keras.optimizers.Optimizer]) -> type[keras.optimizers.Optimizer]:
    """Returns an optimizer that takes embeddings' gradients as dense tensors.

    Keras 3.15 computes the norm of their `IndexedSlices` before rows of the same index are added up: a wrong norm.
    """

    class Dense(kind):
        def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
            return super().apply([None if g is None else tf.convert_to_tensor(g) for g in grads], trainable_variables)

    return Dense


class _Course(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate: float, schedule: str, total: int, warmup: int) -> None:
        super().__init__()
        self._rate, self._factor = rate, partial(factor, keras.ops, schedule, total=total, warmup=warmup)

    def __call__(self, step: Any) -> Any:
        return self._rate * self._factor(step=keras.ops.cast(step, "float32"))


def _metrics(request: TrainRequest) -> list[Any]:
    values = _activation(request)
    own = request.hooks.metrics(request.spec, keras.metrics.Metric)

    def mae() -> Any:
        error = keras.losses.mean_absolute_error
        return keras.metrics.MeanMetricWrapper(lambda y, output: error(y, values(output)), name="mae")

    of_task = {
        BINARY: lambda: [
            keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy"),
            keras.metrics.AUC(from_logits=True, name="auc"),
        ],
        MULTICLASS: lambda: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        REGRESSION: lambda: [mae()],
        QUANTILE: list,
        RANKING: list,
        MULTIOUTPUT: lambda: [mae()],
        MULTILABEL: lambda: [
            keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy"),
            keras.metrics.AUC(from_logits=True, multi_label=True, num_labels=request.spec.outputs, name="auc"),
        ],
    }[request.spec.task]()
    return [*of_task, *(_OwnMetric(name, metric, request) for name, metric in own.items())]


class _OwnMetric(keras.metrics.Metric):
    """A metric of the user's, which receives predictions in place of logits and weighs all rows of a weight above 0 the same."""

    def __init__(self, name: str, metric: keras.metrics.Metric, request: TrainRequest) -> None:
        super().__init__(name=name)
        task = TASKS[request.spec.task]
        self._metric, self._served = metric, _activation(request)
        self._label = "int64" if task.has_probabilities else "float32"
        # Keras takes the last dimension of (B,) for the values of one row.
        self._shape = None if task.wide_labels else [-1] if task.name == MULTICLASS else [-1, 1]

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds labels, (B,), (B, 1) or (B, labels), and outputs (B, outputs)."""
        predicted = self._served(keras.ops.cast(y_pred, "float32"))
        labels = keras.ops.cast(keras.ops.reshape(y_true, self._shape) if self._shape else y_true, self._label)
        counted = None if sample_weight is None else keras.ops.cast(keras.ops.reshape(sample_weight, [-1]) > 0, "float32")
        self._metric.update_state(labels, predicted, sample_weight=counted)

    def result(self) -> Any:
        """See the base class."""
        return self._metric.result()

    def reset_state(self) -> None:
        """See the base class."""
        self._metric.reset_state()


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
