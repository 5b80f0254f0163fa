"""The data gate's check of sample weights, and their way through Transform's columns to every framework's batches."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
import torch

from switchyard.components.data_gate.sample_weights import weight_findings
from switchyard.components.training.columns import FILE, features_json
from switchyard.components.training.example_source import Shard
from switchyard.components.training.examples import Examples, transformed_examples
from switchyard.components.training.pytorch.batches import DeviceColumns
from switchyard.components.training.pytorch.batches import batches as pytorch_batches
from switchyard.components.training.tensorflow.batches import dataset
from switchyard.components.transform.preprocessing import preprocessing_fn
from tests.stages.test_example_batches import ROWS, SPECS, columns, write

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("values", "anomalies"),
    [
        ([0.0, 1.0, 2.5, 4.0], []),
        ([1, 2, 3, 0], []),
        ([1.0, -2.0, 3.0, 4.0], ["negative sample weights"]),
        ([1.0, None, 3.0, 4.0], ["missing sample weights"]),
        ([1.0, float("inf"), 3.0, 4.0], ["infinite sample weights"]),
        ([0.0, 0.0, 0.0, 0.0], ["all sample weights are 0"]),
        ([0, 0, 0, 0], ["all sample weights are 0"]),
        ([None, None, 0.0, -1.0], ["missing sample weights", "negative sample weights"]),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # TFDV's arithmetic with infinity
def test_weights_that_cannot_be_used_stop_the_run(values, anomalies):
    statistics = tfdv.generate_statistics_from_dataframe(pd.DataFrame({"w": values, "x": range(4)}))
    findings = weight_findings(statistics, "train", "w")
    assert [f.anomaly for f in findings] == anomalies
    assert all(f.action == "fail" and "trainer.sample_weight=null" in f.sentence() for f in findings)


def test_a_split_without_any_weight_stops_the_run():
    statistics = tfdv.generate_statistics_from_dataframe(pd.DataFrame({"x": range(4)}))
    assert [f.anomaly for f in weight_findings(statistics, "eval", "w")] == ["no sample weight"]


def test_preprocessing_sees_no_weight_and_hands_it_on_as_a_float(tmp_path):
    (tmp_path / "p.py").write_text("def preprocessing_fn(inputs):\n    assert set(inputs) == {'x'}\n    return dict(inputs)\n")
    code = {"path": str(tmp_path / "p.py"), "function": "preprocessing_fn"}
    given = {"label": "y", "labels": ["y"], "weight": "w", "classes": [0, 1], "unusable": [], "code": code}
    inputs = {"x": tf.constant([[1.0], [2.0]]), "y": tf.constant([[0], [1]]), "w": tf.constant([[3], [4]], tf.int64)}
    found = preprocessing_fn(inputs, given)
    assert set(found) == {"x", "y", "w"}
    assert found["w"].dtype == tf.float32
    assert found["w"].numpy().tolist() == [3.0, 4.0]


@pytest.fixture(params=["memory", "windows"])
def source(request, tmp_path):
    features, labels = columns()
    weights = np.random.default_rng(0).integers(0, 5, ROWS).astype(np.float32)
    write(tmp_path, {**features, "w": weights}, labels, weight="w")
    (tmp_path / FILE).write_text(features_json(SPECS, weighted=True))
    whole = transformed_examples(tmp_path, "train")
    layout = {} if request.param == "memory" else {"memory_bytes": 0, "window_bytes": 64 * 3 * whole._row_bytes}
    return Examples(whole.layout, whole._parts, **layout), weights / weights.mean()


@pytest.mark.parametrize("shard", [Shard(), Shard(1, 3)], ids=["whole", "a third"])
def test_every_framework_gets_the_weights_of_its_rows_with_the_mean_1(source, shard):
    examples, weights = source
    for how in ({}, {"seed": 1, "epoch": 2}):
        wanted = list(examples.batches(96, shard=shard, **how))
        given = {"first_epoch" if k == "epoch" else k: v for k, v in how.items()}
        of_keras = list(dataset(examples, 96, shard=shard, **given).as_numpy_iterator())
        of_torch = list(pytorch_batches(examples, 96, shard=shard, **how))
        on_device = (
            DeviceColumns(examples, torch.device("cpu")).batches(96, shard=shard, **how) if examples.resident else of_torch
        )
        for batch, keras_batch, torch_batch, device_batch in zip(wanted, of_keras, of_torch, on_device, strict=True):
            features, labels, found = batch
            assert "w" not in features
            np.testing.assert_allclose(found, weights[labels], rtol=1e-6)  # a row's label is its number
            for other in (keras_batch, torch_batch, device_batch):
                np.testing.assert_array_equal(np.asarray(other[2]), found)
