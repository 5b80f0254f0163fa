"""Writes transformed examples as columns in Arrow files, see `components.training.columns`."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import schema_utils

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.data.shards import rename
from switchyard.components.errors import UserError
from switchyard.components.training.columns import SUFFIX, WEIGHTS, Columns, ColumnsWriter
from switchyard.components.training.example_source import Block, blocks
from switchyard.components.user_code.loading import UserCode
from switchyard.components.user_code.tokenizer import BYTES, TEXT, Tokenizer, copy_folder, load_tokenizer, save_sample
from switchyard.components.user_code.tokenizer import FOLDER as TOKENIZER

SHARD_ROWS = 50_000


def feature_specs(schema: schema_pb2.Schema, others: Collection[str], *, tokenized: bool = False) -> tuple[FeatureSpec, ...]:
    """Returns the transformed features, in alphabetical order.

    Args:
        schema: schema of the transformed examples.
        others: outputs that are no features: the label, the sample weights.
        tokenized: whether a tokenizer replaces texts.

    Raises:
        UserError: a transformed feature is not dense float32 or int64, or text for a tokenizer.
    """
    dtypes = (tf.float32, tf.int64, tf.string) if tokenized else (tf.float32, tf.int64)
    domains = {f.name: f.int_domain for f in schema.feature if f.HasField("int_domain")}
    found = []
    for name, spec in sorted(schema_utils.schema_as_feature_spec(schema).feature_spec.items()):
        if name in others:
            continue
        if not isinstance(spec, tf.io.FixedLenFeature) or spec.dtype not in dtypes:
            taken = "float32, int64 or, for the tokenizer, text" if tokenized else "float32 or int64"
            how = "" if tokenized else ", or set tokenizer, which turns text into arrays"
            raise UserError(
                f"preprocessing: the transformed feature {name!r} is {getattr(spec.dtype, 'name', '')} "
                f"({type(spec).__name__}); a model takes dense {taken}. Encode it, for example with "
                f"tft.compute_and_apply_vocabulary{how}."
            )
        domain = domains.get(name)
        size = int(domain.max) + 1 if domain is not None and domain.is_categorical and domain.min >= -1 else None
        found.append(FeatureSpec(name, spec.dtype.name, tuple(spec.shape) or (1,), size))
    return tuple(found)


def texts_of(features: Sequence[FeatureSpec], bytes_columns: Collection[str]) -> tuple[FeatureSpec, ...]:
    """Returns the texts among transformed features, as a tokenizer receives them.

    Args:
        features: the transformed features.
        bytes_columns: columns with values that are not UTF-8.

    Raises:
        UserError: there are none.
    """
    texts = [f for f in features if f.dtype == TEXT]
    if not texts:
        raise UserError(
            "tokenizer: no text reaches it: no column is text, or preprocessing_fn returns none; return the texts from "
            "preprocessing_fn unchanged, or remove tokenizer"
        )
    return tuple(dataclasses.replace(f, dtype=BYTES) if f.name in bytes_columns else f for f in texts)


def trained_features(features: Sequence[FeatureSpec], outputs: Sequence[FeatureSpec], label: str) -> tuple[FeatureSpec, ...]:
    """Returns the features that models read: a tokenizer's outputs in place of the texts, in alphabetical order.

    Raises:
        UserError: an output has the name of another feature or of the label.
    """
    kept = [f for f in features if f.dtype != TEXT]
    for name in {f.name for f in outputs} & {label, *(f.name for f in kept)}:
        raise UserError(f"tokenizer: returns an array named like the feature or label {name!r}. Rename it.")
    return tuple(sorted((*kept, *outputs), key=lambda f: f.name))


class WriteColumns(beam.PTransform):
    """A transform that writes transformed record batches to the shards `<prefix>-<i>-of-<n>.arrow`, of bounded size.

    Shards get these names when all are complete: a failed run leaves none of them, a retried worker no partial one. They are
    sorted by the digests of their contents, so an engine that distributes rows in the same way writes the same files.

    Args:
        schema: schema of the transformed examples.
        label: name of the label; empty without one.
        prefix: `<artifact>/Split-<split>/<name>`.
        tokenizer: code of the user's tokenizer, which is written to `<artifact>/tokenizer/` for the workers and for bundles.
        bytes_columns: columns with values that are not UTF-8.
        weight: the column of the sample weights, or empty.
    """

    def __init__(
        self,
        schema: schema_pb2.Schema,
        label: str,
        prefix: str,
        tokenizer: UserCode | None = None,
        bytes_columns: Collection[str] = (),
        *,
        weight: str = "",
    ) -> None:
        super().__init__()
        self._schema, self._label, self._prefix = schema, label, prefix
        self._tokenizer, self._bytes_columns, self._weight = tokenizer, bytes_columns, weight

    def expand(self, batches: Any) -> Any:
        """See the base class."""
        features = feature_specs(self._schema, (self._label, self._weight), tokenized=self._tokenizer is not None)
        folder = None
        if self._tokenizer:
            tokenizer = Tokenizer(self._tokenizer, texts_of(features, self._bytes_columns))
            folder = _tokenizer_folder(self._prefix)
            tokenizer.save(folder)
            features = trained_features(features, tokenizer.outputs, self._label)
        return (
            batches
            | "Write" >> beam.ParDo(_Write(features, self._label, self._prefix, folder, self._weight))
            | "Gather" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
            | "Name" >> beam.Map(_name, self._prefix)
        )


class _Write(beam.DoFn):
    def __init__(self, features: tuple[FeatureSpec, ...], label: str, prefix: str, tokenizer: str | None, weight: str) -> None:
        self._features, self._layout, self._label, self._folder = features, blocks(features), label, _parts(prefix)
        self._tokenizer_folder, self._weight = tokenizer, weight

    def setup(self) -> None:
        self._tokenizer: Tokenizer | None = None
        if self._tokenizer_folder:
            # The user's code lies where the shards are written, which every worker can reach.
            folder = self._tokenizer_folder
            if "://" in folder:
                self._copy = tempfile.TemporaryDirectory(prefix="switchyard-")
                copy_folder(folder, self._copy.name)
                folder = self._copy.name
            self._tokenizer = load_tokenizer(Path(folder))

    @property
    def _weights(self) -> tuple[Block, ...]:
        return (WEIGHTS,) if self._weight else ()

    def start_bundle(self) -> None:
        self._names: list[str] = []
        self._digests: list[str] = []
        self._rows = 0
        self._writer: ColumnsWriter | None = None
        self._sample = b""

    def process(self, transformed: tuple[pa.RecordBatch, Any]) -> None:
        columns = self._columns(transformed[0])
        if self._writer is None or self._rows >= SHARD_ROWS:
            self._close()
            tf.io.gfile.makedirs(self._folder)
            self._names.append(os.path.join(self._folder, uuid.uuid4().hex))
            # TensorFlow's file API, because the artifact may be in an object store.
            self._file = tf.io.gfile.GFile(self._names[-1], "wb")
            layout = (*self._layout, *self._weights)
            self._writer = ColumnsWriter(_Sink(self._file), layout, columns[1].dtype.name, columns[1].shape[1:])
        self._writer.write(columns)
        self._rows += len(columns[1])

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self._close()
        window = GlobalWindow()
        for i, name in enumerate(self._names):
            # Shards of one bundle sort next to each other, in their order.
            yield WindowedValue((self._digests[0], i, name, self._sample), window.max_timestamp(), [window])

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
        tokens = self._tokens(batch)
        arrays = tuple(
            np.concatenate([(tokens[n] if n in tokens else values(n, b.dtype)).reshape(rows, b.size) for n in b.names], axis=1)
            for b in self._layout
        )
        if self._weight:
            arrays = (*arrays, values(self._weight, WEIGHTS.dtype).reshape(rows, 1))
        if not self._label:  # trainers read a label; that of rows without one is 0, and no loss receives it
            return arrays, np.zeros(rows, np.float32)
        label = batch.column(self._label)
        is_float = pa.types.is_floating(label.type.value_type if pa.types.is_nested(label.type) else label.type)
        found = values(self._label, "float32" if is_float else "int64")
        return arrays, found.reshape(rows, -1) if len(found) > rows else found

    def _tokens(self, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        """Returns the arrays that the tokenizer makes of a batch; none without a tokenizer."""
        if self._tokenizer is None:
            return {}
        texts = {}
        for spec in self._tokenizer.texts:
            flat = batch.column(spec.name)
            while pa.types.is_nested(flat.type):
                flat = flat.flatten()
            texts[spec.name] = flat.to_numpy(zero_copy_only=False).reshape(batch.num_rows, *spec.shape)
        found = self._tokenizer(texts)
        self._sample = self._sample or self._tokenizer.sample(texts, found)
        return found


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


def _tokenizer_folder(prefix: str) -> str:
    return os.path.join(os.path.dirname(os.path.dirname(prefix)), TOKENIZER)


def _name(parts: list[tuple[str, int, str, bytes]], prefix: str) -> list[str]:
    ordered = sorted(parts)
    if ordered and ordered[0][3]:
        save_sample(_tokenizer_folder(prefix), os.path.basename(os.path.dirname(prefix)).removeprefix("Split-"), ordered[0][3])
    names = rename([name for _, _, name, _ in ordered], prefix, SUFFIX)
    if tf.io.gfile.exists(_parts(prefix)):
        tf.io.gfile.rmtree(_parts(prefix))
    return names
