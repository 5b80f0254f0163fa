"""The input of every trainer: what is written is what is read, in the same batches by every framework."""

import math

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import torch
from tensorflow_transform.tf_metadata.schema_utils import schema_from_feature_spec

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError
from switchyard.components.ingest.config import AugmentConfig
from switchyard.components.training.augmentation import augmented
from switchyard.components.training.columns import FILE, features_json
from switchyard.components.training.example_source import Shard, blocks
from switchyard.components.training.examples import Examples, columns_of, transformed_examples
from switchyard.components.training.pytorch.batches import DeviceColumns, fits, one_ahead
from switchyard.components.training.pytorch.batches import batches as pytorch_batches
from switchyard.components.training.tensorflow.batches import dataset
from switchyard.components.transform import columns as written
from switchyard.components.transform.columns import WriteColumns, feature_specs

pytestmark = pytest.mark.core

ROWS = 1000
SHAPES = {"a": ((1,), "float32"), "b": ((), "float32"), "c": ((1,), "int64"), "image": ((2, 3), "float32"), "z": ((4,), "int64")}
SPEC = {name: tf.io.FixedLenFeature(shape, dtype) for name, (shape, dtype) in SHAPES.items()}
SCHEMA = schema_from_feature_spec(SPEC | {"y": tf.io.FixedLenFeature([], tf.int64)})
SPECS = feature_specs(SCHEMA, ["y"])
ORDERS = {"as in the files": {}, "seed 1": {"seed": 1}, "seed 1, epoch 3": {"seed": 1, "epoch": 3}}


def columns(rows=ROWS):
    """Of each row and feature other numbers."""
    random = np.random.default_rng(0)
    found = {
        n: random.normal(size=(rows, *shape)).astype(d) if d == "float32" else random.integers(0, 9, (rows, *shape))
        for n, (shape, d) in SHAPES.items()
    }
    return found, np.arange(rows)


def record_batches(features, labels, size):
    for i in range(0, len(labels), size):
        part = {n: v[i : i + size] for n, v in (*features.items(), ("y", labels))}
        yield pa.RecordBatch.from_pydict(
            {n: pa.array(v.reshape(len(v), -1).tolist(), pa.large_list(pa.from_numpy_dtype(v.dtype))) for n, v in part.items()}
        )


def write(folder, features, labels, size=64, schema=SCHEMA, weight=""):
    with beam.Pipeline() as pipeline:
        given = pipeline | beam.Create([0]) | beam.FlatMap(lambda _: [(b, {}) for b in record_batches(features, labels, size)])
        _ = given | WriteColumns(schema, "y", str(folder / "Split-train" / "examples"), weight=weight)
    (folder / FILE).write_text(features_json(SPECS))
    return folder


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """1,000 rows in four files."""
    folder = tmp_path_factory.mktemp("transformed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written, "SHARD_ROWS", 256)
        return write(folder, *columns())


@pytest.fixture(params=["memory", "windows"])
def source(artifact, request):
    whole = transformed_examples(artifact, "train")
    if request.param == "memory":
        return whole
    # Windows of 192 rows.
    return Examples(whole.blocks, whole._parts, memory_bytes=0, window_bytes=64 * 3 * whole._row_bytes)


def test_columns_are_read_as_they_were_written(artifact):
    features, labels = columns()
    found, found_labels = next(transformed_examples(artifact, "train").batches(ROWS))
    np.testing.assert_array_equal(found_labels, labels)
    assert set(found) == set(SHAPES)
    for name, values in features.items():
        np.testing.assert_array_equal(found[name].reshape(values.shape), values)
        assert found[name].dtype == values.dtype
    assert found["b"].shape == (ROWS, 1), "a scalar is a column"


def test_several_label_columns_stay_beside_their_rows(tmp_path):
    schema = schema_from_feature_spec(SPEC | {"y": tf.io.FixedLenFeature([2], tf.float32)})
    features, number = columns(200)
    labels = np.stack([number, -number], axis=1).astype(np.float32)
    source = transformed_examples(write(tmp_path, features, labels, schema=schema), "train")
    order = {"seed": 1, "epoch": 3}
    expected = list(source.batches(30, **order))
    assert all(of.shape == (len(f["a"]), 2) for f, of in expected)
    for found, of in expected:
        np.testing.assert_array_equal(found["a"], features["a"][of[:, 0].astype(int)])
        np.testing.assert_array_equal(of[:, 1], -of[:, 0])
    by_keras = dataset(source, 30, seed=1, first_epoch=3)
    by_torch = pytorch_batches(source, 30, **order)
    for (_, labels), (_, keras_labels), (_, torch_labels) in zip(expected, by_keras, by_torch, strict=True):
        np.testing.assert_array_equal(keras_labels.numpy(), labels)
        np.testing.assert_array_equal(torch_labels.numpy(), labels)


def test_files_are_of_bounded_size_and_the_same_when_written_again(artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(written, "SHARD_ROWS", 256)
    again = write(tmp_path, *columns())
    files, others = (sorted((f / "Split-train").iterdir()) for f in (artifact, again))
    assert [f.name for f in files] == [f"examples-{i:05d}-of-00004.arrow" for i in range(4)], "and nothing else is left"
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in others]


def test_a_run_killed_while_writing_leaves_no_file(tmp_path):
    features, labels = columns(10)

    def rows(_):
        yield next(record_batches(features, labels, 5)), {}
        raise RuntimeError("died")

    with pytest.raises(RuntimeError, match="died"), beam.Pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create([0])
            | beam.FlatMap(rows)
            | WriteColumns(SCHEMA, "y", str(tmp_path / "Split-train" / "examples"))
        )
    assert not list((tmp_path / "Split-train").glob("examples*"))


