"""The label of a custom task: a number, or a list of numbers that has one length in all rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import FLOAT, INTEGER, ColumnType
from switchyard.components.ingest.labels import labelled
from switchyard.components.ingest.scalars import longest
from switchyard.components.values.cells import is_list


def vectors(batch: pa.RecordBatch, name: str, words: Sequence[str], file: str, bad: BadRows) -> pa.RecordBatch:
    """Returns the rows with a label, nested lists flattened; rows without one, or with a gap in the list, go to `bad`.

    Raises:
        UserError: the labels are no numbers.
    """
    place, column = batch.schema.get_field_index(name), batch.column(name)
    while is_list(column.type) and is_list(column.type.value_type):
        column = _flatter(column)
    batch = batch.set_column(place, name, column)
    if longest(column) <= 1:
        return labelled(batch, name, words, file, bad)
    values = column.flatten()
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)):
        raise UserError(
            f"label: {file}: {name!r} holds {column.type}; the label of a custom task is a number or a list of numbers"
        )
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    rows = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    whole = pc.fill_null(pc.greater(pc.list_value_length(column), 0), False).to_numpy(zero_copy_only=False).copy()
    whole[np.unique(rows[~np.isfinite(numbers)])] = False
    if whole.all():
        return batch
    bad.add(file, f"the label {name!r} is missing, or a number of it is missing or infinite", number=int((~whole).sum()))
    return batch.filter(pa.array(whole))


def _flatter(column: pa.Array) -> pa.Array:
    """Returns lists of lists as lists, row by row; a row with a list that is null becomes null."""
    inner = column.flatten()
    if column.null_count or inner.null_count:
        joined = [None if r is None or None in r else [v for part in r for v in part] for r in column.to_pylist()]
        return pa.array(joined, pa.list_(inner.type.value_type))
    lists, values = (np.concatenate([[0], np.cumsum(pc.list_value_length(of).to_numpy())]) for of in (column, inner))
    return pa.ListArray.from_arrays(pa.array(values[lists], pa.int32()), inner.flatten())


def label_shape(
    labels: Sequence[str], types: Mapping[str, ColumnType], lengths: Collection[int], output_shape: Sequence[int]
) -> list[int]:
    """Returns the shape of a row's label: of as many numbers as the output has the output's, else their number; [] of one.

    Args:
        labels: the label column, or none.
        types: column -> type.
        lengths: numbers of values of the rows' labels.
        output_shape: shape of a row's output.

    Raises:
        UserError: the label holds no numbers, or lists of several lengths.
    """
    for name in labels:
        if types[name].kind not in (INTEGER, FLOAT):
            raise UserError(
                f"label: {name!r} holds values of type {types[name].kind}; the label of a custom task is a number or a list of "
                f"numbers. Write numbers, or, if its texts are numbers, data.columns: {{{name}: {{type: number}}}}."
            )
        if len(lengths) > 1:
            raise UserError(
                f"label: {name!r} holds lists of {min(lengths)} to {max(lengths)} numbers; the label of a custom task has one "
                "length in all rows. Pad the lists, and mask the padding in your loss."
            )
        [length] = lengths
        if length > 1:
            return list(output_shape) if length == math.prod(output_shape) else [length]
    return []


def wide_labels(batch: pa.RecordBatch, names: Sequence[str]) -> np.ndarray:
    """Returns the label of a custom task, a number or list of numbers: float64 (B, numbers), (B, 0) without a label."""
    columns = [batch.column(name).flatten().to_numpy(zero_copy_only=False) for name in names]
    each = [np.asarray(values, np.float64).reshape(batch.num_rows, -1) for values in columns]
    return np.hstack(each) if each else np.empty((batch.num_rows, 0))
