"""The task's metrics in PyTorch, computed by torchmetrics under the names that every trainer reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torchmetrics
from torch import nn

from switchyard.components.tasks import BINARY, MULTICLASS, MULTILABEL, MULTIOUTPUT, RANKING, REGRESSION, TASKS
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.ledger import as_number

# Updates are flushed at whichever limit is reached first; outputs of many classes are large.
_STEPS_COUNTED_AT_ONCE, _VALUES_COUNTED_AT_ONCE = 64, 1 << 20
# Predictions that wait for the end of the epoch: to select the rows of a weight above 0 waits for a GPU.
_VALUES_SELECTED_AT_ONCE = 1 << 24

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: x.softmax(dim=1),
    "identity": lambda x: x,
}


class _Auroc(torchmetrics.classification.BinaryAUROC):
    """The area under the ROC curve at fixed thresholds, by a binary search per row.

    torchmetrics compares each row with each threshold, and its count waits for a GPU.
    """

    def update(self, preds: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Adds probabilities, shape (B,), labels of 0 and 1, shape (B,), and any weights, shape (B,)."""
        self.confmat: torch.Tensor = self.confmat + _confusion(preds, target, weights, cast(torch.Tensor, self.thresholds))


class _MultilabelAuroc(torchmetrics.classification.MultilabelAUROC):
    """The mean of the labels' areas under the ROC curve, counted as in `_Auroc`."""

    def update(self, preds: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Adds probabilities, shape (B, labels), labels of 0 and 1, shape (B, labels), and any weights, shape (B,)."""
        thresholds = cast(torch.Tensor, self.thresholds)
        each = [_confusion(preds[:, i], target[:, i], weights, thresholds) for i in range(preds.shape[1])]
        self.confmat: torch.Tensor = self.confmat + torch.stack(each, dim=1)


def _confusion(preds: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None, thresholds: torch.Tensor) -> torch.Tensor:
    """Returns the rows, or the sum of their weights, by threshold, label and whether they reach it, (thresholds, 2, 2)."""
    reached = torch.bucketize(preds.contiguous(), thresholds, right=True)  # number of thresholds at or below the probability
    each = torch.ones_like(reached) if weights is None else weights.to(torch.float64)
    counts = torch.zeros(2 * (len(thresholds) + 1), dtype=each.dtype, device=preds.device)
    counts.index_add_(0, reached + target * (len(thresholds) + 1), each)
    counts = counts.view(2, -1)
    above = counts.flip(1).cumsum(1).flip(1)[:, 1:]  # label x threshold: rows that reach it
    below = counts.sum(1, keepdim=True) - above
    return torch.stack([below, above], dim=-1).transpose(0, 1)


class _WeightedMean(torchmetrics.Metric):
    """The weighted accuracy of a classification, or the weighted mean absolute error of quantities.

    torchmetrics' MeanMetric, which looks for NaN in each update, waits for a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("weight", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, preds: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> None:
        """Adds predictions, labels and weights (B,).

        Probabilities are (B, classes) of class indices (B,), or (B,) of 0 and 1, or (B, labels) of as many; values are (B,) or
        (B, labels), like their labels.
        """
        if target.is_floating_point():
            values = (preds - target).abs()
        elif preds.ndim > target.ndim:
            values = (preds.argmax(dim=1) == target).float()
        else:
            values = ((preds > 0.5).long() == target).float()
        of_rows = values.mean(dim=1) if values.ndim > 1 else values
        self.total: torch.Tensor = self.total + (of_rows * weights).sum()
        self.weight: torch.Tensor = self.weight + weights.sum()

    def compute(self) -> torch.Tensor:
        """Returns the mean, shape ()."""
        return self.total / self.weight


class Metrics(nn.Module):
    """The task's metrics of one split. Updates are buffered: one torchmetrics call costs as much as a step of a small model."""

    def __init__(self, request: TrainRequest, *, prefix: str) -> None:
        super().__init__()
        self._request, spec = request, request.spec
        self._waiting: list[tuple[torch.Tensor, ...]] = []
        self._values = 0
        self._unselected: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._unselected_values = 0
        weighted = request.train.weighted
        metrics: dict[str, nn.Module] = {f"{prefix}loss": torchmetrics.MeanMetric(nan_strategy="disable")}
        if spec.task == BINARY:
            metrics[f"{prefix}accuracy"] = (
                _WeightedMean() if weighted else torchmetrics.classification.BinaryAccuracy(validate_args=False)
            )
            metrics[f"{prefix}auc"] = _Auroc(thresholds=200, validate_args=False)
        elif spec.task == MULTICLASS:
            metrics[f"{prefix}accuracy"] = (
                _WeightedMean()
                if weighted
                else torchmetrics.classification.MulticlassAccuracy(spec.outputs, average="micro", validate_args=False)
            )
        elif spec.task == MULTILABEL:
            metrics[f"{prefix}accuracy"] = (
                _WeightedMean() if weighted else torchmetrics.classification.BinaryAccuracy(validate_args=False)
            )
            metrics[f"{prefix}auc"] = _MultilabelAuroc(spec.outputs, thresholds=200, validate_args=False)
        elif spec.task in (REGRESSION, MULTIOUTPUT):
            metrics[f"{prefix}mae"] = _WeightedMean() if weighted else torchmetrics.MeanAbsoluteError()
        self._loss = f"{prefix}loss"
        own = request.hooks.metrics(spec, torchmetrics.Metric)
        self._own = {f"{prefix}{name}" for name in own}
        self.metrics = {**metrics, **{f"{prefix}{name}": metric for name, metric in own.items()}}
        # No ModuleDict, which refuses names of its own methods: a metric of the user's may be called `type`.
        self._moved = nn.ModuleList(self.metrics.values())

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

    def result(self) -> dict[str, float]:
        """Returns the metrics of all batches since the last call, and resets them."""
        if self._waiting:
            self._count()
        if self._unselected:
            self._select()
        found = {name: as_number(name, cast(Any, metric).compute()) for name, metric in self.metrics.items()}
        for metric in self.metrics.values():
            cast(Any, metric).reset()
        return found

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
        for name, metric in self.metrics.items():
            if name == self._loss:
                # Per row: torchmetrics 1.9 ignores the weights of a mean with nan_strategy="disable".
                cast(Any, metric).update(losses)
            elif name not in self._own:
                cast(Any, metric).update(predicted, label, *weights)
            elif not weights:
                cast(Any, metric).update(predicted, label)

    def _select(self) -> None:
        """Updates the user's metrics with the rows of a weight above 0."""
        predicted, label, counted = (torch.cat(each) for each in zip(*self._unselected, strict=True))
        self._unselected, self._unselected_values = [], 0
        rows = counted.nonzero()[:, 0]
        if len(rows):
            for name in self._own:
                cast(Any, self.metrics[name]).update(predicted[rows], label[rows])


def activated(output: torch.Tensor, request: TrainRequest) -> torch.Tensor:
    """Returns what is served for a model's outputs, shape (B, outputs)."""
    if request.loss.of_log:
        return output.exp()
    return _ACTIVATIONS[TASKS[request.spec.task].activation](output)