def test_scalars_of_one_type_share_one_array(source):
    assert [(b.names, b.width) for b in source.blocks] == [(("a", "b"), 2), (("c",), 1), (("image",), 6), (("z",), 4)]
    many = blocks([FeatureSpec(f"x{i}", "float32", (1,)) for i in range(100)])
    assert [b.width for b in many] == [100]


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("shard", [Shard(), Shard(1, 3)], ids=["whole", "a third"])
@pytest.mark.parametrize("batch", [6, 96, 999, 3000])
def test_both_frameworks_get_the_same_batches(source, order, shard, batch):
    wanted = list(source.batches(batch, shard=shard, **order))
    assert len(wanted) == math.ceil(ROWS / batch)
    given = {"first_epoch" if k == "epoch" else k: v for k, v in order.items()}
    of_tensorflow = list(dataset(source, batch, shard=shard, **given).as_numpy_iterator())
    of_pytorch = list(pytorch_batches(source, batch, shard=shard, **order))
    assert len(of_tensorflow) == len(of_pytorch) == len(wanted)
    for (features, labels), (keras_features, keras_labels), (torch_features, torch_labels) in zip(
        wanted, of_tensorflow, of_pytorch, strict=True
    ):
        np.testing.assert_array_equal(keras_labels, labels)
        np.testing.assert_array_equal(torch_labels.numpy(), labels)
        assert features.keys() == keras_features.keys() == torch_features.keys()
        for name, values in features.items():
            np.testing.assert_array_equal(keras_features[name], values)
            np.testing.assert_array_equal(torch_features[name].numpy(), values)
            assert torch_features[name].shape == keras_features[name].shape == values.shape


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("shard", [Shard(), Shard(1, 3)], ids=["whole", "a third"])
@pytest.mark.parametrize("batch", [6, 96, 999, 3000])
def test_a_split_on_the_device_is_gathered_into_the_same_batches(artifact, order, shard, batch):
    source = transformed_examples(artifact, "train")
    wanted = list(source.batches(batch, shard=shard, **order))
    gathered = list(DeviceColumns(source, torch.device("cpu")).batches(batch, shard=shard, **order))
    for (features, labels), (found, found_labels) in zip(wanted, gathered, strict=True):
        np.testing.assert_array_equal(found_labels.numpy(), labels)
        assert found.keys() == features.keys()
        for name, values in features.items():
            np.testing.assert_array_equal(found[name].numpy(), values)


