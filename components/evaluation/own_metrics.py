"""The user's metrics: NumPy functions over all rows of the held-out split."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import FEWEST_DRAWS, MOST_DRAWS, Rows, draws
from switchyard.components.metrics import METRICS
from switchyard.components.progress import warn
from switchyard.components.tasks import TASKS
from switchyard.components.user_code.loading import blamed, folder_of, load_function

_KEY = "evaluation.metrics"
# Rows times replicates: a function in Python costs more than the sums of the built-in metrics.
_WORK = 3e6


def own_names(file: str | Path | None) -> list[str]:
    """Returns the names of a file's metrics, its top-level functions without a leading `_`, without importing it.

    Raises:
        UserError: the file has none, or one has the name of a built-in metric.
    """
    if file is None:
        return []
    body = ast.parse(Path(file).read_bytes()).body
    names = [node.name for node in body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    if not names:
        raise UserError(f"{_KEY}: {Path(file).name} has no function; define metric(labels, scores) in it")
    for name in names:
        if name in {metric.name for metric in METRICS}:
            raise UserError(f"{_KEY}: {Path(file).name}: {name!r} is a built-in metric; rename the function")
    return names


def own_metrics(file: str | None, rows: Rows, model: str) -> Mapping[str, float]:
    """Returns the user's metrics of a model; without those that are undefined, NaN or infinite, of which it warns.

    A champion's probability of classes that the data lacks is left out, so that all models have the same outputs. A model with
    predictions that are not finite has no metrics.

    Raises:
        UserError: a function fails, or returns no number.
    """
    labels, scores = _arrays(rows, model)
    found: dict[str, float] = {}
    if not np.isfinite(scores).all():
        return found
    for name, value in _values(file, rows, labels, scores):
        if math.isfinite(value):
            found[name] = value
        else:
            warn(f"{_KEY}: {name} of {model} is undefined: the function returned {value}")
    return found


def coded_slices(table: pa.Table, slices: Sequence[Sequence[str]]) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yields, of each list of columns, the slice of each row, int64 (n,), as an index, and the slices' names as in results."""
    for columns in slices:
        parts = [pc.binary_join_element_wise(pa.scalar(n), table[f"slice:{n}"], "=") for n in sorted(set(columns))]
        encoded = pc.binary_join_element_wise(*parts, ", ").combine_chunks().dictionary_encode()
        yield encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def own_slices(file: str | None, rows: Rows, model: str, least: int) -> dict[str, dict[str, float]]:
    """Returns slice -> the user's metrics of a model on its rows, without those that are undefined there or fail.

    Args:
        file: the user's file.
        rows: rows with their `slices`.
        model: one of the rows' models; with predictions that are not finite it has none.
        least: rows of a slice, at least; smaller ones are left out.
    """
    labels, scores = _arrays(rows, model)
    functions = {name: _function(file, name) for name in own_names(file) if rows.slices}
    found: dict[str, dict[str, float]] = {}
    if not functions or not np.isfinite(scores).all():
        return found
    for codes, names in rows.slices:
        order = np.argsort(codes, kind="stable")
        for chosen in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
            its = None if labels is None else labels[chosen]
            if len(chosen) < least:
                continue
            values = {
                name: _value(function, its, scores[chosen], {"weights": rows.each[chosen]} if weighted else {})
                for name, (function, weighted) in functions.items()
            }
            found[names[codes[chosen[0]]]] = {name: value for name, value in values.items() if math.isfinite(value)}
    return found


def try_metrics(file: str | None, rows: Rows) -> None:
    """Calls the user's metrics on a few rows, so that their errors appear before the run; raises UserError as `own_metrics`."""
    for model in rows.scores:
        for _ in _values(file, rows, *_arrays(rows, model), " on a few rows with the outputs of an untrained model"):
            pass


