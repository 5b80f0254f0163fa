"""Columns with a declared type: a value that does not fit is a bad row and never changes the type."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError, did_you_mean
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.scalars import longest, one_a_row
from switchyard.components.text.visible import in_a_line
from switchyard.components.values import spelling
from switchyard.components.values.cells import as_text, is_text

if TYPE_CHECKING:
    from switchyard.components.ingest.csv_options import CsvOptions

NUMBER, TEXT = "number", "text"
_NUMBER = f"^({spelling.NUMBER}|[+-]?[iI][nN][fF]([iI][nN][iI][tT][yY])?)$"


def fitting(
    batch: pa.RecordBatch, columns: Mapping[str, str], missing: Sequence[str], file: str, first: int, bad: BadRows
) -> pa.RecordBatch:
    """Returns the rows whose values have the declared types; the others go to `bad`.

    Args:
        batch: rows of one file; a CSV's numbers are already normalized by `CsvOptions.numbers`.
        columns: column -> `number` or `text`.
        missing: texts that mean missing, in addition to the usual ones.
        file: name of the file.
        first: row number of the batch's first row in the file.
        bad: collects the bad rows.

    Raises:
        UserError: a column declared as numbers has a temporal or nested type.
    """
    keep = pa.array([True] * batch.num_rows, pa.bool_())
    for name in (n for n, kind in columns.items() if kind == NUMBER and n in batch.schema.names):
        place = batch.schema.get_field_index(name)
        # tf.Example stores lists only: a column with at most one value per row is a plain column.
        column = one_a_row(batch.column(name)) if longest(batch.column(name)) <= 1 else batch.column(name)
        batch = batch.set_column(place, batch.schema.field(place).with_type(column.type), column)
        if pa.types.is_temporal(column.type) or pa.types.is_nested(column.type):
            raise UserError(
                f"data.columns: {name!r} is declared a number, but {file} holds {column.type}; remove the declaration."
            )
        if not is_text(column.type):
            continue
        text = pc.utf8_trim_whitespace(as_text(column))
        listed = pc.or_(text.is_null(), pc.is_in(text, spelling.words(tuple(missing))))
        fits = pc.or_(listed, pc.fill_null(pc.match_substring_regex(text, _NUMBER), False))
        for row in pc.indices_nonzero(pc.and_(keep, pc.invert(fits))).to_pylist():
            bad.add(file, f"row {first + row}: column {name!r} is declared a number", repr(text[row].as_py()))
        keep = pc.and_(keep, fits)
    return batch if pc.all(keep).as_py() else batch.filter(keep)


def check_declared(columns: Mapping[str, str], excluded: Collection[str], names: Collection[str]) -> None:
    """Raises UserError for a declared column that does not exist or is excluded."""
    for name in columns:
        if name not in names:
            raise UserError(
                f"data.columns: unknown column {name!r}.{did_you_mean(name, names)} Columns: {in_a_line(sorted(names))}."
            )
        if name in excluded:
            raise UserError(f"data.columns: {name!r} is excluded by data.exclude; remove it from one of the two.")


def plain_numbers(batch: pa.RecordBatch, names: Collection[str], options: CsvOptions) -> pa.RecordBatch:
    """Returns a CSV's batch with the numbers of the given columns in the default format."""
    if not options.changes_numbers:
        return batch
    arrays = [options.numbers(c) if n in names else c for n, c in zip(batch.schema.names, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)