def test_a_split_is_kept_on_the_device_if_it_needs_at_most_a_quarter_of_the_free_memory(artifact):
    whole = transformed_examples(artifact, "train")
    size = ROWS * whole._row_bytes
    assert fits(whole, 4 * size)
    assert not fits(whole, 4 * size - 4)
    assert not fits(Examples(whole.blocks, whole._parts, memory_bytes=0), 100 * size)


def test_a_block_is_sent_before_the_previous_one_is_used():
    events = []

    def sent():
        for block in range(3):
            events.append(f"sent {block}")
            yield block

    for block in one_ahead(sent()):
        events.append(f"used {block}")
    assert events == ["sent 0", "sent 1", "used 0", "sent 2", "used 1", "used 2"]


def test_tensorflow_gets_the_epochs_in_order(source):
    wanted = [labels.tolist() for epoch in (4, 5) for _, labels in source.batches(300, seed=1, epoch=epoch)]
    found = [labels.tolist() for _, labels in dataset(source, 300, seed=1, first_epoch=4, epochs=2).as_numpy_iterator()]
    assert found == wanted


def test_an_epochs_order_depends_on_its_seed_and_number_and_not_on_the_files(source, tmp_path):
    def order(examples, seed, epoch):
        return np.concatenate([labels for _, labels in examples.batches(64, seed=seed, epoch=epoch)]).tolist()

    one_file = transformed_examples(write(tmp_path, *columns()), "train")
    if not source._in_memory:
        one_file = Examples(one_file.blocks, one_file._parts, memory_bytes=0, window_bytes=64 * 3 * one_file._row_bytes)
    assert order(source, 1, 2) == order(one_file, 1, 2) == order(source, 1, 2)
    assert len({tuple(order(source, seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    assert sorted(order(source, 1, 2)) == list(range(ROWS))


def test_beyond_memory_a_batch_mixes_rows_of_the_whole_data(source):
    batch = next(source.batches(64, seed=1))[1]
    assert np.ptp(batch) > ROWS / 2
    assert len(set(batch.tolist())) == 64


def test_a_model_that_changes_its_input_changes_nothing_else(source):
    features, _ = next(pytorch_batches(source, 100))
    for values in features.values():
        values.zero_()
    again, _ = next(pytorch_batches(source, 100))
    assert torch.count_nonzero(again["image"]) > 500


def test_examples_without_columns_are_refused_with_the_fix(tmp_path):
    with pytest.raises(UserError, match=r"has no columns.json: .*run again in a new workspace"):
        transformed_examples(tmp_path, "train")


def test_both_frameworks_train_on_the_same_changed_images():
    pixels = np.random.default_rng(0).random((50, 6, 7, 1)).astype(np.float32)
    specs = [FeatureSpec("photo", "float32", (6, 7, 1))]
    plain = Examples(blocks(specs), [columns_of({"photo": pixels}, np.arange(50), specs)])
    source = augmented(plain, {"photo": AugmentConfig(flip="horizontal", shift=0.2, rotate=20)})
    expected = list(source.batches(8, seed=1, epoch=3))
    by_keras, by_torch = dataset(source, 8, seed=1, first_epoch=3), pytorch_batches(source, 8, seed=1, epoch=3)
    for (features, labels), (of_keras, keras_labels), (of_torch, torch_labels) in zip(expected, by_keras, by_torch, strict=True):
        assert not (features["photo"] == pixels[labels]).all(axis=(1, 2, 3)).any()
        for found, of in ((of_keras, keras_labels), (of_torch, torch_labels)):
            np.testing.assert_array_equal(found["photo"].numpy(), features["photo"])
            np.testing.assert_array_equal(of.numpy(), labels)
    for (found, _), (features, _) in zip(dataset(source, 8), plain.batches(8), strict=True):  # as in evaluation
        np.testing.assert_array_equal(found["photo"].numpy(), features["photo"])
