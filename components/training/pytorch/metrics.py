"""The task's metrics in PyTorch, computed by torchmetrics under the names that every trainer reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torchmetrics
from torch import nn

from switchyard.components.tasks import BINARY, MULTICLASS, MULTILABEL, MULTIOUTPUT, REGRESSION, TASKS
from switchyard.components.training.contract import TrainRequest

# Updates are flushed at whichever limit is reached first; outputs of many classes are large.
_STEPS_COUNTED_AT_ONCE, _VALUES_COUNTED_AT_ONCE = 64, 1 << 20

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: x.softmax(dim=1),
    "identity": lambda x: x,
}


class _Auroc(torchmetrics.classification.BinaryAUROC):
    """The area under the ROC curve at fixed thresholds, by a binary search per row.

    torchmetrics compares each row with each threshold, and its count waits for a GPU.
    """

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Adds probabilities, shape (B,), and labels of 0 and 1, shape (B,)."""
        thresholds = cast(torch.Tensor, self.thresholds)
        reached = torch.bucketize(preds, thresholds, right=True)  # number of thresholds at or below the probability
        counts = torch.zeros(2 * (len(thresholds) + 1), dtype=torch.int64, device=preds.device)
        counts.index_add_(0, reached + target * (len(thresholds) + 1), torch.ones_like(reached))
        counts = counts.view(2, -1)
        above = counts.flip(1).cumsum(1).flip(1)[:, 1:]  # label x threshold: rows that reach it
        below = counts.sum(1, keepdim=True) - above
        self.confmat += torch.stack([below, above], dim=-1).transpose(0, 1)


class Metrics(nn.Module):
    """The task's metrics of one split. Updates are buffered: one torchmetrics call costs as much as a step of a small model."""

    def __init__(self, request: TrainRequest, *, prefix: str) -> None:
        super().__init__()
        self._request, spec = request, request.spec
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._values = 0
        metrics: dict[str, nn.Module] = {f"{prefix}loss": torchmetrics.MeanMetric(nan_strategy="disable")}
        if spec.task == BINARY:
            metrics[f"{prefix}accuracy"] = torchmetrics.classification.BinaryAccuracy(validate_args=False)
            metrics[f"{prefix}auc"] = _Auroc(thresholds=200, validate_args=False)
        elif spec.task == MULTICLASS:
            metrics[f"{prefix}accuracy"] = torchmetrics.classification.MulticlassAccuracy(
                spec.outputs, average="micro", validate_args=False
            )
        elif spec.task == MULTILABEL:
            metrics[f"{prefix}accuracy"] = torchmetrics.classification.BinaryAccuracy(validate_args=False)
            metrics[f"{prefix}auc"] = torchmetrics.classification.MultilabelAUROC(
                spec.outputs, thresholds=200, validate_args=False
            )
        elif spec.task in (REGRESSION, MULTIOUTPUT):
            metrics[f"{prefix}mae"] = torchmetrics.MeanAbsoluteError()
        self.metrics = nn.ModuleDict(metrics)

    def add(self, losses: torch.Tensor, output: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds one batch: losses (B,), output (B, outputs) and labels, (B,) or (B, labels)."""
        self._waiting.append((losses, output, labels))
        self._values += output.numel()
        if len(self._waiting) == _STEPS_COUNTED_AT_ONCE or self._values >= _VALUES_COUNTED_AT_ONCE:
            self._count()

    def result(self) -> dict[str, float]:
        """Returns the metrics of all batches since the last call, and resets them."""
        if self._waiting:
            self._count()
        found = {name: float(cast(Any, metric).compute()) for name, metric in self.metrics.items()}
        for metric in self.metrics.values():
            cast(Any, metric).reset()
        return found

    def _count(self) -> None:
        losses, outputs, labels = zip(*self._waiting, strict=True)
        self._waiting, self._values = [], 0
        output, label = torch.cat(outputs), torch.cat(labels)
        if self._request.spec.task == MULTILABEL:
            label = label.long()
        predicted = activated(output, self._request)
        predicted = predicted[:, 0] if self._request.spec.task in (BINARY, REGRESSION) else predicted
        for name, metric in self.metrics.items():
            if name.endswith("loss"):
                # Per row: torchmetrics 1.9 ignores the weights of a mean with nan_strategy="disable".
                cast(Any, metric).update(torch.cat(losses))
            else:
                cast(Any, metric).update(predicted, label)


def activated(output: torch.Tensor, request: TrainRequest) -> torch.Tensor:
    """Returns what is served for a model's outputs, shape (B, outputs)."""
    if request.loss.of_log:
        return output.exp()
    return _ACTIVATIONS[TASKS[request.spec.task].activation](output)
