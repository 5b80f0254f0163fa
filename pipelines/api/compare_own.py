"""Measures versions by metrics of the user's own, whose functions no bundle contains, and reads the labels of a custom task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchyard.components.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from switchyard.components.evaluation.bootstrap import Rows

Change = tuple[float | None, tuple[float, float] | None]


def measure_own(file: Path | None, rows: Rows) -> tuple[dict[str, Mapping[str, float]], dict[str, Change]]:
    """Returns model -> the user's metrics, and metric -> the second model's value minus the first's, with its interval.

    Args:
        file: the user's file; without one there are no metrics.
        rows: rows with the scores of two models.

    Raises:
        UserError: a function fails, or returns no number.
    """
    from switchyard.components.evaluation.bootstrap import interval
    from switchyard.components.evaluation.own_metrics import own_metrics, own_names, own_replicates

    measured = {model: own_metrics(str(file), rows, model) if file else {} for model in rows.scores}
    first, second = measured
    changes: dict[str, Change] = {}
    for metric in own_names(file):
        samples = own_replicates(str(file), metric, rows)
        values = [measured[model][metric] for model in (first, second) if metric in measured[model]]
        change = float(values[1] - values[0]) if len(values) == 2 else None
        drawn = interval(samples[second] - samples[first]) if {first, second} <= samples.keys() else None
        changes[metric] = change, drawn
    return measured, changes


def custom_labels(frame: pd.DataFrame, labels: Sequence[str], shape: Sequence[int], data: Path) -> np.ndarray:
    """Returns the labels of a custom task, float64 (n, numbers), or (n, 0) without a label.

    Args:
        frame: rows, each with a label, indexed by their numbers in the file.
        labels: the label column, or none.
        shape: the shape of a row's label; () of a number.
        data: the file, for errors.

    Raises:
        UserError: a label has another number of numbers, or a gap.
    """
    import numpy as np

    if not labels:
        return np.empty((len(frame), 0))
    [label], wanted = labels, math.prod(shape)
    rows = []
    for number, value in frame[label].items():
        try:
            rows.append([float(each) for each in _flat(value)])
        except (TypeError, ValueError):
            rows.append([])
        if len(rows[-1]) != wanted or not np.isfinite(rows[-1]).all():
            raise UserError(f"{data}: {label} of row {number} is not {wanted} finite numbers, as in training; correct it")
    return np.asarray(rows)


def _flat(value: Any) -> Iterator[Any]:
    if hasattr(value, "__iter__") and not isinstance(value, str | bytes):
        for part in value:
            yield from _flat(part)
    else:
        yield value
