"""Which vocabulary is behind a transformed feature, by the default preprocessing and by a `preprocessing_fn`."""

import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import metadata_io, schema_utils
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from switchyard.components.training.vocabularies import Vocabulary
from switchyard.components.transform.columns import feature_specs
from switchyard.components.transform.preprocessing import preprocessing_fn
from switchyard.components.transform.vocabularies import vocabularies

COMBINED = """
import tensorflow as tf
import tensorflow_transform as tft

def preprocessing_fn(inputs):
    tokens = tf.strings.split(inputs["text"][:, 0]).to_sparse()
    words = tft.compute_and_apply_vocabulary(tokens, num_oov_buckets=1)
    padded = tf.sparse.to_dense(tf.SparseTensor(words.indices, words.values + 1, words.dense_shape), default_value=0)
    both = tf.strings.join([inputs["city"], inputs["kind"]], "/")
    return {
        "tokens": tf.reshape(tf.pad(padded, [[0, 0], [0, 3]])[:, :3], [-1, 3]),
        "code": tft.compute_and_apply_vocabulary(inputs["code"], num_oov_buckets=1),
        CROSSED
    }
"""
CROSSED = '"both": tft.compute_and_apply_vocabulary(both, num_oov_buckets=1)'
ROWS = [
    {"text": ["a b"], "city": ["x"], "kind": ["k"], "code": [7]},
    {"text": ["a"], "city": ["x"], "kind": ["l"], "code": [7]},
    {"text": ["a b c"], "city": ["y"], "kind": ["k"], "code": [5]},
]


@pytest.fixture
def found(tmp_path):
    """Returns a function: code of a `preprocessing_fn`, or None -> feature -> vocabulary."""

    def get(code):
        (tmp_path / "mine.py").write_text(code or "")
        settings = {"label": "y", "labels": ["y"], "classes": [], "unusable": [], "code": None}
        if code:
            settings["code"] = {"path": str(tmp_path / "mine.py"), "function": "preprocessing_fn"}
        spec = dict.fromkeys(("text", "city", "kind"), tf.io.FixedLenFeature([1], tf.string))
        spec["code"] = tf.io.FixedLenFeature([1], tf.int64)
        metadata = DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
        with tft_beam.Context(str(tmp_path / "tmp")):
            _, graph = (ROWS, metadata) | tft_beam.AnalyzeAndTransformDataset(lambda inputs: preprocessing_fn(inputs, settings))
            _ = graph | tft_beam.WriteTransformFn(str(tmp_path))
        metadata_io.write_metadata(metadata, str(tmp_path / "metadata"))
        output = tft.TFTransformOutput(str(tmp_path))
        return vocabularies(output, feature_specs(output.transformed_metadata.schema, ["y"]), {})

    return get


def test_the_default_has_a_vocabulary_for_each_text(found):
    assert found(None) == {
        "city": Vocabulary(3, ("x", "y")),
        "kind": Vocabulary(3, ("k", "l")),
        "text": Vocabulary(4, ("a b c", "a b", "a")),
    }


def test_tokens_behind_padding_and_numbers_have_theirs(found):
    assert found(COMBINED.replace("CROSSED", "")) == {
        "tokens": Vocabulary(5, ("a", "b", "c"), before=1),
        "code": Vocabulary(3, ("7", "5")),
    }


def test_what_is_combined_to_a_word_is_not_known(found):
    crossed = found(COMBINED.replace("CROSSED", CROSSED))
    assert not crossed["both"].known
    assert crossed["tokens"].words == ("a", "b", "c")
