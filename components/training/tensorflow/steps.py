"""The input of Keras' `fit` and the functions that run its steps: many steps in a call of TensorFlow, rows gathered in the graph.

Keras' own function calls TensorFlow once per step and computes every metric's result each time; both cost as much as a step of a
small model. Here the metrics' results are computed once an epoch, and nothing waits for a device before its end.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from switchyard.components.training.columns import nbytes
from switchyard.components.training.example_source import ExampleSource
from switchyard.components.training.tensorflow.batches import features_of, stretches

# Share of a GPU's free memory that a split may occupy; the rest is for activations.
_SHARE = 0.25
# Rows of the steps in one call.
_CALL_ROWS = 16_384

Step = Callable[[Any], Any]


class Steps:
    """The steps of one split.

    A split in memory lives on the device; an element of the dataset is a group of batches, as indices of rows, and one call runs
    all of its steps. Of a larger split an element is a batch, copied to the device ahead.

    Attributes:
        per_call: steps in a call, except the last one of an epoch.
        calls: calls in an epoch.
    """

    def __init__(self, source: ExampleSource, batch_size: int, *, device: str, one_by_one: bool = False) -> None:
        """Copies a split to the device if it fits there.

        Args:
            source: the split.
            batch_size: rows of a step.
            device: name of TensorFlow's device.
            one_by_one: whether each call runs one step and returns its result.
        """
        self._source, self._batch_size, self._device = source, batch_size, device
        self._resident: Any = None
        if source.resident is not None and fits(source, _free_bytes(device)):
            arrays, *of_rows = source.resident
            if source.resident_weights is not None:
                of_rows.append(source.resident_weights)
            with tf.device(device):
                self._resident = (tuple(tf.constant(array) for array in arrays), *(tf.constant(values) for values in of_rows))
        self.per_call = 1 if one_by_one or self._resident is None else max(1, _CALL_ROWS // batch_size)
        self._steps = math.ceil(source.rows / batch_size)
        self.calls = math.ceil(self._steps / self.per_call)

    def dataset(self, *, first_epoch: int = 0, limit: int | None = None, seed: int | None = None) -> tf.data.Dataset:
        """Returns the elements of all epochs from `first_epoch` on, without end; the last call before step `limit` is shorter."""
        if self._resident is None:
            return self._copied_ahead(first_epoch, seed)

        def groups() -> Iterator[Any]:
            epoch, left = first_epoch, limit
            while True:
                rows, sizes = self._source.order(self._batch_size, seed=seed, epoch=epoch)
                start = 0
                for i in range(0, len(sizes), self.per_call):
                    group = sizes[i : i + self.per_call][:left]
                    yield rows[start : start + sum(group)], np.asarray(group)
                    start += sum(group)
                    left = None if left is None else max(1, left - len(group))
                epoch += 1

        indices = tf.TensorSpec((None,), tf.int64)
        return tf.data.Dataset.from_generator(groups, output_signature=(indices, indices)).prefetch(2)

    def function(self, model: keras.Model, step: Step, prepare: Callable[..., Any]) -> Callable[[Any], Any]:
        """Returns a function for `model.train_function` or `test_function`.

        Args:
            model: a compiled model.
            step: `model.train_step` or `model.test_step`.
            prepare: maps features, labels (B,) and any weights (B,) to the step's data.
        """
        run = tf.function(step, jit_compile=True, reduce_retracing=True) if model.jit_compile else step

        def batch(arrays: Any, *of_rows: Any) -> Any:
            return prepare(features_of(self._source.blocks, arrays), *of_rows)

        def gathered(rows: tf.Tensor) -> Any:
            arrays, *of_rows = self._resident
            return batch(tuple(tf.gather(array, rows) for array in arrays), *(tf.gather(values, rows) for values in of_rows))

        # As in Keras, AutoGraph does not convert the model.
        @tf.function(input_signature=[self.dataset().element_spec])
        @tf.autograph.experimental.do_not_convert
        def call(element: Any) -> Any:
            if self._resident is None:
                return run(batch(*element))
            order, sizes = element
            with tf.device(self._device):
                order = tf.identity(order)
            if self.per_call == 1:
                return run(gathered(order))
            with tf.device("/CPU:0"):  # bounds computed on a GPU would be waited for
                starts, count = tf.cumsum(sizes, exclusive=True), tf.size(sizes)

            def one_step(i: tf.Tensor) -> Any:
                with tf.device("/CPU:0"):
                    start, size = starts[i : i + 1], sizes[i : i + 1]
                run(gathered(tf.slice(order, start, size)))
                return (i + 1,)

            tf.while_loop(lambda i: i < count, one_step, (0,))
            names.update(dict.fromkeys(model.get_metrics_result()))
            return None

        names: dict[str, None] = {}
        # Keras reads the metrics at the end of an epoch if the logs have their names; it would wait for values at every call.
        return lambda iterator: call(next(iterator)) or dict(names)

    def _copied_ahead(self, first_epoch: int, seed: int | None) -> tf.data.Dataset:
        batches = stretches(self._source, self._batch_size, seed=seed, first_epoch=first_epoch, epochs=None)
        if "GPU" in self._device:
            return batches.apply(tf.data.experimental.prefetch_to_device(self._device, buffer_size=2))
        return batches.prefetch(tf.data.AUTOTUNE)


def fits(source: ExampleSource, free: int | None) -> bool:
    """Returns whether a split may live in the memory of a device with so many free bytes; None is the CPU, which has it."""
    return source.resident is not None and (free is None or nbytes(source.resident) <= _SHARE * free)


def _free_bytes(device: str) -> int | None:
    """Returns the free memory of the GPU that has least, 0 if unknown, None for the CPU."""
    if "GPU" not in device:
        return None
    # TensorFlow reports only what it uses itself.
    try:
        command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return 0
    return min((int(mib) << 20 for mib in found if mib.isdigit()), default=0)
