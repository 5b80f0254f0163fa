"""The end of an epoch in Keras: reports, checkpoints, stopping. Mirrors `pytorch/epochs.py`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from switchyard.components.training.beside import Beside
from switchyard.components.training.contract import Report
from switchyard.components.training.example_source import Shard
from switchyard.components.training.ledger import TrainingLedger, check_finite

CHECKPOINT = ".npz"


class Epochs(keras.callbacks.Callback):
    """A callback at the end of each epoch: reports metrics, writes the checkpoint, stops when the ledger is finished."""

    def __init__(
        self,
        ledger: TrainingLedger,
        report: Report,
        shard: Shard,
        checkpoints: Checkpoints,
        steps_per_epoch: int,
        *,
        per_call: int = 1,
    ) -> None:
        super().__init__()
        self._ledger, self._report, self._steps, self._shard = ledger, report, ledger.steps, shard
        self._checkpoints, self._steps_per_epoch, self._per_call = checkpoints, steps_per_epoch, per_call

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts the steps of call number `batch` of the epoch."""
        limit = self._ledger.hyperparameters.steps
        in_epoch = min((batch + 1) * self._per_call, self._steps_per_epoch)
        self._steps = self._ledger.epochs * self._steps_per_epoch + in_epoch
        if limit is not None and self._steps >= limit:
            self._steps = limit
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Records the epoch, writes the checkpoint and reports."""
        check_finite("loss", float(logs["loss"]), epoch + 1)
        self._ledger.record(self._steps, logs)
        # By one of the user's callbacks, which run before this one and may set NumPy's type.
        self._ledger.stopped |= bool(self.model.stop_training)
        self._checkpoints.save(self.model, self._ledger, first=self._shard.first)
        self._report(self._steps, self._ledger.history[-1])
        self.model.stop_training = self._ledger.finished


class Checkpoints:
    """Copies a checkpoint's state and writes it beside the next epoch."""

    def __init__(self, writer: Beside) -> None:
        self._writer = writer

    def save(self, model: keras.Model, ledger: TrainingLedger, *, first: bool) -> None:
        """Saves the epoch that was recorded last, then the ledger. The first worker writes."""
        if first:
            self._writer.wait()  # one copy of the state at a time
            values = {f"{kind}-{i}": v.numpy() for kind, variables in state(model).items() for i, v in enumerate(variables)}
            self._writer.submit(partial(self._write, values, ledger.last(CHECKPOINT), ledger.copy()))

    @staticmethod
    def _write(values: Mapping[str, Any], path: Path, ledger: TrainingLedger) -> None:
        # `Any`: arrays, one of which NumPy 2's types would take for its option `allow_pickle`.
        temporary = path.with_name(f"new_{path.name}")
        with temporary.open("wb") as file:
            np.savez(file, **values)
        os.replace(temporary, path)
        ledger.save()


def state(model: keras.Model) -> dict[str, list[Any]]:
    """Returns the variables of a compiled model, in an order that only build_model determines: Keras' names count its models."""
    return {"model": model.variables, "optimizer": model.optimizer.variables}


def load(variables: Mapping[str, list[Any]], checkpoint: Path) -> None:
    """Loads variables, by kind, see `state`."""
    with np.load(checkpoint) as values:
        for kind, of_kind in variables.items():
            for i, variable in enumerate(of_kind):
                # NumPy's format does not know bfloat16, of which it keeps the bytes.
                variable.assign(values[f"{kind}-{i}"].view(tf.as_dtype(variable.dtype).as_numpy_dtype))
