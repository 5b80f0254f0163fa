"""The ranking task without Switchyard, in plain PyTorch and scikit-learn: prints NDCG of the test split's queries.

Usage: python -m benchmarks.by_hand.ranking
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.metrics import ndcg_score

from benchmarks.by_hand.data import arrays, frames
from benchmarks.by_hand.network import fit

# Queries of a batch, of about 10 rows each.
TOGETHER = 6


def listwise(labels: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Returns the mean over queries with a relevant row of the cross-entropy of softmax (Cao et al., 2007)."""
    losses = []
    for query in labels[:, 1].unique():
        relevance, scores = labels[labels[:, 1] == query, 0], output[labels[:, 1] == query, 0]
        if relevance.sum() > 0:
            losses.append(-(relevance / relevance.sum() * scores.log_softmax(dim=0)).sum())
    return torch.stack(losses).mean()


def batches(labels: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields the rows of some queries at a time, in a random order."""
    queries = labels[:, 1].unique()
    for chosen in queries[torch.randperm(len(queries))].split(TOGETHER):
        yield torch.isin(labels[:, 1], chosen).nonzero()[:, 0]


def main() -> None:
    """Trains and prints."""
    queries = {split: np.unique(frame.query_id, return_inverse=True)[1] for split, frame in frames("ranking").items()}
    data = {s: (x, np.column_stack([y, queries[s]]).astype(np.float32)) for s, (x, y) in arrays("ranking").items()}
    labels, scores = data["test"][1], fit(data, 1, listwise, batches=batches)[:, 0]
    found: dict[str, list[float]] = {"ndcg_10": [], "ndcg_5": []}
    for query in np.unique(labels[:, 1]):
        rows = labels[:, 1] == query
        if labels[rows, 0].any():
            gains = 2 ** labels[rows, 0] - 1
            for name, values in found.items():
                at = int(name.removeprefix("ndcg_"))
                values.append(ndcg_score([gains], [scores[rows]], k=at) if rows.sum() > 1 else 1.0)
    print(json.dumps({name: round(float(np.mean(values)), 4) for name, values in found.items()}))


if __name__ == "__main__":
    main()
