"""A column's name that cannot be carried is refused by name, wherever it comes from: never half-read, never a stack trace."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.readers import READERS
from tests.security.awkward import names

pytestmark = pytest.mark.core


def write(kind, path, columns):
    if kind == "csv":
        path.write_text(
            ",".join('"' + c.replace('"', '""') + '"' for c in columns) + "\n" + ",".join("1" for _ in columns), newline=""
        )
    elif kind == "jsonl":
        path.write_text(json.dumps(dict.fromkeys(columns, 1)) + "\n")
    elif kind == "parquet":
        pa.parquet.write_table(pa.table({c: [1] for c in columns}), path)
    else:
        feature = {c: tf.train.Feature(int64_list=tf.train.Int64List(value=[1])) for c in columns}
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return str(path)


@pytest.mark.parametrize("kind", READERS)
def test_nul_in_a_name_is_refused_and_the_column_is_named(kind, tmp_path):
    file = write(kind, tmp_path / "data", ["a", "b\0c"])
    with pytest.raises(UserError, match=r"the name of column 2, 'b\\x00c', holds a NUL character. Rename it"):
        list(READERS[kind](file, BadRows(0), None))


@pytest.mark.parametrize("kind", READERS)
def test_any_other_name_is_read_unchanged(kind, tmp_path):
    file = write(kind, tmp_path / "data", names(tmp_path / "canary"))
    [batch] = READERS[kind](file, BadRows(0), None)
    assert sorted(batch.schema.names) == sorted(names(tmp_path / "canary"))


def test_a_header_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "data").write_bytes(b"a,b\xff\n1,2\n")
    with pytest.raises(UserError, match=r"is not utf-8 text: byte 0xff at offset 3, line 1\. Set data.csv.encoding"):
        list(READERS["csv"](str(tmp_path / "data"), BadRows(0), None))


@pytest.mark.parametrize("line", ['{"\\ud800": 1}', '{"a": "\\udfff"}'])
def test_half_a_surrogate_pair_makes_a_bad_row(line, tmp_path):
    (tmp_path / "data").write_text(line + '\n{"a": "x"}\n')
    bad = BadRows(5)
    [batch] = READERS["jsonl"](str(tmp_path / "data"), bad, None)
    assert batch.num_rows == 1
    assert bad.count == 1
