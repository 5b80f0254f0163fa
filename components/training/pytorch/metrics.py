"""The task's metrics in PyTorch, under the names that every trainer reports; their formulas are torchmetrics'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from switchyard.components.tasks import BINARY, MULTICLASS, MULTILABEL, MULTIOUTPUT, RANKING, REGRESSION, TASKS
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.ledger import as_number
from switchyard.components.training.model_spec import ModelSpec

# Updates are flushed at whichever limit is reached first; outputs of many classes are large.
_STEPS_COUNTED_AT_ONCE, _VALUES_COUNTED_AT_ONCE = 64, 1 << 20
# Predictions that wait for the end of the epoch: to select the rows of a weight above 0 waits for a GPU.
_VALUES_SELECTED_AT_ONCE = 1 << 24
# Of the ROC curve, as in Keras.
_THRESHOLDS = 200

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: x.softmax(dim=1),
    "identity": lambda x: x,
}


@dataclass(frozen=True)
class _Metric:
    """A metric made of sums over rows.

    Attributes:
        sums: maps predictions, labels and any weights of rows to a tensor of sums.
        value: maps the sums of all rows to the metric, shape ().
        empty: the sums of no rows, on the CPU.
    """

    sums: Callable[..., torch.Tensor]
    value: Callable[[torch.Tensor], torch.Tensor]
    empty: torch.Tensor


def _mean(values: torch.Tensor) -> torch.Tensor:
    """Returns the sum of the values and their number, (2,)."""
    total = values.sum()
    return torch.stack([total, total.new_full((), values.numel())])


def _ratio(sums: torch.Tensor) -> torch.Tensor:
    return sums[0] / sums[1]


def _right(predicted: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns whether predictions are right, by label: probabilities (B, classes) of indices (B,), or as many as 0 and 1."""
    if predicted.ndim > labels.ndim:
        return predicted.argmax(dim=1) == labels
    return (predicted > 0.5) == labels.bool()


