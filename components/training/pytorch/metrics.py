"""The task's metrics in PyTorch, computed by torchmetrics under the names that every trainer reports."""

from __future__ import annotations

from typing import Any, cast

import torch
import torchmetrics
from torch import nn

from switchyard.components.training.contract import TrainRequest

# Updates are flushed at whichever limit is reached first; outputs of many classes are large.
_STEPS_COUNTED_AT_ONCE, _VALUES_COUNTED_AT_ONCE = 64, 1 << 20


class Metrics(nn.Module):
    """The task's metrics of one split. Updates are buffered: one torchmetrics call costs as much as a step of a small model."""

    def __init__(self, request: TrainRequest, *, prefix: str) -> None:
        super().__init__()
        self._request, spec = request, request.spec
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._values = 0
        metrics: dict[str, nn.Module] = {f"{prefix}loss": torchmetrics.MeanMetric(nan_strategy="disable")}
        if spec.task == "binary":
            metrics[f"{prefix}accuracy"] = torchmetrics.classification.BinaryAccuracy(validate_args=False)
            metrics[f"{prefix}auc"] = torchmetrics.classification.BinaryAUROC(thresholds=200, validate_args=False)
        elif spec.task == "multiclass":
            metrics[f"{prefix}accuracy"] = torchmetrics.classification.MulticlassAccuracy(
                spec.outputs, average="micro", validate_args=False
            )
        else:
            metrics[f"{prefix}mae"] = torchmetrics.MeanAbsoluteError()
        self.metrics = nn.ModuleDict(metrics)

    def add(self, losses: torch.Tensor, output: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds one batch: losses (B,), output (B, outputs) and labels (B,)."""
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
        predicted = activated(output, self._request)
        predicted = predicted if self._request.spec.task == "multiclass" else predicted[:, 0]
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
    task = request.spec.task
    return output.sigmoid() if task == "binary" else output.softmax(dim=1) if task == "multiclass" else output
