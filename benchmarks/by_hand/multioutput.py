"""The multioutput task without Switchyard, in plain PyTorch: prints the mean squared error of the test split, and of each label.

Usage: python -m benchmarks.by_hand.multioutput
"""

from __future__ import annotations

import json

from torch.nn import functional

from benchmarks.by_hand.data import LABELS, arrays
from benchmarks.by_hand.network import fit


def main() -> None:
    """Trains and prints."""
    names = LABELS["multioutput"]
    data = arrays("multioutput")
    outputs = fit(data, len(names), functional.mse_loss)
    errors = ((outputs - data["test"][1]) ** 2).mean(axis=0)
    each = {f"loss/{name}": round(float(error), 4) for name, error in zip(names, errors, strict=True)}
    print(json.dumps({"loss": round(float(errors.mean()), 4), **each}))


if __name__ == "__main__":
    main()
