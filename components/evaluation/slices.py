"""Assigns the rows of a batch to slices, column by column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.slicer import slicer_lib

SliceKey = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class SliceColumn:
    """A column to slice by.

    Attributes:
        codes: index of each row's value, int64 (B,).
        values: distinct values: text, int or float; `missing` for examples without a value.
    """

    codes: np.ndarray
    values: list[Any]

    @classmethod
    def joined(cls, columns: Sequence[SliceColumn]) -> SliceColumn:
        """Returns the rows of several batches' columns, in order."""
        index: dict[Any, int] = {}
        codes = []
        for column in columns:
            places = [index.setdefault(value, len(index)) for value in column.values]
            codes.append(np.asarray(places, np.int64)[column.codes])
        return cls(np.concatenate(codes), list(index))

    def text(self) -> pa.Array:
        """Returns the values of the rows as text."""
        return pa.array([str(v) for v in self.values], pa.string()).take(pa.array(self.codes))


def slice_column(batch: pa.RecordBatch, name: str) -> SliceColumn:
    """Returns the first value of each row of a list column."""
    if name not in batch.schema.names or pa.types.is_null(batch.column(name).type):
        return SliceColumn(np.zeros(batch.num_rows, np.int64), ["missing"])
    column = batch.column(name)
    some = pc.greater(pc.fill_null(pc.list_value_length(column), 0), 0)
    first = pc.list_element(pc.if_else(some, column, pa.scalar([None], column.type)), 0)
    encoded = pc.dictionary_encode(first, null_encoding="encode")
    return SliceColumn(encoded.indices.to_numpy().astype(np.int64), [_value(v) for v in encoded.dictionary.to_pylist()])


def _value(value: Any) -> Any:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "missing"
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    # Integer columns with missing values have a float dtype.
    return int(value) if float(value).is_integer() else float(value)


def slices_of(
    columns: Mapping[str, SliceColumn], specs: Sequence[config_pb2.SlicingSpec], rows: int
) -> Iterator[tuple[SliceKey, np.ndarray]]:
    """Yields TFMA's key and the row indices (n,) of every slice with rows in a batch.

    Args:
        columns: the columns named by `specs`.
        specs: TFMA's slicing specs, with feature keys only; an empty spec is the slice of all rows.
        rows: number of rows of the batch.
    """
    for spec in specs:
        chosen = [columns[name] for name in spec.feature_keys]
        if not chosen:
            yield (), np.arange(rows)
            continue
        # One code per combination of values that occurs; rows are sorted by code.
        combined = np.zeros(rows, np.int64)
        for column in chosen:
            combined = np.unique(combined * len(column.values) + column.codes, return_inverse=True)[1]
        order = np.argsort(combined, kind="stable")
        for indices in np.split(order, np.flatnonzero(np.diff(combined[order])) + 1):
            values = [c.values[c.codes[indices[0]]] for c in chosen]
            features = {name: np.asarray([value]) for name, value in zip(spec.feature_keys, values, strict=True)}
            # TFMA's own function, for keys identical to TFMA's.
            [key] = slicer_lib.get_slices_for_features_dicts([], features, [slicer_lib.SingleSliceSpec(spec=spec)])
            yield key, indices