def _accuracy(predicted: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return _mean(_right(predicted, labels))


def _distance(predicted: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return _mean((predicted - labels).abs())


def _weighted(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Returns the sum of the rows' values, weighted, and that of their weights, (2,); a row's value is its labels' mean."""
    of_rows = values.float().mean(dim=1) if values.ndim > 1 else values.float()
    return torch.stack([(of_rows * weights).sum(), weights.sum()])


def _weighted_accuracy(predicted: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return _weighted(_right(predicted, labels), weights)


def _weighted_distance(predicted: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return _weighted((predicted - labels).abs(), weights)


def roc_counts(predicted: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the rows, or the sum of their weights, by label and by how many thresholds they reach, (labels, 2, thresholds + 1).

    A binary search per row: to compare each row with each threshold is slower, and `torch.bincount` waits for a GPU.
    """
    thresholds = torch.linspace(0, 1, _THRESHOLDS, device=predicted.device)
    counts = []
    for scores, labels_of in zip(predicted.T, labels.T, strict=True) if predicted.ndim > 1 else [(predicted, labels)]:
        reached = torch.bucketize(scores.contiguous(), thresholds, right=True)
        each = torch.ones_like(reached) if weights is None else weights.to(torch.float64)
        counted = torch.zeros(2 * (_THRESHOLDS + 1), dtype=each.dtype, device=predicted.device)
        counts.append(counted.index_add_(0, reached + labels_of * (_THRESHOLDS + 1), each).view(2, -1))
    return torch.stack(counts)


def roc_area(counts: torch.Tensor) -> torch.Tensor:
    """Returns the mean of the labels' areas under the ROC curve, by the trapezoidal rule; that of one class only is 0."""
    above = counts.flip(2).cumsum(2)[..., :_THRESHOLDS]  # from the highest threshold on: rows that reach it
    total = counts.sum(2, keepdim=True)
    rates = torch.where(total > 0, above / total, 0.0)
    return torch.trapezoid(rates[:, 1], rates[:, 0], dim=1).mean()


def _metrics(spec: ModelSpec, *, weighted: bool) -> dict[str, _Metric]:
    """Returns the task's metrics by name, without the loss."""
    real, whole = torch.zeros(2), torch.zeros(2, dtype=torch.int64)
    accuracy = _Metric(_weighted_accuracy, _ratio, real) if weighted else _Metric(_accuracy, _ratio, whole)
    if spec.task == MULTICLASS:
        return {"accuracy": accuracy}
    if spec.task in (BINARY, MULTILABEL):
        labels = spec.outputs if spec.task == MULTILABEL else 1
        counts = torch.zeros(labels, 2, _THRESHOLDS + 1, dtype=torch.float64 if weighted else torch.int64)
        return {"accuracy": accuracy, "auc": _Metric(roc_counts, roc_area, counts)}
    if spec.task in (REGRESSION, MULTIOUTPUT):
        return {"mae": _Metric(_weighted_distance if weighted else _distance, _ratio, real)}
    return {}


class Metrics(nn.Module):
    """The task's metrics of one split. Updates are buffered: one costs as much as a step of a small model."""

    def __init__(self, request: TrainRequest, *, prefix: str) -> None:
        super().__init__()
        self._request, spec = request, request.spec
        self._waiting: list[tuple[torch.Tensor, ...]] = []
        self._values = 0
        self._unselected: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._unselected_values = 0
        self._prefix = prefix
        self._metrics = {"loss": _Metric(_mean, _ratio, torch.zeros(2)), **_metrics(spec, weighted=request.train.weighted)}
        self._sums: dict[str, torch.Tensor] = {}
        self._own = _own(request)
        # No ModuleDict, which refuses names of its own methods: a metric of the user's may be called `type`.
        self._moved = nn.ModuleList(self._own.values())

    def add(self, losses: torch.Tensor, output: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Adds one batch.

        Args:
            losses: weighted losses (B,).
            output: (B, outputs).
            labels: (B,), or (B, labels) of several columns.
            weights: (B,) of weighted examples.
        """
        self._waiting.append((losses, output, labels) if weights is None else (losses, output, labels, weights))
        self._values += output.numel()
        if len(self._waiting) == _STEPS_COUNTED_AT_ONCE or self._values >= _VALUES_COUNTED_AT_ONCE:
            self._count()

    def result(self, device: torch.device | str = "cpu") -> dict[str, float]:
        """Returns the metrics of all batches of all workers since the last call, and resets them. Collective call.

        Args:
            device: where this worker's batches are, of which it may have had none.
        """
        if self._waiting:
            self._count()
        if self._unselected:
            self._select()
        sums, self._sums = self._sums, {}
        values = [metric.value(_of_all(sums.get(name), metric.empty, device)) for name, metric in self._metrics.items()]
        # The device is read once.
        found = dict(zip(self._metrics, torch.stack(values).tolist(), strict=True))
        for name, own in self._own.items():
            found[name] = as_number(f"{self._prefix}{name}", own.compute())
            own.reset()
        return {f"{self._prefix}{name}": value for name, value in found.items()}

    def _count(self) -> None:
        losses, output, label, *weights = (torch.cat(each) for each in zip(*self._waiting, strict=True))
        self._waiting, self._values = [], 0
        spec = self._request.spec
        if spec.task == MULTILABEL:
            label = label.long()
        if spec.label_shape is not None:
            label = label.reshape(-1, *spec.label_shape)
        predicted = activated(output, self._request)
        predicted = predicted[:, 0] if spec.task in (BINARY, REGRESSION, RANKING) else predicted
        if weights and self._own:
            self._unselected.append((predicted, label, weights[0] > 0))
            self._unselected_values += predicted.numel()
            if self._unselected_values >= _VALUES_SELECTED_AT_ONCE:
                self._select()
        for name, metric in self._metrics.items():
            sums = metric.sums(losses) if name == "loss" else metric.sums(predicted, label, *weights)
            self._sums[name] = self._sums[name] + sums if name in self._sums else sums
        for own in () if weights else self._own.values():
            own.update(predicted, label)

    def _select(self) -> None:
        """Updates the user's metrics with the rows of a weight above 0."""
        predicted, label, counted = (torch.cat(each) for each in zip(*self._unselected, strict=True))
        self._unselected, self._unselected_values = [], 0
        rows = counted.nonzero()[:, 0]
        if len(rows):
            for own in self._own.values():
                own.update(predicted[rows], label[rows])


def _own(request: TrainRequest) -> dict[str, Any]:
    """Returns the user's metrics by name."""
    if not request.hooks.build_metrics:
        return {}
    import torchmetrics  # takes a second

    return request.hooks.metrics(request.spec, torchmetrics.Metric)


def _of_all(sums: torch.Tensor | None, empty: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Returns the sums of all workers."""
    own = empty.to(device) if sums is None else sums
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        own = own.clone()
        torch.distributed.all_reduce(own)
    return own


def activated(output: torch.Tensor, request: TrainRequest) -> torch.Tensor:
    """Returns what is served for a model's outputs, shape (B, outputs)."""
    if request.loss.of_log:
        return output.exp()
    return _ACTIVATIONS[TASKS[request.spec.task].activation](output)
