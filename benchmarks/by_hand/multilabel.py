"""The multilabel task without Switchyard, in plain PyTorch: prints AUC and cross-entropy of the test split, and each label's AUC.

Usage: python -m benchmarks.by_hand.multilabel
"""

from __future__ import annotations

import json

import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from benchmarks.by_hand.data import LABELS, arrays
from benchmarks.by_hand.network import fit


def cross_entropy(labels: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Returns the mean over rows and labels."""
    return functional.binary_cross_entropy_with_logits(output, labels)


def main() -> None:
    """Trains and prints."""
    names = LABELS["multilabel"]
    data = arrays("multilabel")
    labels, outputs = data["test"][1], fit(data, len(names), cross_entropy)
    each = [float(roc_auc_score(labels[:, i], outputs[:, i])) for i in range(len(names))]
    micro = float(roc_auc_score(labels.ravel(), outputs.ravel()))
    loss = float(cross_entropy(torch.from_numpy(labels), torch.from_numpy(outputs)))
    found = {"auc": sum(each) / len(each), **{f"auc/{n}": auc for n, auc in zip(names, each, strict=True)}, "auc_micro": micro}
    print(json.dumps({name: round(value, 4) for name, value in {**found, "loss": loss}.items()}))


if __name__ == "__main__":
    main()
