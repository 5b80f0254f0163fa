"""`vocabulary_size` in `build_model(spec)`, of indices that a `preprocessing_fn` has padded: what an embedding needs."""

import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import schema_utils
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from switchyard.components.transform.columns import feature_specs
from switchyard.components.transform.preprocessing import preprocessing_fn

# Four words; with a bucket for unknown ones there are five indices.
CODE = """
import tensorflow as tf
import tensorflow_transform as tft

def preprocessing_fn(inputs):
    tokens = tf.strings.split(inputs["text"][:, 0]).to_sparse()
    words = tft.compute_and_apply_vocabulary(tokens, num_oov_buckets=1, vocab_filename="v")
    strict = tft.compute_and_apply_vocabulary(inputs["text"], vocab_filename="w")
    dense = tf.reshape(tf.sparse.to_dense(words, default_value=0)[:, :3], [-1, 3])
    end = tf.sparse.to_dense(words, default_value=99)[:, :3]
    ragged = tf.RaggedTensor.from_sparse(tf.SparseTensor(words.indices, words.values + 1, words.dense_shape))
    count = tf.strings.length(inputs["text"])
    return {
        "plain": strict,
        "zeros": dense,
        "behind": tf.reshape(end, [-1, 3]),
        "shifted": tf.reshape(ragged.to_tensor(0, shape=[None, 3]), [-1, 3]),
        "padded": tf.pad(dense, [[0, 0], [0, 2]], constant_values=7),
        "joined": tf.concat([dense, dense + 10], axis=1),
        "masked": tf.where(dense > 2, tf.zeros_like(dense), dense),
        "sum": dense + dense,
        "length": tf.cast(count, tf.int64),
        "share": tf.cast(dense, tf.float32),
    }
"""


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    (folder / "mine.py").write_text(CODE)
    settings = {
        "label": "y",
        "labels": ["y"],
        "classes": [],
        "unusable": [],
        "code": {"path": str(folder / "mine.py"), "function": "preprocessing_fn"},
    }
    metadata = DatasetMetadata(schema_utils.schema_from_feature_spec({"text": tf.io.FixedLenFeature([1], tf.string)}))
    rows = [{"text": [t]} for t in ("a b c d", "a b c", "a", "a b c")]
    with tft_beam.Context(str(folder / "tmp")):
        _, graph = (rows, metadata) | tft_beam.AnalyzeAndTransformDataset(lambda inputs: preprocessing_fn(inputs, settings))
        _ = graph | tft_beam.WriteTransformFn(str(folder))
    return {
        f.name: f.vocabulary_size for f in feature_specs(tft.TFTransformOutput(str(folder)).transformed_metadata.schema, ["y"])
    }


@pytest.mark.parametrize(
    ("feature", "size"),
    [
        ("plain", 3),
        ("zeros", 5),
        ("behind", 100),
        ("shifted", 6),
        ("padded", 8),
        ("joined", 15),
        ("masked", 5),
        ("sum", None),
        ("length", None),
        ("share", None),
    ],
)
def test_the_size_covers_every_index_that_the_feature_can_hold(feature, size, sizes):
    assert sizes[feature] == size
