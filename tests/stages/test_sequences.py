"""Sequences: padded or cut to one length, with a mask; scaled by the values alone; of any length in the served model."""

import json

import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import schema_utils

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.scan import InputSpec, scan
from switchyard.components.transform.executor import _in_environment
from switchyard.components.transform.preprocessing import padded
from switchyard.components.values.raw_features import raw_feature

ROWS = [[1, 2, 3, 4], [], [5]]
RAGGED = tf.ragged.constant(ROWS, dtype=tf.int64)


@pytest.mark.parametrize(
    "values", [RAGGED.to_sparse(), tf.constant([[1, 2, 3, 4], [5, 6, 7, 8]], tf.int64)], ids=["sparse", "dense"]
)
def test_a_sequence_is_cut_at_the_wanted_end(values):
    assert padded(values, 3, "first")[0][0].numpy().tolist() == [1, 2, 3]
    assert padded(values, 3, "last")[0][0].numpy().tolist() == [2, 3, 4]
    assert padded(values, 6, "last")[0][0].numpy().tolist() == [1, 2, 3, 4, 0, 0]


def test_the_mask_tells_a_zero_from_padding():
    values, mask = padded(tf.ragged.constant([[0, 0], [], [7]], dtype=tf.int64).to_sparse(), 3, "first")
    assert values.numpy().tolist() == [[0, 0, 0], [0, 0, 0], [7, 0, 0]]
    assert mask.numpy().tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert (values.shape.as_list(), mask.dtype) == ([3, 3], tf.float32)


def test_sequences_of_one_length_in_training_may_have_any_length_later(tmp_path):
    dense = {"s": tf.io.FixedLenFeature([4], tf.int64), "x": tf.io.FixedLenFeature([1], tf.float32)}
    schema = schema_utils.schema_from_feature_spec(dense)
    _in_environment(schema, None, ["s"], str(tmp_path))
    found = schema_utils.schema_as_feature_spec(schema).feature_spec
    assert isinstance(found["s"], tf.io.VarLenFeature)
    assert isinstance(found["x"], tf.io.FixedLenFeature)
    assert schema.feature[0].type == schema_pb2.INT
    summary = DatasetSummary(
        "f", [], {"s": "integer"}, {}, {}, 0, [], [], "y", "binary", [0, 1], {}, sequences={"s": {"length": 4, "keep": "first"}}
    )
    assert raw_feature("s", summary, "int64", None).is_list


def scanned(folder, values):
    rows = [{"s": value, "y": i % 2} for i, value in enumerate(values)]
    (folder / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = InputSpec(
        path=[str(folder / "d.jsonl")], weights={"train": 1, "eval": 1}, format="auto", exclude=[], max_bad_rows=0, label="y",
        task="binary", columns={"s": "sequence"}, sequences={"s": {"length": 4, "keep": "first"}},
    )  # fmt: skip
    return scan(spec, BadRows(0)).types["s"]


def test_a_sequence_holds_numbers(tmp_path):
    assert scanned(tmp_path, [[1, 2], [], None, [3.5]]).kind == "float"
    assert scanned(tmp_path, [[1], [2]]).kind == "integer"
    for values in (["a", "b"], [["a"], ["b", "c"]]):
        with pytest.raises(UserError, match=r"data\.columns: 's' is declared a sequence, .* values of type string"):
            scanned(tmp_path, values)
