"""A data file of a few hundred KiB takes no more memory and time than its size explains, whatever its form stands for."""

import gzip
import struct
import time

import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf

from switchyard.components.ingest import batch_size
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import ColumnType
from switchyard.components.ingest.executor import _encoded
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.ingest.readers import READERS
from switchyard.components.ingest.typed import TypedColumns
from switchyard.components.prediction.output import assemble
from tests.security.hostile import confined, read


@pytest.fixture(scope="module")
def child():
    with confined(512) as call:
        yield call


def test_objects_without_common_names_are_read_in_parts(child, tmp_path):
    rows = 6000
    (tmp_path / "x.jsonl").write_text("".join(f'{{"c{i}":1}}\n' for i in range(rows)))

    assert child(read, "jsonl", tmp_path / "x.jsonl") == (rows, [])


@pytest.mark.core
def test_records_without_common_names_are_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "CELLS", 2500)
    with tf.io.TFRecordWriter(str(tmp_path / "x.tfrecord")) as writer:
        for i in range(120):
            one = tf.train.Feature(float_list=tf.train.FloatList(value=[i]))
            writer.write(tf.train.Example(features=tf.train.Features(feature={f"c{i}": one})).SerializeToString())

    batches = list(READERS["tfrecord"](str(tmp_path / "x.tfrecord"), BadRows(0), None))

    assert [(b.num_rows, b.num_columns) for b in batches] == [(50, 50), (50, 50), (20, 20)]


def test_a_dictionary_encoded_long_text_is_decoded_in_parts(child, tmp_path):
    rows = 1000
    same = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * (1 << 20)]))
    pa.parquet.write_table(pa.table({"a": same, "b": range(rows)}), tmp_path / "x.parquet", store_schema=False)

    assert (tmp_path / "x.parquet").stat().st_size < 200_000
    assert child(read, "parquet", tmp_path / "x.parquet") == (rows, [])


def test_dictionary_encoded_fixed_length_bytes_are_decoded_in_parts(child, tmp_path):
    rows = 1000
    same = pa.array([b"x" * (1 << 20)], pa.binary(1 << 20)).take(pa.array([0] * rows))
    pa.parquet.write_table(pa.table({"a": same}), tmp_path / "x.parquet", store_schema=False, data_page_size=1 << 30)

    assert (tmp_path / "x.parquet").stat().st_size < 200_000
    assert child(read, "parquet", tmp_path / "x.parquet") == (rows, [])


@pytest.mark.core
def test_empty_columns_are_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "CELLS", 1000)
    pa.parquet.write_table(pa.table({f"c{i}": pa.nulls(100, pa.float64()) for i in range(50)}), tmp_path / "x.parquet")

    batches = list(READERS["parquet"](str(tmp_path / "x.parquet"), BadRows(0), None))

    assert [b.num_rows for b in batches] == [20] * 5


@pytest.mark.core
def test_rows_with_the_columns_of_all_rows_are_built_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "CELLS", 1000)
    batch = pa.record_batch({f"c{i}": [i] * 30 for i in range(10)})
    typed = TypedColumns({f"c{i}": ColumnType("integer") for i in range(100)}, (), ["c0"])

    spec = InputSpec(["x"], {}, "auto", [], 0, "c0", "auto")
    made = list(_encoded(iter([batch]), spec, typed, "x"))

    assert [(lists.num_rows, lists.num_columns, len(records)) for _, lists, records in made] == [(10, 100, 10)] * 3


@pytest.mark.core
def test_predictions_with_the_columns_of_all_rows_are_written_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "CELLS", 1000)
    for i in range(2):
        table = pa.table({f"c{i}-{j}": [j] * 30 for j in range(50)} | {"prediction": [0.5] * 30})
        pa.parquet.write_table(table, tmp_path / f"{i}.parquet")

    rows = assemble([tmp_path / "0.parquet", tmp_path / "1.parquet"], tmp_path / "out.parquet", "parquet")

    groups = pa.parquet.ParquetFile(tmp_path / "out.parquet").metadata
    assert rows == groups.num_rows == 60
    assert {groups.row_group(i).num_rows for i in range(groups.num_row_groups)} <= {9, 3}
    assert groups.num_columns == 101


