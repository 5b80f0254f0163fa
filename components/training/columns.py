"""Columnar storage of transformed examples: memory-mapped Arrow files, and `columns.json` with their schema.

A file holds the label, one fixed-size list column per `Block`, and the sample weights if there are any: rows are contiguous in
memory as in the file, and scalars of one dtype share an array. Files are not compressed so that they can be memory-mapped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError, damaged_artifact, first_line
from switchyard.components.training.example_source import Block, blocks

FILE, SUFFIX = "columns.json", ".arrow"
_LABEL_DTYPES = ("int64", "float32")
LABEL = "label"
# The last block of examples with sample weights; no feature has its name.
WEIGHTS = Block("float32", ("\0sample_weight",), (1,))
# Size of one record batch, in the writer's memory.
_BATCH_BYTES = 8 << 20

# The arrays of all blocks, each of shape (rows, width), `WEIGHTS` included; and the labels, shape (rows,).
Columns = tuple[tuple[np.ndarray, ...], np.ndarray]


class ColumnsWriter:
    """A writer of one file.

    Args:
        sink: open binary file.
        layout: the blocks.
        label_dtype: `int64` for classes, else `float32`.
        label_shape: `(labels,)` of several label columns, `()` of one.

    Attributes:
        digest: SHA-256 of the data written.
    """

    def __init__(self, sink: Any, layout: Sequence[Block], label_dtype: str, label_shape: tuple[int, ...] = ()) -> None:
        self._schema = _schema(layout, label_dtype, label_shape)
        self._writer = pa.ipc.new_file(sink, self._schema)
        self._waiting: list[Columns] = []
        self._bytes = 0
        self.digest = hashlib.sha256()

    def write(self, columns: Columns) -> None:
        """Appends rows."""
        self._waiting.append(columns)
        self._bytes += nbytes(columns)
        if self._bytes >= _BATCH_BYTES:
            self._flush()

    def close(self) -> None:
        """Finishes the file."""
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        arrays, labels = joined(self._waiting)
        self._waiting, self._bytes = [], 0
        for array in (labels, *arrays):
            self.digest.update(np.ascontiguousarray(array).data)
        columns = [_column(array, field.type) for array, field in zip((labels, *arrays), self._schema, strict=True)]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))


def joined(parts: Sequence[Columns]) -> Columns:
    """Returns the concatenation of the parts; a single part is not copied."""
    if len(parts) == 1:
        return parts[0]
    arrays = tuple(np.concatenate(each) for each in zip(*(arrays for arrays, _ in parts), strict=True))
    return arrays, np.concatenate([labels for _, labels in parts])


def nbytes(columns: Columns) -> int:
    """Returns the total size of all arrays in bytes."""
    return sum(a.nbytes for a in (*columns[0], columns[1]))


def read_columns(file: Path, layout: Sequence[Block]) -> list[Columns]:
    """Returns a file's record batches, memory-mapped: data is read on first access.

    Raises:
        UserError: the file is not what a `ColumnsWriter` wrote for this layout: cut off, or changed since.
    """
    try:
        with pa.memory_map(str(file)) as mapped:
            reader = pa.ipc.open_file(mapped)
            if reader.schema not in [_schema(layout, dtype, _label_shape(reader.schema)) for dtype in _LABEL_DTYPES]:
                raise ValueError("its columns differ from those of columns.json")
            return [_arrays(reader.get_batch(i), layout, mapped.size()) for i in range(reader.num_record_batches)]
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # of the operating system, not of the file's content
        raise damaged_artifact(file, file.parents[1], first_line(error)) from error


def _column(array: np.ndarray, kind: pa.DataType) -> pa.Array:
    values = pa.array(array.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, type=kind) if pa.types.is_fixed_size_list(kind) else values


def _label_shape(schema: pa.Schema) -> tuple[int, ...]:
    kind = schema.field(LABEL).type if LABEL in schema.names else None
    return (kind.list_size,) if kind is not None and pa.types.is_fixed_size_list(kind) else ()


def _schema(layout: Sequence[Block], label_dtype: str, label_shape: tuple[int, ...] = ()) -> pa.Schema:
    lists = [pa.field(f"block_{i}", pa.list_(pa.from_numpy_dtype(b.dtype), b.width)) for i, b in enumerate(layout)]
    label = pa.from_numpy_dtype(label_dtype)
    return pa.schema([pa.field(LABEL, pa.list_(label, *label_shape) if label_shape else label), *lists])


def _arrays(batch: pa.RecordBatch, layout: Sequence[Block], file_bytes: int) -> Columns:
    # Arrow believes the number of rows that a file declares: beyond its buffers lies other memory, or none.
    batch.validate()
    if batch.nbytes > file_bytes:
        raise ValueError("it is compressed")
    lists = [batch.column(i + 1).flatten().to_numpy().reshape(batch.num_rows, b.width) for i, b in enumerate(layout)]
    label = batch.column(0)
    if shape := _label_shape(batch.schema):
        return tuple(lists), label.flatten().to_numpy().reshape(batch.num_rows, *shape)
    return tuple(lists), label.to_numpy()


def features_json(features: Sequence[FeatureSpec], *, weighted: bool = False) -> str:
    """Returns the content of `columns.json`; `weighted`: whether the files have sample weights."""
    return json.dumps({"features": [dataclasses.asdict(f) for f in features], "weighted": weighted}, indent=1)


def read_features(folder: Path) -> tuple[FeatureSpec, ...]:
    """Returns the features of an artifact, see `_described`."""
    return _described(folder)[0]


def _described(folder: Path) -> tuple[tuple[FeatureSpec, ...], bool]:
    """Returns the features of an artifact, and whether it has sample weights.

    Raises:
        UserError: the artifact has no `columns.json`, so this version's transform stage did not write it; or a damaged one.
    """
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        features = tuple(FeatureSpec(**{**f, "shape": tuple(f["shape"])}) for f in found["features"])
        return features, bool(found.get("weighted", False))
    except FileNotFoundError:
        raise UserError(
            f"training: {folder} has no {FILE}: trainers read columns, and these are tf.Examples of another Transform or "
            "an older version; use switchyard.components.transform.component.Transform, or run again in a new workspace."
        ) from None
    except (ValueError, LookupError, TypeError) as error:
        raise damaged_artifact(folder / FILE, folder, first_line(error)) from error


def column_files(folder: Path, split: str) -> list[Path]:
    """Returns the files of a split, sorted by name."""
    return sorted((folder / f"Split-{split}").glob(f"*{SUFFIX}"))


def layout_of(folder: Path) -> tuple[Block, ...]:
    """Returns the blocks of an artifact's files."""
    features, weighted = _described(folder)
    return (*blocks(features), *([WEIGHTS] if weighted else []))
