"""Estimates the uncertainty of metrics and of differences between models: a paired Poisson bootstrap over rows, or queries.

Each replicate weights every row by an independent Poisson(1) number, times its sample weight, the same for all models (Hanley and
MacGibbon, 2006; the method of TFMA's `POISSON_BOOTSTRAP`), so that differences between models are paired. Rows of one cluster
have one number: windows of one period, see `periods`, and rows of one `data.split_key` (Field and Welsh, Bootstrapping clustered
data, 2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from switchyard.components.evaluation.curves import bucket_of, curve_bins, defined_mean, roc_area
from switchyard.components.evaluation.periods import FEWEST
from switchyard.components.evaluation.ranking import query_values
from switchyard.components.evaluation.row_values import ROW_VALUES
from switchyard.components.tasks import BINARY, MULTICLASS, MULTILABEL, RANKING, REGRESSION, TASKS

SEED = 20_250_101
_WORK = 3e7
FEWEST_DRAWS, MOST_DRAWS = 200, 1000
# Row weights per block, sized to fit a processor's cache.
_HELD = 250_000

Weighted = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rows:
    """The evaluated rows.

    Attributes:
        task: name of a task.
        labels: class index, or value for a regression; float64 (n,), (n, labels) of several columns, or (n, 2) of a ranking:
            the relevance and the query, see `ranking.query_codes`; (n, numbers) of a custom task, (n, 0) without a label.
        scores: model -> probabilities, or values for a regression; float32 (n, outputs); NaN where a champion cannot judge a row.
        there: model -> rows that it can judge, bool (n,); all rows for models without an entry.
        targets: see `DatasetSummary.targets`.
        weights: sample weights, float64 (n,); None weighs all rows the same.
        last: of windows, the label's last past value, float64 (n,).
        output_shape: see `DatasetSummary.output_shape`.
        label_shape: see `DatasetSummary.label_shape`.
        clusters: what each row is drawn with, (n,): of windows the period, with a split key the key's hash; None draws each row
            by itself.
        slices: see `coded_slices`; of those that the user's metrics are measured in.
    """

    task: str
    labels: np.ndarray
    scores: Mapping[str, np.ndarray]
    there: Mapping[str, np.ndarray] = field(default_factory=dict)
    targets: Sequence[str] = ()
    weights: np.ndarray | None = None
    last: np.ndarray | None = None
    output_shape: Sequence[int] = ()
    label_shape: Sequence[int] = ()
    clusters: np.ndarray | None = None
    slices: Sequence[tuple[np.ndarray, Sequence[str]]] = ()

    @property
    def each(self) -> np.ndarray:
        """The weight of each row, float64 (n,)."""
        return np.ones(len(self.labels)) if self.weights is None else self.weights

    @property
    def together(self) -> np.ndarray | None:
        """The index of the cluster of each row, int64 (n,); None if each row is drawn by itself."""
        return None if self.clusters is None else np.unique(self.clusters, return_inverse=True)[1].reshape(-1)

    @property
    def has_intervals(self) -> bool:
        """Whether what is drawn is enough for intervals."""
        return self.clusters is None or len(np.unique(self.clusters)) >= FEWEST

    def judged(self, model: str) -> np.ndarray:
        """Returns the rows that a model can judge, bool (n,); its scores there may still be NaN or infinite."""
        return self.there.get(model, np.ones(len(self.labels), dtype=bool))

    def of(self, models: Sequence[str]) -> Rows:
        """Returns all rows with the scores of the given models."""
        return replace(self, scores={m: self.scores[m] for m in models})

    def where(self, rows: np.ndarray) -> Rows:
        """Returns the rows selected by a mask, bool (n,)."""
        if rows.all():
            return self
        scores, there = ({m: values[rows] for m, values in by_model.items()} for by_model in (self.scores, self.there))
        weights = None if self.weights is None else self.weights[rows]
        last = None if self.last is None else self.last[rows]
        clusters = None if self.clusters is None else self.clusters[rows]
        slices = [(codes[rows], names) for codes, names in self.slices]
        optional: dict[str, Any] = {"weights": weights, "last": last, "clusters": clusters, "slices": slices}
        return replace(self, labels=self.labels[rows], scores=scores, there=there, **optional)


def replicates(rows: Rows, metrics: Sequence[str] | None = None) -> dict[str, dict[str, np.ndarray]]:
    """Returns model -> metric -> the metric's value in each replicate, float64 (replicates,).

    Args:
        rows: the weights depend only on the number of rows (of a ranking: queries) and their clusters, not on the models. Of
            too few clusters no metric has replicates.
        metrics: metrics to compute; None computes all.
    """
    n = units(rows.task, rows.labels)
    count = int(np.clip(_WORK / max(1, n), FEWEST_DRAWS, MOST_DRAWS))
    functions = {m: weighted_metrics(rows.task, rows.labels, s, rows.targets) for m, s in rows.scores.items()}
    if metrics is not None:
        functions = {m: {name: f[name] for name in metrics} for m, f in functions.items()}
    if not any(functions.values()) or not rows.has_intervals:
        return {model: {} for model in functions}
    found = {m: {name: np.empty(count) for name in f} for m, f in functions.items()}
    start = 0
    for drawn in draws(n, count, rows.together):
        weights = drawn if rows.weights is None else drawn * rows.weights
        for model, by_name in functions.items():
            for name, function in by_name.items():
                found[model][name][start : start + len(weights)] = function(weights)
        start += len(weights)
    return found


def draws(n: int, count: int, together: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yields how often each of `n` units is drawn in each of `count` replicates, float64 (some replicates, n).

    Units of the same index in `together`, int64 (n,), are drawn together.
    """
    random, poisson = np.random.default_rng(SEED), _poisson_table()
    at_a_time = max(1, _HELD // max(1, n))
    drawn = n if together is None else int(together.max()) + 1
    for start in range(0, count, at_a_time):
        times = poisson[random.integers(0, len(poisson), (min(at_a_time, count - start), drawn), dtype=np.uint16)]
        yield times if together is None else times[:, together]


def units(task: str, labels: np.ndarray) -> int:
    """Returns the number of what is drawn and weighted: rows, or of a ranking the queries with a relevant row."""
    return len(np.unique(labels[labels[:, 0] > 0, 1])) if TASKS[task].groups else len(labels)


def unit_weights(task: str, labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Returns the weight of each of the `units`, float64 (units,): the rows' sample weights, (n,), or 1; a ranking has none."""
    return np.ones(units(task, labels)) if weights is None else weights


def _poisson_table() -> np.ndarray:
    """Returns a lookup table of Poisson(1) numbers by probability, float64 (65536,); a lookup costs a tenth of a random draw."""
    size = 1 << 16
    likely = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(12)])
    return np.searchsorted(likely, (np.arange(size) + 0.5) / size).astype(np.float64)


