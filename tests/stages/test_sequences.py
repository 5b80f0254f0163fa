"""Sequences: padded or cut to one length, with a mask; scaled by the values alone; of any length in the served model."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import schema_utils
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.data.schema import NO_VALUE
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import ColumnType
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.ingest.scan import scan
from switchyard.components.transform.columns import feature_specs
from switchyard.components.transform.executor import _in_environment, unusable_features
from switchyard.components.transform.preprocessing import padded, preprocessing_fn
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


def test_a_sequence_holds_lists_of_numbers_or_of_texts(tmp_path):
    assert scanned(tmp_path, [[1, 2], [], None, [3.5]]) == ColumnType("float", is_list=True)
    assert scanned(tmp_path, [["a"], ["b", "c"]]) == ColumnType("string", is_list=True)
    assert scanned(tmp_path, [["a"], []]) == ColumnType("string", is_list=True)
    assert scanned(tmp_path, [[1], [2]]) == ColumnType("integer", is_list=True)


def test_single_values_are_no_sequence_and_beside_lists_lists_of_one(tmp_path):
    for values, kind in (([5, 6], "integer"), (["a", "b"], "string"), ([True, False], "integer")):
        with pytest.raises(
            UserError, match=rf"data\.columns: 's' is declared a sequence, .* one value of type {kind}; write lists"
        ):
            scanned(tmp_path, values)
    assert scanned(tmp_path, [5, [6, 7]]) == ColumnType("integer", is_list=True)
    assert scanned(tmp_path, ["a", ["b"]]) == ColumnType("string", is_list=True)


SPEC = {"s": tf.io.VarLenFeature(tf.float32), "t": tf.io.VarLenFeature(tf.string), "x": tf.io.FixedLenFeature([1], tf.float32)}
HOW = {"length": 3, "keep": "first"}


def transformed(folder, rows, unusable=()):
    """Returns the rows by the default preprocessing, and the graph that is served."""
    config = {
        "label": "y",
        "labels": ["y"],
        "classes": [0, 1],
        "code": None,
        "unusable": dict.fromkeys(unusable, ""),
        "sequences": {"s": {**HOW, "mask": "s_mask"}, "t": {**HOW, "mask": "t_mask"}},
    }
    metadata = DatasetMetadata(schema_utils.schema_from_feature_spec(SPEC))
    with tft_beam.Context(folder):
        (data, _), graph = (rows, metadata) | tft_beam.AnalyzeAndTransformDataset(lambda raw: preprocessing_fn(raw, config))
        _ = graph | tft_beam.WriteTransformFn(folder)
    output = tft.TFTransformOutput(folder)
    names = feature_specs(output.transformed_metadata.schema, ())
    return {f.name: np.stack([row[f.name] for row in data]) for f in names}, {f.name: f for f in names}, output


@pytest.mark.core
def test_a_sequence_of_texts_becomes_indices_with_one_for_the_padding_and_one_for_unknown_words(tmp_path):
    rows = [{"s": [1.0], "t": t, "x": [0.0]} for t in ([b"a", b"b", b"a", b"c"], [b"a"], [], [b"b", b"b", b"d"])]
    found, specs, output = transformed(str(tmp_path), rows)
    assert specs["t"] == FeatureSpec("t", "int64", (3,), 5)  # the padding, a, b, d, and all others: c is cut off
    assert found["t"].tolist() == [[1, 2, 1], [1, 0, 0], [0, 0, 0], [2, 2, 3]] or found["t"].tolist() == [
        [2, 1, 2], [2, 0, 0], [0, 0, 0], [1, 1, 3]
    ]  # fmt: skip
    assert found["t_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]]
    served = output.transform_features_layer()(
        {"s": tf.sparse.from_dense([[2.0]]), "t": tf.sparse.from_dense([["new", "d", "a", "b"]]), "x": tf.constant([[0.0]])}
    )
    assert served["t"].numpy().tolist() == [[4, 3, found["t"][1][0]]]


def test_a_sequence_without_a_value_in_training_is_left_out_by_the_default(tmp_path):
    rows = [{"s": [], "t": [], "x": [float(i)]} for i in range(4)]
    found, _, output = transformed(str(tmp_path), rows, unusable=["s", "t"])
    assert sorted(found) == ["x"]
    raw = {"s": tf.sparse.from_dense([[2.0]]), "t": tf.sparse.from_dense([["a"]]), "x": tf.constant([[1.5]])}
    assert np.isfinite(output.transform_features_layer()(raw)["x"].numpy()).all()
    schema = schema_utils.schema_from_feature_spec(SPEC)
    schema.feature[0].annotation.tag.append(NO_VALUE)
    assert unusable_features(schema, (), ["s", "t"]) == {"s": "it has no value in the training split"}
