"""The default preprocessing: what it makes of numbers, in the examples and in the graph that is served."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.saved import saved_transform_io_v2
from tensorflow_transform.tf_metadata import schema_utils
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from switchyard.components import progress
from switchyard.components.compat import tft_output_sources
from switchyard.components.errors import UserError
from switchyard.components.transform.preprocessing import default_features, preprocessing_fn

pytestmark = pytest.mark.core

SPEC = {
    "t": tf.io.FixedLenFeature([1], tf.int64),
    "gap": tf.io.VarLenFeature(tf.int64),
    "f": tf.io.FixedLenFeature([1], tf.float32),
    "wide": tf.io.FixedLenFeature([2], tf.int64),
}
SECONDS = 1_700_000_000


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    """Returns the rows given, transformed by Beam, and the same by the graph that is served."""
    folder = str(tmp_path_factory.mktemp("graph"))
    rows = [
        {"t": [SECONDS + i], "gap": [] if i % 5 == 0 else [2**53 + 3 * i], "f": [float(i)], "wide": [SECONDS + i, -i]}
        for i in range(1000)
    ]
    metadata = DatasetMetadata(schema_utils.schema_from_feature_spec(SPEC))
    with tft_beam.Context(folder):
        (data, found), graph = (rows, metadata) | tft_beam.AnalyzeAndTransformDataset(default_features)
        _ = graph | tft_beam.WriteTransformFn(folder)
    layer = tft.TFTransformOutput(folder).transform_features_layer()
    raw = {n: tf.constant([r[n] for r in rows], SPEC[n].dtype) for n in ("t", "f", "wide")}
    raw["gap"] = tf.ragged.constant([r["gap"] for r in rows], tf.int64).to_sparse()
    served = layer(raw)
    names = [f.name for f in found.schema.feature]
    return {n: (np.stack([r[n] for r in data]).reshape(1000, -1), served[n].numpy().reshape(1000, -1)) for n in names}


@pytest.mark.parametrize("name", ["t", "wide"])
def test_seconds_that_float32_cannot_distinguish_stay_distinct(name, transformed):
    for values in transformed[name]:
        assert values.dtype == np.float32
        assert len(np.unique(values[:, 0])) == 1000
        np.testing.assert_allclose(values[:, 0], (np.arange(1000) - 499.5) / np.arange(1000).std(), atol=1e-5)


def test_ids_beyond_float64_with_missing_values_keep_the_values_that_float64_can_hold(transformed):
    for values in transformed["gap"]:
        present = values[np.arange(1000) % 5 != 0, 0]
        assert len(np.unique(present)) > 780
        assert (values[np.arange(1000) % 5 == 0] == 0).all()


def test_served_rows_are_transformed_like_the_examples(transformed):
    for examples, served in transformed.values():
        np.testing.assert_array_equal(examples, served)


def test_the_inputs_of_each_output_equal_those_that_transform_finds():
    dense = {name: tf.TensorSpec([None, 1], tf.float32) for name in "abc"}

    sparse_inputs = dict.fromkeys(("gap", "hole"), tf.SparseTensorSpec([None, None], tf.float32))

    @tf.function(input_signature=[{**dense, **sparse_inputs}])
    def computed(x):
        one, two = tf.split(tf.concat([x["a"], x["b"]], axis=1), 2, axis=1)
        sparse = {"gap": tf.sparse.map_values(tf.negative, x["gap"]), "filled": tf.sparse.to_dense(x["gap"])}
        # The values of both are made by one operation of `a` and `b`, their places by different inputs.
        values = tf.reshape(tf.concat([x["a"], x["b"]], axis=1), [-1])
        for name in ("gap", "hole"):
            sparse[f"at_{name}"] = tf.SparseTensor(x[name].indices, tf.identity(values), x[name].dense_shape)
        return {"one": one, "two": tf.abs(two), "c": x["c"], "copy": tf.identity(x["c"]), "sum": one + x["c"], **sparse}

    graph = computed.get_concrete_function().graph
    outputs = tf.nest.pack_sequence_as(graph.structured_outputs, graph.outputs, expand_composites=True)
    transforms_own = saved_transform_io_v2._get_output_to_inputs_map
    expected = transforms_own(outputs)
    tft_output_sources.install()
    try:
        found = saved_transform_io_v2._get_output_to_inputs_map(outputs)
    finally:
        saved_transform_io_v2._get_output_to_inputs_map = transforms_own
    assert {name: {t.name for t in each} for name, each in found.items()} == {
        name: {t.name for t in each} for name, each in expected.items()
    }
    assert found["one"] is found["two"]


def test_a_label_named_like_a_missing_indicator_does_not_replace_it():
    with tf.Graph().as_default():
        gap = tf.compat.v1.sparse_placeholder(tf.string, [None, None])
        inputs = {"b": gap, "b_missing": tf.compat.v1.placeholder(tf.int64, [None, 1])}
        found = preprocessing_fn(
            inputs, {"label": "b_missing", "labels": ["b_missing"], "classes": [0, 1], "unusable": [], "code": None}
        )
    assert {name: value.dtype for name, value in found.items()} == {
        "b": tf.int64,
        "b_missing": tf.int64,
        "b_missing_": tf.float32,
    }


def test_several_labels_are_one_tensor_in_their_order_and_no_features():
    settings = {"label": "b, a", "labels": ["b", "a"], "classes": [], "unusable": [], "code": None}
    inputs = {"a": tf.constant([[0], [1]], tf.int64), "b": tf.constant([[0.5], [1.5]])}
    found = preprocessing_fn(inputs, settings)
    assert found.keys() == {"b, a"}
    np.testing.assert_array_equal(found["b, a"].numpy(), np.float32([[0.5, 0], [1.5, 1]]))
    assert preprocessing_fn({}, settings) == {}, "a request that is served has no labels"


@pytest.mark.parametrize("classes", [["malignant", "benign"], [7, 3, 5]])
def test_a_labels_index_is_its_place_among_the_classes(classes):
    settings = {"label": "y", "labels": ["y"], "classes": classes, "unusable": [], "code": None}
    found = preprocessing_fn({"y": tf.constant([[c] for c in [*classes, classes[0]]])}, settings)
    assert found["y"].numpy().tolist() == [*range(len(classes)), 0]


def test_wide_data_reports_the_column_in_progress():
    said = []
    progress.set_sink(said.append)
    try:
        with tf.Graph().as_default():
            inputs = {f"c{i}": tf.compat.v1.placeholder(tf.string, [None, 1]) for i in range(50)}
            preprocessing_fn(inputs, {"label": "y", "labels": ["y"], "classes": [], "unusable": [], "code": None})
    finally:
        progress.set_sink(None)
    assert said == [
        *(f"preparing the vocabulary of column {i} of 50" for i in range(1, 51)),
        "50 columns are analyzed and transformed",
    ]


def test_texts_for_a_tokenizer_stay_texts_and_the_other_columns_are_features():
    settings = {"label": "y", "labels": ["y"], "classes": [], "unusable": [], "code": None, "tokenizer": {}}

    def made(texts):
        with tf.Graph().as_default():
            inputs = {
                "review": tf.compat.v1.placeholder(tf.string, [None, 1]),
                "comment": tf.compat.v1.sparse_placeholder(tf.string, [None, None]),
                "x": tf.compat.v1.placeholder(tf.int64, [None, 1]),
            }
            found = preprocessing_fn(inputs, {**settings, "texts": texts})
        return {name: value.dtype.name for name, value in found.items()}

    rest = {"x": "float32", "comment_missing": "float32"}
    assert made([]) == {"review": "string", "comment": "string", **rest}
    assert made(["comment"]) == {"review": "int64", "comment": "string", **rest}
    with pytest.raises(UserError, match=r"tokenizer\.columns: 'x' is no usable column of text; columns of text: review, comment"):
        made(["x"])
