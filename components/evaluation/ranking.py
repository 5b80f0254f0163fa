"""Metrics of a ranking: exact, of each query over all of its rows, with rows of equal scores in the mean of all their orders."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from switchyard.components.ingest.keys import key_hashes

# Name -> the number of first rows that count; None: all.
_CUTS = {"ndcg": None, "ndcg_5": 5, "ndcg_10": 10}


def query_codes(column: pa.Array, missing: Iterable[str] = ()) -> np.ndarray:
    """Returns a number for the query of each row, float64 (n,), the same in every file and format: 53 bits of `key_hashes`."""
    return (key_hashes(column, np.zeros(len(column), np.uint64), missing) >> np.uint64(11)).astype(np.float64)


def query_values(labels: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Returns metric -> its value of each query, float64 (queries,).

    Queries without a relevant row have no order and are left out. With y the relevance and r the rank from 1:

    - `ndcg`: sum of (2^y - 1) / log2(r + 1) divided by its largest possible value (Burges et al., 2005); `ndcg_5` and `ndcg_10`
      over the first 5 and 10 ranks of both.
    - `map`: the mean over the relevant rows (y above 0) of the share of relevant rows up to them.
    - `loss`: -sum of y / sum(y) * log softmax(scores) (listwise cross-entropy).

    Rows of equal scores count as the mean over all of their orders (McSherry and Najork, Computing information retrieval
    performance measures efficiently in the presence of tied scores, 2008).

    Args:
        labels: relevance and query, float64 (n, 2).
        scores: (n, 1).
    """
    relevance, query = labels[:, 0], np.unique(labels[:, 1], return_inverse=True)[1].reshape(-1)
    kept = np.bincount(query, relevance > 0) > 0
    rows = kept[query]
    query = (np.cumsum(kept) - 1)[query[rows]]
    relevance, score = relevance[rows], scores[rows, 0].astype(np.float64)
    order = np.lexsort((-score, query))
    y, q, s = relevance[order], query[order], score[order]
    ideal = relevance[np.lexsort((-relevance, query))]
    sizes = np.bincount(q)
    place = np.arange(len(q)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    found = _gains(y, ideal, q, s, place)
    found["map"] = _precision(y > 0, q, s, place)
    found["loss"] = _listwise(y, q, s)
    return found


def _ties(q: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each row of sorted rows the index of its run of equal scores, and the first row of each run."""
    new = np.ones(len(q), bool)
    new[1:] = (q[1:] != q[:-1]) | (s[1:] != s[:-1])
    return np.cumsum(new) - 1, np.flatnonzero(new)


def _gains(y: np.ndarray, ideal: np.ndarray, q: np.ndarray, s: np.ndarray, place: np.ndarray) -> dict[str, np.ndarray]:
    run, _ = _ties(q, s)
    gain, best = np.exp2(y) - 1, np.exp2(ideal) - 1
    mean = np.bincount(run, gain) / np.bincount(run) if len(run) else gain
    found = {}
    for name, cut in _CUTS.items():
        discount = np.where(place < (len(q) if cut is None else cut), 1 / np.log2(place + 2), 0.0)
        found[name] = np.bincount(q, mean[run] * discount) / np.bincount(q, best * discount)
    return found


def _precision(relevant: np.ndarray, q: np.ndarray, s: np.ndarray, place: np.ndarray) -> np.ndarray:
    run, first = _ties(q, s)
    size, hits = np.bincount(run), np.bincount(run, relevant)
    # Relevant rows of the query before the run.
    before = np.cumsum(hits) - hits
    of_query = np.bincount(q, relevant)
    before -= (np.cumsum(of_query) - of_query)[q[first]]
    n, r, j = size[run], hits[run], np.arange(len(q)) - first[run]
    others = np.divide(j * (r - 1), n - 1, out=np.zeros(len(q)), where=n > 1)
    return np.bincount(q, r / n * (before[run] + 1 + others) / (place + 1)) / of_query


def _listwise(y: np.ndarray, q: np.ndarray, s: np.ndarray) -> np.ndarray:
    largest = np.full(int(q.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(largest, q, s)
    moved = s - largest[q]
    return np.log(np.bincount(q, np.exp(moved))) - np.bincount(q, y * moved) / np.bincount(q, y)
