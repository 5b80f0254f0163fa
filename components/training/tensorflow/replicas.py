"""Trains on several TensorFlow devices, or with accumulated gradients, with a distribution strategy and a custom loop.

Keras' own `fit` averages the replicas' mean losses, so rows weigh differently if a batch is not divided equally; and it fails
under MultiWorkerMirroredStrategy (Keras 3.15: keras-team/keras#20585, #20329). Source of the loop:
https://www.tensorflow.org/tutorials/distribute/custom_training
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from switchyard.components.errors import UserError
from switchyard.components.tasks import MULTICLASS
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.contract import TrainRequest, WorkerGroup
from switchyard.components.training.example_source import Shard
from switchyard.components.training.ledger import as_number
from switchyard.components.training.tensorflow.batches import dataset

Losses = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def strategy_for(accelerator: AcceleratorProfile, group: WorkerGroup | None) -> tf.distribute.Strategy:
    """Returns the strategy. Call it before TensorFlow's first operation.

    Args:
        accelerator: resolved profile.
        group: the processes that train together; None if this process trains alone.
    """
    kind, count = accelerator.kind, accelerator.count
    if kind == "tpu":
        # The local TPUs, unless TPU_NAME, which Google's tools set, names others.
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        tpus = tf.distribute.TPUStrategy(resolver)
        if tpus.num_replicas_in_sync != count:
            raise UserError(
                f"trainer.accelerator.count: TensorFlow uses all TPUs of a machine, {tpus.num_replicas_in_sync} here, "
                f"received {count}; set it to {tpus.num_replicas_in_sync}"
            )
        return tpus
    if kind == "gpu":
        first = group.local_index * count if group and accelerator.nodes > 1 else 0
        tf.config.set_visible_devices(tf.config.list_physical_devices("GPU")[first : first + count], "GPU")
    if group:
        task = {"type": "worker", "index": group.index}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": group.exchange_addresses()}, "task": task})
        return tf.distribute.MultiWorkerMirroredStrategy()
    if count > 1:
        if kind == "cpu":
            (cpu,) = tf.config.list_physical_devices("CPU")
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(count)])
    return tf.distribute.get_strategy()


class Replicas:
    """A model replicated on every device of a strategy, trained synchronously on one global batch at a time.

    A step's loss is the mean over the rows of its global batches, whatever the number of replicas and batches.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        request: TrainRequest,
        losses: Losses,
        metrics: Callable[[], list[Any]],
    ) -> None:
        """Wraps a model. Both the model and this object must be created in the strategy's scope.

        Args:
            strategy: strategy, with one replica or several.
            model: compiled model.
            request: the training request.
            losses: maps labels (B,) or (B, 1) and outputs (B, outputs) to the loss of each row, shape (B,).
            metrics: returns new instances of the task's metrics.
        """
        self._strategy, self._model, self._request, self._losses = strategy, model, request, losses
        self._replicas = strategy.num_replicas_in_sync
        self._metrics = {split: [keras.metrics.Mean(name="loss"), *metrics()] for split in ("", "val_")}
        weights = request.hyperparameters.class_weights
        self._class_weights = tf.constant(weights) if weights else None
        self._together = request.hyperparameters.accumulate_steps
        # Sums of this replica's gradients.
        summed: list[Any] = model.trainable_variables if self._together > 1 else []
        self._sums: list[Any] = [
            tf.Variable(
                tf.zeros(w.shape, w.dtype),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for w in summed
        ]
        # TPU programs require fixed shapes.
        self._fixed = request.accelerator.kind == "tpu"

    def fit(self, first_epoch: int, callbacks: list[keras.callbacks.Callback]) -> None:
        """Trains; calls the callbacks as Keras' `fit` does, without metrics of single batches and without batches of the test.

        A callback stops training by setting `model.stop_training`.
        """
        hyper, rows = self._request.hyperparameters, self._request.train.rows
        if rows < self._replicas:
            raise UserError(
                f"trainer.accelerator: {self._replicas} workers are too many for {rows} training examples; request fewer"
            )
        train_step, eval_step = (tf.function(each) for each in (self._train_step, self._eval_step))
        in_epoch = math.ceil(rows / hyper.batch_size)
        epochs = {"seed": hyper.seed, "first_epoch": first_epoch, "epochs": hyper.epochs - first_epoch}
        batches = iter(self._distributed(self._request.train, hyper.batch_size, **epochs))
        evaluated = self._distributed(self._request.eval, hyper.eval_batch_size(self._replicas))
        callback = keras.callbacks.CallbackList(
            callbacks, model=self._model, epochs=hyper.epochs, steps=hyper.steps_per_epoch(rows)
        )
        self._model.stop_training = False
        callback.on_train_begin()
        for epoch in range(first_epoch, hyper.epochs):
            callback.on_epoch_begin(epoch)
            for number in range(in_epoch):
                if number % self._together == 0:
                    callback.on_train_batch_begin(number // self._together)
                last = number % self._together == self._together - 1 or number == in_epoch - 1
                train_step(next(batches), last)
                if last:
                    callback.on_train_batch_end(number // self._together)
                if self._model.stop_training:
                    break
            callback.on_test_begin()
            for batch in evaluated:
                eval_step(batch)
            results = self._results()
            callback.on_test_end({name.removeprefix("val_"): results[name] for name in results if name.startswith("val_")})
            callback.on_epoch_end(epoch, results)
            if self._model.stop_training:
                break
        callback.on_train_end()

    def barrier(self) -> None:
        """Waits for all workers."""
        self._strategy.reduce("SUM", self._strategy.run(lambda: tf.constant(1)), axis=None)

    def _results(self) -> dict[str, float]:
        found = {}
        for prefix, metrics in self._metrics.items():
            for metric in metrics:
                found[prefix + metric.name] = as_number(prefix + metric.name, metric.result())
                metric.reset_state()
        return found

    def _distributed(self, source: Any, batch_size: int, **epochs: Any) -> Any:
        """Returns batches of (features, labels, weights, mask, share, part).

        `weights` (B,) are 1 without weights, `mask` (B,) is 0 for padding rows; a row is `share` of its step's rows, and the
        batch `part`.
        """
        here = self._replicas // max(1, self._request.shard.count)

        def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
            shards = [Shard(context.input_pipeline_id * here + i, self._replicas) for i in range(here)]
            parts = [self._part(source, batch_size, shard, **epochs) for shard in shards]
            return tf.data.Dataset.choose_from_datasets(parts, tf.data.Dataset.range(here).repeat())

        return self._strategy.distribute_datasets_from_function(pipeline)

    def _part(self, source: Any, batch_size: int, shard: Shard, **epochs: Any) -> tf.data.Dataset:
        in_batch = [min(batch_size, source.rows - start) for start in range(0, source.rows, batch_size)]
        last, together = len(in_batch) - 1, self._together * batch_size
        last_step = (source.rows - 1) // together
        rows = batch_size // self._replicas

        def add(index: tf.Tensor, batch: Any) -> Any:
            features, labels, *rest = batch
            weights = rest[0] if rest else tf.ones(tf.shape(labels)[:1])
            position = index % len(in_batch)
            is_last = position == last
            of_all = tf.where(is_last, in_batch[last], batch_size)
            of_step = tf.where(position // self._together == last_step, source.rows - last_step * together, together)
            own = tf.where(is_last, shard.rows(in_batch[last]), rows)
            if self._fixed:
                features = {name: _padded(values, rows) for name, values in features.items()}
                labels, weights = _padded(labels, rows), _padded(weights, rows)
            mask = tf.cast(tf.range(tf.shape(labels)[0]) < own, tf.float32)
            return features, labels, weights, mask, 1.0 / tf.cast(of_step, tf.float32), tf.cast(of_all / of_step, tf.float32)

        return dataset(source, batch_size, shard=shard, **epochs).enumerate().map(add, num_parallel_calls=tf.data.AUTOTUNE)

    def _train_step(self, batch: Any, last: bool) -> None:
        self._strategy.run(self._train_replica, args=(batch, last))

    def _eval_step(self, batch: Any) -> None:
        self._strategy.run(self._eval_replica, args=(batch,))

    def _train_replica(self, batch: Any, last: bool) -> None:
        """Adds a batch's gradients up; the last batch of a step updates the weights."""
        features, labels, weights, mask, share, part = batch
        model, optimizer = self._model, self._model.optimizer
        with tf.GradientTape() as tape:
            output = tf.cast(model(features, training=True), tf.float32)
            if self._class_weights is not None:
                weights *= tf.gather(self._class_weights, labels)
            losses = self._losses(labels, output) * mask * weights
            # The optimizer sums the replicas' gradients.
            loss = tf.reduce_sum(losses) * share + tf.add_n([tf.constant(0.0), *model.losses]) * part / self._replicas
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, model.trainable_variables)
        self._count("", losses, labels, output, mask, weights)
        if self._sums:
            for total, gradient in zip(self._sums, gradients, strict=True):
                if gradient is not None:
                    total.assign_add(tf.convert_to_tensor(gradient))
        if not last:
            return
        if self._sums:
            gradients = [None if g is None else tf.identity(t) for t, g in zip(self._sums, gradients, strict=True)]
        if self._request.hyperparameters.clip_norm:
            gradients = self._clipped(gradients, optimizer.scale_loss(1.0))
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        for total in self._sums:
            total.assign(tf.zeros_like(total))

    def _clipped(self, gradients: list[Any], scale: Any) -> list[Any]:
        """Returns this replica's share of the clipped gradient sum; the optimizer sums the shares of all replicas."""
        there = [i for i, g in enumerate(gradients) if g is not None]
        context = tf.distribute.get_replica_context()
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [tf.convert_to_tensor(gradients[i]) for i in there])
        clipped, _ = tf.clip_by_global_norm(summed, self._request.hyperparameters.clip_norm * scale)
        shares = dict(zip(there, (g / self._replicas for g in clipped), strict=True))
        return [shares.get(i) for i in range(len(gradients))]

    def _eval_replica(self, batch: Any) -> None:
        features, labels, weights, mask, _, _ = batch
        output = tf.cast(self._model(features, training=False), tf.float32)
        self._count("val_", self._losses(labels, output) * mask * weights, labels, output, mask, weights)

    def _count(
        self, split: str, losses: tf.Tensor, labels: tf.Tensor, output: tf.Tensor, mask: tf.Tensor, weights: tf.Tensor
    ) -> None:
        mean, *others = self._metrics[split]
        mean.update_state(losses, sample_weight=mask)
        if self._request.spec.task != MULTICLASS and labels.shape.rank == 1:
            labels = labels[:, tf.newaxis]  # same rank as the output, as Keras broadcasts (B,)
        # Without sample weights class weights count in the loss alone, as in Keras' `metrics`.
        weights = mask * weights if self._request.train.weighted else mask
        for metric in others:
            metric.update_state(labels, output, sample_weight=weights)


def _padded(values: tf.Tensor, rows: int) -> tf.Tensor:
    missing = rows - tf.shape(values)[0]
    padded = tf.concat([values, tf.repeat(values[:1], missing, axis=0)], axis=0)
    return tf.ensure_shape(padded, [rows, *values.shape[1:]])
