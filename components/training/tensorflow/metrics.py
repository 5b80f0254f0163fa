"""The task's metrics in Keras, under the names that every trainer reports. Mirrors `pytorch/metrics.py`."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from switchyard.components.errors import UserError
from switchyard.components.tasks import (
    BINARY,
    CUSTOM,
    MULTICLASS,
    MULTILABEL,
    MULTIOUTPUT,
    QUANTILE,
    RANKING,
    REGRESSION,
    TASKS,
)
from switchyard.components.training.contract import TrainRequest

_ACTIVATIONS = {"sigmoid": keras.ops.sigmoid, "softmax": keras.ops.softmax, "identity": lambda x: x}


def metrics(request: TrainRequest) -> list[Any]:
    """Returns new metrics of one split: the task's, which take outputs (B, outputs), and the user's; the loss is Keras' own."""
    own = request.hooks.metrics(request.spec, keras.metrics.Metric)

    def mae() -> Any:
        error = keras.losses.mean_absolute_error
        return keras.metrics.MeanMetricWrapper(lambda y, output: error(y, activated(output, request)), name="mae")

    of_task = {
        BINARY: lambda: [
            keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy"),
            keras.metrics.AUC(from_logits=True, name="auc"),
        ],
        MULTICLASS: lambda: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        REGRESSION: lambda: [mae()],
        QUANTILE: list,
        RANKING: list,
        CUSTOM: list,
        MULTIOUTPUT: lambda: [mae()],
        MULTILABEL: lambda: [
            keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy"),
            keras.metrics.AUC(from_logits=True, multi_label=True, num_labels=request.spec.outputs, name="auc"),
        ],
    }[request.spec.task]()
    return [*of_task, *(_OwnMetric(name, metric, request) for name, metric in own.items())]


class _OwnMetric(keras.metrics.Metric):
    """A metric of the user's, which receives predictions in place of logits and weighs all rows of a weight above 0 the same.

    Raises:
        UserError: the metric's `update_state` does not take weights.
    """

    def __init__(self, name: str, metric: keras.metrics.Metric, request: TrainRequest) -> None:
        super().__init__(name=name)
        # Rows of weight 0 and padding of workers do not count.
        parameters = inspect.signature(metric.update_state).parameters.values()
        if not any(p.name == "sample_weight" or p.kind is p.VAR_KEYWORD for p in parameters):
            raise UserError(
                f"trainer.model: build_metrics: update_state of the metric {name!r} has no parameter sample_weight; add "
                "sample_weight=None, and weigh the rows by it if it is not None"
            )
        task = TASKS[request.spec.task]
        self._metric, self._request = metric, request
        self._label = "int64" if task.has_probabilities else "float32"
        # Keras takes the last dimension of (B,) for the values of one row.
        self._shape = None if task.wide_labels else [-1] if task.name == MULTICLASS else [-1, 1]
        if request.spec.label_shape is not None:
            self._shape = [-1, *request.spec.label_shape]

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds labels, (B,), (B, 1) or (B, labels), and outputs (B, outputs)."""
        predicted = activated(keras.ops.cast(y_pred, "float32"), self._request)
        labels = keras.ops.cast(keras.ops.reshape(y_true, self._shape) if self._shape else y_true, self._label)
        counted = None if sample_weight is None else keras.ops.cast(keras.ops.reshape(sample_weight, [-1]) > 0, "float32")
        self._metric.update_state(labels, predicted, sample_weight=counted)

    def result(self) -> Any:
        """See the base class."""
        return self._metric.result()

    def reset_state(self) -> None:
        """See the base class."""
        self._metric.reset_state()


def activated(output: Any, request: TrainRequest) -> Any:
    """Returns what is served for a model's outputs, shape (B, outputs)."""
    if request.loss.of_log:
        return keras.ops.exp(output)
    return _ACTIVATIONS[TASKS[request.spec.task].activation](output)
