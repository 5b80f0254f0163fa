"""Examples read in batches equal those of TFX's and Beam's own sources."""

from __future__ import annotations

import ast
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tf_example_record import TFExampleRecord

from switchyard.components.compat import tfx_reader
from switchyard.components.data import tfrecords as batched_io
from switchyard.components.data.tfrecords import ReadExamples

pytestmark = pytest.mark.core

SCHEMA = text_format.Parse(
    'feature { name: "number" type: INT } feature { name: "text" type: BYTES } feature { name: "never" type: FLOAT }',
    schema_pb2.Schema(),
)


def _example(i: int) -> bytes:
    features = {"number": tf.train.Feature(int64_list=tf.train.Int64List(value=[i]))}
    if i % 3:
        features["text"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[str(i).encode(), b"x"]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture(params=["", ".gz"], ids=["plain", "gzip"])
def files(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Two shards with 25 examples, and an empty one; their glob."""
    for shard, numbers in enumerate((range(20), range(20, 25), range(0))):
        name = str(tmp_path / f"data-{shard}{request.param}")
        with tf.io.TFRecordWriter(name, "GZIP" if request.param else "") as writer:
            for i in numbers:
                writer.write(_example(i))
    return str(tmp_path / "data-*")


def _read(source: beam.PTransform, folder: Path) -> list[pa.RecordBatch]:
    folder.mkdir()
    with beam.Pipeline() as pipeline:
        rows = pipeline | source | beam.Map(lambda b: pa.Table.from_batches([b]).to_pydict()) | beam.Map(repr)
        _ = rows | beam.io.WriteToText(str(folder / "rows"), num_shards=1, shard_name_template="")
    return [ast.literal_eval(line) for line in (folder / "rows").read_text().splitlines()]


def test_batched_reads_return_the_records_of_tfxs_reader(files: str, tmp_path: Path) -> None:
    tfxio = TFExampleRecord(files, schema=SCHEMA, telemetry_descriptors=["test"])
    stock = _read(tfxio.BeamSource(7), tmp_path / "stock")
    original = TFExampleRecord.BeamSource
    try:
        tfx_reader.install(ReadExamples)
        installed = TFExampleRecord.BeamSource
        tfx_reader.install(ReadExamples)
        assert TFExampleRecord.BeamSource is installed is not original
        batched = _read(tfxio.BeamSource(7), tmp_path / "batched")
        projected = _read(tfxio.Project(["text"]).BeamSource(), tmp_path / "projected")
        raw = TFExampleRecord(files, schema=SCHEMA, raw_record_column_name="raw", telemetry_descriptors=["test"])
        assert sum(len(b["raw"]) for b in _read(raw.BeamSource(), tmp_path / "raw")) == 25
    finally:
        TFExampleRecord.BeamSource = original
    merged = [{name: [v for b in found for v in b[name]] for name in found[0]} for found in (stock, batched)]
    # Beam's source deals out bundles as it likes: the same rows, batched otherwise.
    by_number = [sorted(zip(*m.values(), strict=True), key=lambda row: row[0]) for m in merged]
    assert by_number[0] == by_number[1]
    assert [list(b) for b in batched] == [["number", "text", "never"]] * len(batched)
    assert [len(b["number"]) for b in batched] == [7, 7, 6, 5]
    assert merged[1]["number"] == [[i] for i in range(25)], "in the files' and the records' order"
    assert list(projected[0]) == ["text"]


def test_large_rows_come_in_smaller_batches(files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched_io, "BATCH_BYTES", 8 * len(_example(0)))
    assert [len(b["number"]) for b in _read(ReadExamples([files], SCHEMA), tmp_path / "read")] == [8, 8, 4, 4, 1]


def test_a_file_whose_name_looks_like_a_pattern_is_read(tmp_path: Path) -> None:
    file = tmp_path / "data[1]*"
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(_example(4))
    assert [b["number"] for b in _read(ReadExamples([str(file)], SCHEMA), tmp_path / "read")] == [[[4]]]


def test_a_pattern_without_files_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no files match .*/nothing-\*"):
        _read(ReadExamples([str(tmp_path / "nothing-*")]), tmp_path / "read")


def test_a_truncated_record_fails_the_pipeline(tmp_path: Path) -> None:
    file = tmp_path / "data"
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(_example(1))
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(Exception, match="truncated record"):
        _read(ReadExamples([str(file)]), tmp_path / "read")
