"""The default preprocessing: what it makes of numbers, in the examples and in the graph that is served."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import schema_utils
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from switchyard.components import progress
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
def test_seconds_that_float32_cannot_tell_apart_stay_as_many_values(name, transformed):
    for values in transformed[name]:
        assert values.dtype == np.float32
        assert len(np.unique(values[:, 0])) == 1000
        np.testing.assert_allclose(values[:, 0], (np.arange(1000) - 499.5) / np.arange(1000).std(), atol=1e-5)


def test_ids_beyond_float64_with_gaps_stay_as_many_values_as_float64_knows(transformed):
    for values in transformed["gap"]:
        present = values[np.arange(1000) % 5 != 0, 0]
        assert len(np.unique(present)) > 780
        assert (values[np.arange(1000) % 5 == 0] == 0).all()


def test_what_is_served_is_transformed_as_the_examples_are(transformed):
    for examples, served in transformed.values():
        np.testing.assert_array_equal(examples, served)


def test_wide_data_says_which_column_is_prepared():
    said = []
    progress.set_sink(said.append)
    try:
        with tf.Graph().as_default():
            inputs = {f"c{i}": tf.compat.v1.placeholder(tf.float32, [None, 1]) for i in range(50)}
            preprocessing_fn(inputs, {"label": "y", "classes": [], "unusable": [], "code": None})
    finally:
        progress.set_sink(None)
    assert said == [*(f"preparing column {i} of 50" for i in range(1, 51)), "50 columns are analyzed and transformed"]