def _values(
    file: str | None, rows: Rows, labels: np.ndarray | None, scores: np.ndarray, where: str = ""
) -> Iterator[tuple[str, float]]:
    for name in own_names(file):
        function, weighted = _function(file, name)
        if rows.weights is not None and not weighted:
            warn(f"{_KEY}: {name} has no parameter `weights`, so it weighs all rows the same, unlike the other metrics")
        with blamed(f"{_KEY}: {name} failed{where}: ", folder_of(function)):
            value = function(_copied(labels), scores.copy(), **({"weights": rows.each.copy()} if weighted else {}))
        if np.ndim(value) or not np.issubdtype(np.asarray(value).dtype, np.number) or np.iscomplexobj(value):
            raise UserError(f"{_KEY}: {name} must return a number, received {type(value).__name__}")
        yield name, float(value)


def own_replicates(file: str, name: str, rows: Rows) -> dict[str, np.ndarray]:
    """Returns model -> the value of one of the user's metrics in each replicate of a bootstrap, float64 (replicates,).

    A function with a parameter `weights` receives how often each row is drawn, times its sample weight. Any other function, and
    each of a ranking, receives each row as often as it is drawn. The value is NaN where the function is undefined, as it may be
    on few rows; a model with predictions that are not finite has none.

    Args:
        file: the user's file.
        name: one of its functions, which `own_metrics` has called.
        rows: the rows, of which the same are drawn for all models; of a ranking whole queries, of others whole clusters, of
            which a few have no replicates.
    """
    if not rows.has_intervals:
        return {}
    function, weighted = _function(file, name)
    grouped = TASKS[rows.task].groups
    group = np.unique(rows.labels[:, 1], return_inverse=True)[1] if grouped else np.arange(len(rows.labels))
    arrays = {model: _arrays(rows, model) for model in rows.scores}
    arrays = {model: (labels, scores) for model, (labels, scores) in arrays.items() if np.isfinite(scores).all()}
    n = int(group.max()) + 1
    count = int(np.clip(_WORK / max(1, len(rows.labels)), FEWEST_DRAWS, MOST_DRAWS))
    found: dict[str, list[float]] = {model: [] for model in arrays}
    chosen: Any
    copy: Any
    for times in (one for block in draws(n, count, rows.together) for one in block):
        by_weight = weighted and not grouped
        chosen, copy = (slice(None), None) if by_weight else _drawn(times[group])
        weights = {"weights": times * rows.each if by_weight else rows.each[chosen]} if weighted else {}
        for model, (labels, scores) in arrays.items():
            its = None if labels is None else labels[chosen].copy()
            if grouped and its is not None:  # a query that is drawn twice is two queries
                its[:, 1] = group[chosen] + copy * n
            found[model].append(_value(function, its, scores[chosen].copy(), weights))
    return {model: np.asarray(values) for model, values in found.items()}


def _drawn(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the index of each row, as often as it is drawn, and the number of the copy, int64 (drawn rows,) each."""
    rows = np.repeat(np.arange(len(times)), times.astype(np.int64))
    first = np.concatenate([[0], np.cumsum(times.astype(np.int64))[:-1]])
    return rows, np.arange(len(rows)) - first[rows]


def _copied(labels: np.ndarray | None) -> np.ndarray | None:
    return None if labels is None else labels.copy()


def _value(
    function: Callable[..., Any], labels: np.ndarray | None, scores: np.ndarray, weights: Mapping[str, np.ndarray]
) -> float:
    try:
        value = float(function(labels, scores, **{name: values.copy() for name, values in weights.items()}))
    except Exception:  # undefined on these rows, for example the area under a curve of one class
        return math.nan
    return value if math.isfinite(value) else math.nan


def _arrays(rows: Rows, model: str) -> tuple[np.ndarray | None, np.ndarray]:
    """Returns labels and scores as the user's functions receive them."""
    task = TASKS[rows.task]
    if task.own_shape:
        labels = rows.labels.reshape(-1, *rows.label_shape) if rows.labels.shape[1] else None
        return labels, rows.scores[model].reshape(-1, *rows.output_shape)
    labels = rows.labels.astype(np.int64) if task.has_classes or task.has_probabilities else rows.labels
    return labels, rows.scores[model][:, : min(each.shape[1] for each in rows.scores.values())]


def _function(file: str | None, name: str) -> tuple[Callable[..., Any], bool]:
    """Returns one of the user's functions, and whether it takes weights."""
    function = load_function(str(file), name)
    return function, "weights" in inspect.signature(function).parameters
