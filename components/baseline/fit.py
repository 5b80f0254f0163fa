"""Matches new data to a champion: the rows it can judge, the reasons for the others, and scores in the data's classes.

Single implementation: the baseline stage counts rows with it before training, evaluation selects rows with it.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.bundle.model import BundleInfo
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.tasks import MULTICLASS, TASKS
from switchyard.components.values.conversion import MISSING, Misfit, fit, model_column
from switchyard.components.values.raw_features import Columns
from switchyard.components.values.spelling import BOOLEAN, TIME, TIMESTAMP

# (column, reason) -> number of rows.
Reasons = Counter[tuple[str, str]]
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
_TRUTH = {"false": 0, "true": 1}
_WHY_MISSING = "is missing, but had a value in every row of the champion's training data"


@dataclass(frozen=True)
class Taken:
    """The rows of a batch that a champion can judge.

    Attributes:
        columns: columns of these rows, in the format of the champion's transform graph.
        mask: selects these rows, bool (B,).
        reasons: reasons for the other rows; a row counts for each of its reasons.
    """

    columns: Columns
    mask: np.ndarray
    reasons: Reasons = field(default_factory=Counter)


class ChampionFit:
    """The fit of a champion to a data set other than its own."""

    def __init__(self, info: BundleInfo, summary: DatasetSummary) -> None:
        self._info, self._summary = info, summary
        mine, theirs = _canonical(info.classes), _canonical(summary.classes)
        known = {c: i for i, c in enumerate(mine)}
        # Class of the data -> the champion's class index; None if the champion lacks the class.
        self._index = [known.get(c) for c in theirs]
        self._foreign = [i for i, c in enumerate(mine) if c not in theirs]

    @property
    def obstacle(self) -> str:
        """The reason why the champion can judge no row of this data, in one sentence; empty if it may judge some."""
        info, summary = self._info, self._summary
        if info.task != summary.task and not (TASKS[info.task].has_classes and TASKS[summary.task].has_classes):
            return f"it is for a {info.task} task, the data is {summary.task}"
        if info.label != summary.label:
            return f"it predicts {info.label!r}, the label is {summary.label!r}"
        if info.targets != summary.targets:
            return f"it predicts the {TASKS[info.task].targets}s {_listed(info.targets)}, wanted are {_listed(summary.targets)}"
        return self._other_output or self._other_columns

    @property
    def _other_output(self) -> str:
        info, summary = self._info, self._summary
        if info.output_shape != summary.output_shape:
            return f"its output has the shape {info.output_shape}, wanted is {summary.output_shape}"
        common = sum(i is not None for i in self._index)
        # With a single common class the quality of a model cannot be measured.
        if summary.classes and common < 2:
            return f"its classes are {_listed(info.classes)}, the data has {_listed(summary.classes)}"
        return ""

    @property
    def _other_columns(self) -> str:
        info, summary = self._info, self._summary
        for feature in info.features:
            if feature.name not in summary.columns and feature.width is not None:
                return f"it needs the column {feature.name!r}, which is not in the data"
        return ""

    @property
    def outputs(self) -> int:
        """Number of scores per row in `aligned`."""
        return self._summary.outputs + (bool(self._foreign) if self._summary.task == MULTICLASS else 0)

    def take(self, batch: pa.RecordBatch) -> Taken:
        """Returns the rows of a batch of examples that the champion can judge."""
        reasons: Reasons = Counter()
        bad = self._unknown_labels(batch, reasons)
        fitted = []
        for feature in self._info.features:
            found = fit(_as_meant(batch, feature.name, self._summary.meanings.get(feature.name, "")), feature)
            for why, rows in itertools.groupby(sorted(found.misfits, key=_reason), key=_reason):
                misfits = list(rows)
                example = "" if why == MISSING else f", received {misfits[0].value!r}"
                reasons[feature.name, f"{_WHY_MISSING if why == MISSING else why}{example}"] += len(misfits)
                bad[[m.row for m in misfits]] = True
            fitted.append((feature, found.values))
        mask = pa.array(~bad)
        return Taken({f.name: model_column(values.filter(mask), f) for f, values in fitted}, ~bad, reasons)

    def _unknown_labels(self, batch: pa.RecordBatch, reasons: Reasons) -> np.ndarray:
        unknown = [c for c, i in zip(self._summary.classes, self._index, strict=True) if i is None]
        if not unknown:
            return np.zeros(batch.num_rows, dtype=bool)
        labels = batch.column(self._summary.label).flatten()
        values = [c.encode() if isinstance(c, str) else c for c in unknown]
        bad = pc.is_in(labels, pa.array(values, labels.type)).to_numpy(zero_copy_only=False)
        reasons[self._summary.label, f"its class is {_listed(unknown)}, which is not a class of the champion"] += int(bad.sum())
        return np.array(bad)

    def aligned(self, scores: np.ndarray) -> np.ndarray:
        """Returns the champion's scores mapped to the data's classes, float32 (B, outputs).

        For a multiclass task there is one more column if the champion has classes that the data lacks: the largest probability
        of these, so that predicting one of them counts as wrong.
        """
        if not self._summary.classes:
            return scores
        whole = np.hstack([1 - scores, scores]) if self._info.task == "binary" else scores
        if self._summary.task == "binary":
            no, yes = (whole[:, i] for i in self._index)
            found = yes if whole.shape[1] == 2 else np.divide(yes, no + yes, out=np.full_like(yes, 0.5), where=no + yes > 0)
            return np.asarray(found[:, np.newaxis], dtype=np.float32)
        columns = [np.zeros(len(whole), whole.dtype) if i is None else whole[:, i] for i in self._index]
        if self._foreign:
            columns.append(whole[:, self._foreign].max(axis=1))
        return np.asarray(np.stack(columns, axis=1), dtype=np.float32)


def _reason(misfit: Misfit) -> str:
    return misfit.reason


def _as_meant(batch: pa.RecordBatch, name: str, meaning: str) -> pa.Array:
    """Returns a column with its Arrow type before conversion to examples: booleans, timestamps, times."""
    if name not in batch.schema.names:
        return pa.nulls(batch.num_rows)
    column = batch.column(name)
    kind, _, unit = meaning.rstrip("]").partition("[")
    if pa.types.is_null(column.type) or kind not in (BOOLEAN, TIMESTAMP, TIME):
        return column
    if kind == TIME and unit in ("s", "ms"):
        return column.cast(pa.list_(pa.int32())).cast(pa.list_(pa.time32(unit)))
    return column.cast(pa.list_({BOOLEAN: pa.bool_, TIMESTAMP: pa.timestamp, TIME: pa.time64}[kind](*[unit] * bool(unit))))


def _canonical(classes: Sequence[Any]) -> list[Any]:
    """Returns normalized classes, equal for all spellings of a value: 1, 1.0, "1", "1.0" and, beside 0, true."""
    lowered = [str(c).strip().lower() for c in classes]
    if set(lowered) <= set(_TRUTH) and len(set(lowered)) == len(lowered):
        return [_TRUTH[c] for c in lowered]
    found = [int(c.partition(".")[0]) if _WHOLE.fullmatch(c) else str(v) for c, v in zip(lowered, classes, strict=True)]
    # If two classes are the same number ("1" and "01"), only their spelling distinguishes them.
    return found if len(set(found)) == len(found) else [str(c) for c in classes]


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(str(v) for v in values[:10])
    return f"{shown}, … ({len(values)})" if len(values) > 10 else shown
