"""Collects the types, counts of present values, label values and warnings of all columns over all batches."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import (
    EMPTY,
    STRING,
    TEXTS_OF_NUMBERS,
    ColumnType,
    UnusableColumnError,
    beyond_integers,
    mixed_times,
    observe,
)
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.declared import NUMBER, TEXT, plain_numbers
from switchyard.components.ingest.float_precision import FloatPrecision
from switchyard.components.ingest.keys import check_keys, missing_keys
from switchyard.components.ingest.labels import LabelValues
from switchyard.components.ingest.nearly_numbers import NearlyNumbers
from switchyard.components.ingest.readers import is_untyped, reader
from switchyard.components.ingest.sources import format_of
from switchyard.components.values.cells import is_list, plain
from switchyard.components.values.cells import is_text as holds_text

if TYPE_CHECKING:
    from switchyard.components.ingest.input_spec import InputSpec


class ColumnsSeen:
    """Types, counts of present values, label values and warnings of all columns.

    Attributes:
        listed: classes that a label column lists.
        with_lists: columns that hold a list somewhere.
        lengths: numbers of values in the label of a custom task.
    """

    def __init__(self, spec: InputSpec, *, peek: bool) -> None:
        self.types: dict[str, ColumnType] = {}
        self.present: dict[str, int] = {}
        names = [] if spec.lists_classes or spec.output_shape else spec.labels
        self.lengths: set[int] = set()
        ranged = spec.group is not None
        self.labels = {n: LabelValues(n, is_text=spec.columns.get(n) == TEXT, ranged=ranged) for n in names}
        self.listed: set[str] = set()
        self.with_lists: set[str] = set()
        self.rows = self.keyless = 0
        self._spec = spec
        self._csv = CsvOptions.of(spec.csv)
        self._nearly = NearlyNumbers(spec.missing_values or ())
        self._beyond: dict[str, str] = {}
        self.precision = FloatPrecision(spec.missing_values or ())
        self._peek = peek

    def add(self, file: str, batch: pa.RecordBatch) -> None:
        """Adds a batch of a file."""
        spec = self._spec
        is_csv = format_of(file, spec.format) == "csv"
        if spec.split_key:
            check_keys(spec.split_key, batch.column(spec.split_key), file)
            self.keyless += missing_keys(batch.column(spec.split_key), spec.missing_values or ())
        for field_, column in zip(batch.schema, batch.columns, strict=True):
            if field_.name in spec.exclude:  # a split key that is excluded as a feature
                continue
            if field_.name == spec.label and spec.lists_classes:
                self.listed.update(pc.unique(column.flatten()).to_pylist())
                continue
            if spec.output_shape and field_.name == spec.label:
                lists = is_list(column.type)
                self.lengths.update(pc.unique(pc.list_value_length(column)).to_pylist() if lists else [1])
            declared = spec.columns.get(field_.name)
            # `plain_numbers` has already normalized columns declared as numbers.
            values = self._csv.numbers(column) if is_csv and not declared else column
            self._add_column(file, field_.name, values, untyped=reads_texts(spec, file, field_), is_csv=is_csv)
        self.rows += batch.num_rows

    def check(self) -> list[str]:
        """Returns warnings about columns. Raises UserError for a column that cannot have its inferred type."""
        texts = [n for n, t in self.types.items() if t.kind == STRING]
        if problems := self._nearly.problems(texts):
            raise UserError("data: " + "\n".join(problems))
        for name, kind in self.types.items():
            if kind.is_mixed and name not in self.labels:
                raise UserError(f"data: {mixed_times(name)}")
            if kind.is_beyond and name not in self.labels:
                raise located(self._spec, self._beyond[name], name, beyond_integers(name))
        classes = {n for n, values in self.labels.items() if values.is_text}
        numbers = [n for n in self.types if n not in texts and n not in classes]
        return self._nearly.notes([n for n in texts if n not in self.labels], numbers)

    def _add_column(self, file: str, name: str, column: pa.Array, *, untyped: bool, is_csv: bool) -> None:
        seen = _observed(self._spec, file, name, column, untyped=untyped)
        if is_list(column.type):
            self.with_lists.add(name)
        self.types[name] = self.types[name].widen(seen) if name in self.types else seen
        self.present[name] = self.present.get(name, 0) + len(column) - column.null_count
        if seen.is_beyond:
            self._beyond.setdefault(name, file)
        if name not in self._spec.columns and seen.kind != EMPTY and holds_text(plain(column).type):
            self._nearly.add(name, plain(column), untyped=is_csv, all_numbers=seen.seen <= TEXTS_OF_NUMBERS)
        if not self._peek and not seen.is_list:
            self.precision.add(name, column, seen.kind)
        if name in self.labels:
            self.labels[name].add(column, untyped=untyped)


def reads_texts(spec: InputSpec, file: str, field_: pa.Field) -> bool:
    """Returns whether texts of a file's column may be numbers: in a CSV, in mixed JSON, or where numbers are declared."""
    return format_of(file, spec.format) == "csv" or is_untyped(field_) or spec.columns.get(field_.name) == NUMBER


def _observed(spec: InputSpec, file: str, name: str, column: pa.Array, *, untyped: bool) -> ColumnType:
    """Returns the type that `observe` infers; an unusable value is reported with its file and row."""
    missing = tuple(spec.missing_values or ())
    declared = spec.columns.get(name)
    try:
        # `labels` decides the meaning of words in the label column.
        words = name not in spec.labels and not declared
        seen = observe(name, column, is_text=untyped and declared != TEXT, missing=missing, words=words)
        return ColumnType.of({*seen.seen, STRING}, is_list=seen.is_list) if declared == TEXT and seen.kind != EMPTY else seen
    except UnusableColumnError as error:
        raise located(spec, file, name, error) from None


def located(spec: InputSpec, file: str, name: str, error: UnusableColumnError) -> UserError:
    """Returns the error of a column with the file, row and value that cause it."""
    row, options, kind = 0, CsvOptions.of(spec.csv), format_of(file, spec.format)
    with closing(reader(kind, options, lambda column: column == name)(file, BadRows(2**62), spec.missing_values)) as batches:
        for read in batches if error.is_bad else ():
            batch = plain_numbers(read, {name}, options) if kind == "csv" else read
            column = plain(batch.column(name)) if name in batch.schema.names else pa.nulls(0)
            bad = error.is_bad(column) if error.is_bad and not pa.types.is_null(column.type) else pa.array([], pa.bool_())
            place = pc.index(bad, True).as_py()
            if place >= 0:
                return UserError(f"data: {file}, row {row + place}: {error} Received there: {_shown(column[place])}.")
            row += batch.num_rows
    return UserError(f"data: {file}: {error}")


def _shown(value: pa.Scalar) -> str:
    try:
        return str(value.as_py())[:60]
    except (ValueError, OverflowError, pa.ArrowException):  # beyond the range of Python's types
        return str(value)[:60]