def weighted_metrics(task: str, labels: np.ndarray, scores: np.ndarray, targets: Sequence[str] = ()) -> dict[str, Weighted]:
    """Returns metric -> function from weights (..., n) of `units` to the metric's values (...), NaN where undefined."""
    if task in ROW_VALUES:
        means = {name: _mean(values) for name, values in ROW_VALUES[task](labels, scores, targets).items()}
        return means | (_areas(labels, scores, targets) if task == MULTILABEL else {})
    return _WEIGHTED[task](labels, scores)


def _areas(labels: np.ndarray, scores: np.ndarray, targets: Sequence[str]) -> dict[str, Weighted]:
    p, positive = scores.astype(np.float64), labels == 1
    each = {f"auc/{t}": _auc(p[:, i], positive[:, i]) for i, t in enumerate(targets)}
    together = _auc(p.ravel(), positive.ravel())
    return {
        "auc": lambda w: defined_mean([area(w) for area in each.values()]),
        **each,
        "auc_micro": lambda w: together(np.repeat(w, len(targets), axis=-1)),
    }


def _regression(labels: np.ndarray, scores: np.ndarray) -> dict[str, Weighted]:
    error = scores[:, 0].astype(np.float64) - labels
    return {"loss": _mean(error**2), "mae": _mean(np.abs(error))}


def _multiclass(labels: np.ndarray, scores: np.ndarray) -> dict[str, Weighted]:
    index = labels.astype(int)
    chosen = scores[np.arange(len(index)), index].astype(np.float64)
    return {"loss": _mean(-np.log(chosen)), "accuracy": _mean((scores.argmax(axis=1) == index).astype(np.float64))}


def _binary(labels: np.ndarray, scores: np.ndarray) -> dict[str, Weighted]:
    p = scores[:, 0].astype(np.float64)
    positive = labels == 1
    predicted = p > 0.5
    tp, fp, fn = (mask.astype(np.float64) for mask in (positive & predicted, ~positive & predicted, positive & ~predicted))
    return {
        "loss": _mean(-np.log(np.where(positive, p, 1 - p))),
        "accuracy": _mean((positive == predicted).astype(np.float64)),
        "auc": _auc(p, positive),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def _ranking(labels: np.ndarray, scores: np.ndarray) -> dict[str, Weighted]:
    return {name: _mean(values) for name, values in query_values(labels, scores).items()}


_WEIGHTED = {BINARY: _binary, MULTICLASS: _multiclass, REGRESSION: _regression, RANKING: _ranking}


def _mean(values: np.ndarray) -> Weighted:
    return lambda w: _divide(w @ values, w.sum(axis=-1))


def _ratio(above: np.ndarray, below: np.ndarray) -> Weighted:
    return lambda w: _divide(w @ above, w @ below)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)
    return found


def _auc(p: np.ndarray, positive: np.ndarray) -> Weighted:
    """Returns the weighted area under the ROC curve, over the same bins as the metric."""
    bins = curve_bins(bucket_of(p))
    order = np.argsort(bins, kind="stable")
    starts = np.unique(bins[order], return_index=True)[1]
    in_order = positive[order]

    def area(w: np.ndarray) -> np.ndarray:
        sorted_ = w[..., order]
        return roc_area(*(np.add.reduceat(sorted_ * mine, starts, axis=-1) for mine in (in_order, ~in_order)))

    return area


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float] | None:
    """Returns the two-sided percentile interval, or None if fewer than half of the replicates are finite."""
    finite = values[np.isfinite(values)]
    if len(finite) < len(values) / 2:
        return None
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
