"""The quantile task without Switchyard, in plain PyTorch: prints pinball loss and coverage of the test split.

Usage: python -m benchmarks.by_hand.quantile
"""

from __future__ import annotations

import json

import numpy as np
import torch

from benchmarks.by_hand.data import arrays
from benchmarks.by_hand.network import fit

QUANTILES = np.array([0.1, 0.5, 0.9], dtype=np.float32)


def pinball(labels: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Returns the mean pinball loss (Koenker and Bassett, 1978)."""
    error, q = labels - output, torch.from_numpy(QUANTILES)
    return torch.maximum(q * error, (q - 1) * error).mean()


def main() -> None:
    """Trains and prints."""
    data = arrays("quantile")
    scores = np.sort(fit(data, len(QUANTILES), pinball), axis=1)
    labels = data["test"][1]
    error = labels - scores
    loss = np.maximum(QUANTILES * error, (QUANTILES - 1) * error).mean()
    coverage = ((scores[:, 0] <= labels[:, 0]) & (labels[:, 0] <= scores[:, -1])).mean()
    print(json.dumps({"loss": round(float(loss), 4), "coverage": round(float(coverage), 4)}))


if __name__ == "__main__":
    main()
