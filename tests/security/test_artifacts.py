"""Files that a stage left for the next one, damaged or changed in between: refused by name, and no memory beside them is read."""

import struct

import numpy as np
import pyarrow as pa
import pytest

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError
from switchyard.components.training.columns import FILE, ColumnsWriter, features_json
from switchyard.components.training.example_source import blocks
from switchyard.components.training.examples import transformed_examples
from tests.security.hostile import confined

pytestmark = pytest.mark.core
ROWS = 777
SPECS = (FeatureSpec("a", "float32", (1,), None),)


@pytest.fixture
def artifact(tmp_path):
    """The columns of one feature."""
    (tmp_path / "Split-train").mkdir()
    (tmp_path / FILE).write_text(features_json(SPECS))
    with (tmp_path / "Split-train" / "x.arrow").open("wb") as file:
        writer = ColumnsWriter(file, blocks(SPECS), "int64")
        writer.write(((np.ones((ROWS, 1), np.float32),), np.zeros(ROWS, np.int64)))
        writer.close()
    return tmp_path


@pytest.fixture(scope="module")
def child():
    """Calls a function in a process that may take a gibibyte beside its imports."""
    with confined(1024) as call:
        yield call


def total(folder):
    """Reads every value, in a process that may crash."""
    try:
        [(features, labels)] = transformed_examples(folder, "train").batches(10**9)
    except UserError as error:
        return str(error)
    return float(features["a"].sum() + labels.sum())


def table(file):
    return pa.ipc.open_file(pa.BufferReader(file.read_bytes())).read_all()


def written(table, **options):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def more_rows(file):
    """A thousand times as many rows as there are bytes for: 777,000 of them are in no file."""
    return file.read_bytes().replace(struct.pack("<q", ROWS), struct.pack("<q", ROWS * 1000))


def as_many_rows_as_memory_has_not(file):
    return file.read_bytes().replace(struct.pack("<q", ROWS), struct.pack("<q", 10**11))


def cut(file):
    return file.read_bytes()[:-40]


def cut_within(file):
    return file.read_bytes()[:300] + file.read_bytes()[-400:]


def nothing(file):
    return b""


def compressed(file):
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(1 << 20, np.float32)), 1)
    large = pa.table([pa.array(np.zeros(1 << 20, np.int64)), zeros], names=table(file).column_names)
    return written(large.cast(table(file).schema), compression="zstd")


def other_columns(file):
    return written(table(file).select(["label"]))


def texts(file):
    return written(table(file).set_column(1, "block_0", pa.array(["x"] * ROWS)))


def gaps(file):
    lists = pa.array([None, *[[1.0]] * (ROWS - 1)], pa.list_(pa.float32(), 1))
    return written(pa.table([pa.array(np.zeros(ROWS, np.int64)), lists], names=["label", "block_0"]))


@pytest.mark.parametrize(
    "change",
    [more_rows, as_many_rows_as_memory_has_not, cut, cut_within, nothing, compressed, other_columns, texts, gaps],
)
def test_columns_changed_after_they_were_written_are_refused(artifact, child, change):
    file = artifact / "Split-train" / "x.arrow"
    assert total(artifact) == ROWS
    file.write_bytes(change(file))

    said = child(total, artifact)

    assert str(said).startswith(f"{file} is damaged: ")
    assert said.endswith(f"Delete the folder {artifact} and run again, which writes it again.")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"features": [{"name": "a"}]}', '{"features": 1}', '{"features": [{"shape": 3}]}']
)
def test_a_damaged_description_of_the_columns_is_refused(artifact, content):
    (artifact / FILE).write_text(content)

    assert total(artifact).startswith(f"{artifact / FILE} is damaged: ")


@pytest.mark.parametrize("where", [9, 200, -1])
def test_damaged_examples_are_named(tmp_path, where):
    import tensorflow as tf

    from switchyard.components.data.tfrecords import read_batches

    (tmp_path / "Split-train").mkdir()
    file = tmp_path / "Split-train" / "data.tfrecord"
    one = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0] * 50))
    with tf.io.TFRecordWriter(str(file)) as writer:
        for _ in range(5):
            writer.write(tf.train.Example(features=tf.train.Features(feature={"a": one})).SerializeToString())
    content = bytearray(file.read_bytes())
    content[where] ^= 255
    file.write_bytes(content)

    with pytest.raises(UserError, match=f"{file} is damaged: corrupted record at .*Delete the folder {tmp_path} and run again"):
        list(read_batches(str(file), None, 1))
