"""The default preprocessing scales all numbers as one matrix, as each column alone would be."""

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import schema_utils
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from switchyard.components.bundle.transform_graph import transform_function
from switchyard.components.transform.preprocessing import _dense, default_features


def test_columns_scaled_as_one_matrix_equal_those_scaled_one_by_one(tmp_path):
    spec = {
        "float": tf.io.FixedLenFeature([1], tf.float32),
        "vector": tf.io.FixedLenFeature([3], tf.float32),
        "square": tf.io.FixedLenFeature([2, 2], tf.float32),
        "gap": tf.io.VarLenFeature(tf.float32),
        "whole_gap": tf.io.VarLenFeature(tf.int64),
        "never": tf.io.VarLenFeature(tf.float32),
        "constant": tf.io.FixedLenFeature([1], tf.int64),
        "infinite": tf.io.FixedLenFeature([1], tf.float32),
        "word": tf.io.VarLenFeature(tf.string),
    }

    def both(inputs):
        alone = {}
        for name, value in inputs.items():
            if name != "word":
                is_vector = isinstance(value, tf.Tensor) and value.shape.as_list() == [None, 3]
                scaled = tft.scale_to_z_score(tf.cast(value, tf.float64), elementwise=is_vector)
                alone[f"{name}_alone"] = _dense(tf.cast(scaled, tf.float32))
        return alone | default_features(inputs)

    random = np.random.default_rng(1)
    rows = [
        {
            "float": [random.lognormal(3, 2)],
            "vector": random.normal([1e6, -5, 0], [1, 1e-3, 100]),
            "square": random.normal(size=(2, 2)),
            "gap": [] if i % 3 else [random.normal(7, 3)],
            # No value in the first batches.
            "whole_gap": [] if i < 2500 or i % 2 else [1_700_000_000 + i],
            "never": [],
            "constant": [5],
            "infinite": [np.inf if i % 10 == 0 else random.normal()],
            "word": [] if i % 4 else [f"w{i % 9}"],
        }
        for i in range(3000)
    ]
    metadata = DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    with tft_beam.Context(str(tmp_path / "temporary")):
        (data, _), graph = (rows, metadata) | tft_beam.AnalyzeAndTransformDataset(both)
        _ = graph | tft_beam.WriteTransformFn(str(tmp_path / "graph"))
    for name in spec.keys() - {"word"}:
        alone, together = (np.stack([np.ravel(row[n]) for row in data]) for n in (f"{name}_alone", name))
        np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-7, err_msg=name)
    for name in ("gap", "whole_gap", "never", "word"):
        expected = [float(not row[name]) for row in rows]
        assert sorted(float(np.ravel(row[f"{name}_missing"])[0]) for row in data) == sorted(expected)
    words = np.array([np.ravel(row["word"])[0] for row in data])
    assert set(words) == set(range(10))  # nine words; a row without one has the unknown one
    layer = tft.TFTransformOutput(str(tmp_path / "graph")).transform_features_layer()
    seen_late = {
        **{n: tf.zeros([1, *spec[n].shape], spec[n].dtype) for n in ("float", "vector", "square", "constant", "infinite")},
        **{n: tf.sparse.from_dense(tf.constant([[2]], spec[n].dtype)) for n in ("gap", "whole_gap", "never")},
        "word": tf.sparse.from_dense(tf.constant([["w1"]])),
    }
    found = layer(seen_late)
    assert found["never"].numpy() == found["never_alone"].numpy() == [[2.0]]
    # What bundles save, without the layer.
    _, function = transform_function(tft.TFTransformOutput(str(tmp_path / "graph")).transform_savedmodel_dir)
    assert {n: v.numpy().tolist() for n, v in function(seen_late).items()} == {n: v.numpy().tolist() for n, v in found.items()}
    fewer = function({n: v for n, v in seen_late.items() if n not in ("constant", "word")})
    assert fewer["float"].numpy().tolist() == found["float"].numpy().tolist()
