"""Hashes the split key: one hash per value, regardless of its spelling in a file."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import math
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.ingest.scalars import longest, one_a_row
from switchyard.components.values.cells import is_list
from switchyard.components.values.spelling import NUMBER
from switchyard.components.values.targets import EXACT

# Largest exact whole number per float size in bytes.
_EXACT = {2: 2.0**11, 4: 2.0**24, 8: float(EXACT)}
_NUMBER = re.compile(NUMBER)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BOOLEANS = {"true": "1", "false": "0"}


def key_hashes(column: pa.Array, rows: np.ndarray, missing: Iterable[str] = ()) -> np.ndarray:
    """Returns a hash per value of a key column, uint64 (n,): the first 8 bytes of BLAKE2b of its canonical text.

    5, 5.0, "5" and " 5" are one key, whatever the column's type in this file. Values that only look alike ("007" and 7) share a
    key as well: this may enlarge a group, but never spreads it over two splits.

    Args:
        column: array of any Arrow scalar type, or of lists with one value per row.
        rows: hash of each whole row, uint64 (n,); used for rows without a key (null, NaN, empty text).
        missing: texts that also mean missing.
    """
    encoded = _plain(column).dictionary_encode()
    texts = _present(encoded.dictionary.to_pylist(), missing)
    hashes = np.asarray(
        [int.from_bytes(hashlib.blake2b(t.encode(errors="surrogateescape"), digest_size=8).digest(), "little") for t in texts],
        "uint64",
    )
    present = np.asarray([bool(t) for t in texts], dtype=bool)
    places = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    if not texts:
        return rows
    return np.where((places >= 0) & present[places], hashes[places], rows)


def with_key(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    """Returns the batch with the key column, which JSON and tf.Example omit from a batch without any value of it."""
    if name in batch.schema.names:
        return batch
    return batch.append_column(name, pa.nulls(batch.num_rows))


def missing_keys(column: pa.Array, missing: Iterable[str] = ()) -> int:
    """Returns the number of rows without a key."""
    counted = pc.value_counts(_plain(column))
    pairs = zip(_present(counted.field(0).to_pylist(), missing), counted.field(1).to_pylist(), strict=True)
    return sum(n for text, n in pairs if not text)


def check_keys(name: str, column: pa.Array, file: str) -> None:
    """Raises UserError for floats too large to be exact whole numbers, and for keys that are no single value."""
    kind = column.type
    if longest(column) > 1:
        raise UserError(f"data.split_key: {file}: {name!r} holds lists; a key is one value per row. Choose another column.")
    kind = kind.value_type if is_list(kind) else kind
    if pa.types.is_nested(kind) and not pa.types.is_dictionary(kind):
        raise UserError(f"data.split_key: {file}: {name!r} holds {kind}; a key is one value per row. Choose another column.")
    if pa.types.is_floating(kind):
        largest = pc.max(pc.abs(_plain(column))).as_py() or 0.0
        limit = _EXACT[kind.bit_width // 8]
        if limit < largest < float("inf"):
            raise UserError(
                f"data.split_key: {file}: {name!r} holds {largest:.0f} as {kind}, which cannot distinguish integers above "
                f"{limit:,.0f}, so rows of one key could be in two splits. Write the column as integers or text."
            )


def _plain(column: pa.Array) -> pa.Array:
    """Returns one scalar per row, in a type that Arrow can count."""
    column = one_a_row(column)
    if pa.types.is_floating(column.type):
        column = _doubles(column)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _doubles(column: pa.Array) -> pa.Array:
    """Returns floats as the float64 of their shortest text, so that 0.1 is one value in 32 and in 64 bits."""
    if column.type == pa.float64():
        return column
    values = column.to_numpy(zero_copy_only=False)
    return pa.array([None if v is None or np.isnan(v) else float(str(v)) for v in values], pa.float64(), mask=column.is_null())


def _present(values: Iterable[Any], missing: Iterable[str]) -> list[str]:
    """Returns the texts to hash; "" for missing values and, in any spelling, for the texts that mean missing."""
    listed = {_canonical(m) for m in missing}
    return ["" if text in listed else text for text in map(_canonical, values)]


def _canonical(value: Any) -> str:
    """Returns the text to hash; "" for a missing value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float | decimal.Decimal):
        return _number(value)
    if isinstance(value, datetime.date):
        return _date(value)
    return _text((value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)).strip())


def _text(text: str) -> str:
    if _NUMBER.fullmatch(text):
        return _number(decimal.Decimal(text))
    if _DAY.match(text):
        with suppress(ValueError):
            return _date(datetime.datetime.fromisoformat(text))
    return _BOOLEANS.get(text.lower(), text)


def _date(value: datetime.date) -> str:
    if isinstance(value, datetime.datetime) and value.tzinfo:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    return value.isoformat().removesuffix("T00:00:00")


def _number(value: float | decimal.Decimal) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(float(value))
