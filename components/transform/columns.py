"""Writes transformed examples as columns in Arrow files, see `components.training.columns`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import schema_utils

from switchyard.components.data.shards import rename
from switchyard.components.errors import UserError
from switchyard.components.training.columns import SUFFIX, Columns, ColumnsWriter
from switchyard.components.training.example_source import blocks
from switchyard.components.training.model_spec import FeatureSpec

SHARD_ROWS = 50_000


def feature_specs(schema: schema_pb2.Schema, label: str) -> tuple[FeatureSpec, ...]:
    """Returns the transformed features, in alphabetical order.

    Raises:
        UserError: a transformed feature is not dense float32 or int64.
    """
    domains = {f.name: f.int_domain for f in schema.feature if f.HasField("int_domain")}
    found = []
    for name, spec in sorted(schema_utils.schema_as_feature_spec(schema).feature_spec.items()):
        if name == label:
            continue
        if not isinstance(spec, tf.io.FixedLenFeature) or spec.dtype not in (tf.float32, tf.int64):
            raise UserError(
                f"preprocessing: the transformed feature {name!r} is {getattr(spec.dtype, 'name', '')} "
                f"({type(spec).__name__}); a model takes dense float32 or int64. Encode it, for example with "
                "tft.compute_and_apply_vocabulary."
            )
        domain = domains.get(name)
        size = int(domain.max) + 1 if domain is not None and domain.is_categorical and domain.min >= -1 else None
        found.append(FeatureSpec(name, spec.dtype.name, tuple(spec.shape) or (1,), size))
    return tuple(found)


class WriteColumns(beam.PTransform):
    """A transform that writes transformed record batches to the shards `<prefix>-<i>-of-<n>.arrow`, of bounded size.

    Shards get these names when all are complete: a failed run leaves none of them, a retried worker no partial one. They are
    sorted by the digests of their contents, so an engine that distributes rows in the same way writes the same files.
    """

    def __init__(self, schema: schema_pb2.Schema, label: str, prefix: str) -> None:
        super().__init__()
        self._schema, self._label, self._prefix = schema, label, prefix

    def expand(self, batches: Any) -> Any:
        """See the base class."""
        features = feature_specs(self._schema, self._label)
        return (
            batches
            | "Write" >> beam.ParDo(_Write(features, self._label, self._prefix))
            | "Gather" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
            | "Name" >> beam.Map(_name, self._prefix)
        )


class _Write(beam.DoFn):
    def __init__(self, features: tuple[FeatureSpec, ...], label: str, prefix: str) -> None:
        self._layout, self._label, self._folder = blocks(features), label, _parts(prefix)

    def start_bundle(self) -> None:
        self._names: list[str] = []
        self._digests: list[str] = []
        self._rows = 0
        self._writer: ColumnsWriter | None = None

    def process(self, transformed: tuple[pa.RecordBatch, Any]) -> None:
        columns = self._columns(transformed[0])
        if self._writer is None or self._rows >= SHARD_ROWS:
            self._close()
            tf.io.gfile.makedirs(self._folder)
            self._names.append(os.path.join(self._folder, uuid.uuid4().hex))
            # TensorFlow's file API, because the artifact may be in an object store.
            self._file = tf.io.gfile.GFile(self._names[-1], "wb")
            self._writer = ColumnsWriter(_Sink(self._file), self._layout, columns[1].dtype.name)
        self._writer.write(columns)
        self._rows += len(columns[1])

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self._close()
        window = GlobalWindow()
        for i, name in enumerate(self._names):
            # Shards of one bundle sort next to each other, in their order.
            yield WindowedValue((self._digests[0], i, name), window.max_timestamp(), [window])

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._digests.append(self._writer.digest.hexdigest())
            self._writer, self._rows = None, 0

    def _columns(self, batch: pa.RecordBatch) -> Columns:
        def values(name: str, dtype: str) -> np.ndarray:
            # Each row is a possibly nested list with as many values as the feature's shape holds.
            flat = batch.column(name)
            while not pa.types.is_primitive(flat.type):
                flat = flat.flatten()
            return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=dtype)

        rows = batch.num_rows
        arrays = tuple(
            np.concatenate([values(name, b.dtype).reshape(rows, b.size) for name in b.names], axis=1) for b in self._layout
        )
        label = batch.column(self._label)
        is_float = pa.types.is_floating(label.type.value_type if pa.types.is_nested(label.type) else label.type)
        return arrays, values(self._label, "float32" if is_float else "int64")


class _Sink:
    """Adapter from TensorFlow's files to the Python file interface that Arrow requires."""

    closed = False

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        self._file.write(bytes(data))
        return len(data)

    def flush(self) -> None:
        self._file.flush()


def _parts(prefix: str) -> str:
    return os.path.join(os.path.dirname(prefix), f".{os.path.basename(prefix)}-parts")


def _name(parts: list[tuple[str, int, str]], prefix: str) -> list[str]:
    names = rename([name for _, _, name in sorted(parts)], prefix, SUFFIX)
    if tf.io.gfile.exists(_parts(prefix)):
        tf.io.gfile.rmtree(_parts(prefix))
    return names