@pytest.mark.core
def test_parquet_is_read_with_its_types_and_values(tmp_path):
    table = pa.table({
        "text": ["a", None, "b"], "list": [["x", "y"], None, []], "bytes": [b"1", b"\xff", None],
        "large": pa.array(["a"] * 3, pa.large_string()), "map": pa.array([[("k", "v")]] * 3, pa.map_(pa.string(), pa.string())),
        "struct": [{"q": "x"}] * 3, "own": pa.array(["a", "b", None]).dictionary_encode(), "number": [1, 2, None],
        "fixed": pa.array([["x", "y"]] * 3, pa.list_(pa.string(), 2)),
    })  # fmt: skip
    pa.parquet.write_table(table, tmp_path / "x.parquet")

    [batch] = READERS["parquet"](str(tmp_path / "x.parquet"), BadRows(0), None)

    assert pa.Table.from_batches([batch]).equals(pa.parquet.read_table(tmp_path / "x.parquet"))
    assert batch.schema.equals(table.schema)


def test_an_endless_line_is_refused(child, tmp_path):
    with gzip.open(tmp_path / "x.jsonl.gz", "wb", 1) as file:
        file.write(b'{"a": 1}\n{"a": "')
        for _ in range(600):
            file.write(b"x" * (1 << 20))

    assert "line 2 has more than 64 MiB, the limit of a row" in child(read, "jsonl", tmp_path / "x.jsonl.gz")


@pytest.mark.core
def test_a_line_that_is_nested_too_deeply_is_a_bad_row(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": %s}\n{"a": 1}\n' % ("[" * 100_000 + "]" * 100_000))

    assert read("jsonl", tmp_path / "x.jsonl") == (1, ["line 1: not a JSON object (nested too deeply)"])


@pytest.mark.core
def test_a_header_of_many_names_is_read_quickly(tmp_path):
    names = [f"c{i}" for i in range(60_000)]
    (tmp_path / "x.csv").write_text(",".join(names) + "\n")

    began = time.monotonic()
    assert read("csv", tmp_path / "x.csv") == (0, [])
    assert time.monotonic() - began < 5


@pytest.mark.core
def test_a_duplicate_name_is_still_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b,a\n1,2,3\n")

    assert "duplicate column name 'a'" in read("csv", tmp_path / "x.csv")


def checksum(data):
    """TFRecord's: CRC-32C, rotated, so that the length is believed."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.core
@pytest.mark.parametrize("length", [2**40, 2**63, 2**64 - 1, 101])
def test_a_record_longer_than_its_file_is_refused(length, tmp_path):
    """TensorFlow makes room for as many bytes as the record says: at 2^40 the process ended with a segmentation fault."""
    head = struct.pack("<Q", length)
    (tmp_path / "x.tfrecord").write_bytes(head + struct.pack("<I", checksum(head)) + b"x" * 104)

    assert f"the record at byte 0 has {length:,} bytes by its header, but the file ends after 100" in read(
        "tfrecord", tmp_path / "x.tfrecord"
    )


@pytest.mark.core
def test_an_invalid_example_is_a_bad_row_at_any_position(tmp_path):
    good = tf.train.Example(features=tf.train.Features(feature={"a": tf.train.Feature()})).SerializeToString()
    with tf.io.TFRecordWriter(str(tmp_path / "x.tfrecord")) as writer:
        for record in (b"\xff\xff", good, b"\xff\xff", good):
            writer.write(record)

    assert read("tfrecord", tmp_path / "x.tfrecord") == (2, ["not a tf.Example"] * 2)
