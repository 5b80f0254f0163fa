"""A server is warmed up and checked with rows of the model's own data."""

import asyncio

import pandas as pd
import pytest
import tensorflow as tf

from switchyard.components.bundle.model import ROWS, example_rows, training_data
from switchyard.components.bundle.source import OpenedModel
from switchyard.components.serving.served_model import Limits, load_model
from switchyard.components.tracking.manifest import write_manifest
from tests.security.bundles import FEATURE, make_bundle

pytestmark = pytest.mark.core


def served(folder):
    model = load_model(OpenedModel(folder, "m", "1", None), Limits(), lambda rows: None)
    asyncio.run(model.close())
    return model.version


def with_rows(folder, values):
    training_data(folder).mkdir()
    pd.DataFrame({FEATURE: values}).to_parquet(training_data(folder) / ROWS)
    write_manifest(folder)


def test_a_model_of_positive_numbers_is_not_warmed_up_with_zeros(tmp_path):
    make_bundle(tmp_path, transform=tf.math.log, user_code=True)
    with_rows(tmp_path, [1.0, 2.0, 3.0])
    assert served(tmp_path) == "1"


def test_a_model_that_cannot_answer_its_own_data_is_not_served(tmp_path):
    make_bundle(tmp_path, transform=tf.math.log, user_code=True)
    with_rows(tmp_path, [1.0, -2.0])
    with pytest.raises(RuntimeError, match="output for its own data is not finite"):
        served(tmp_path)


def test_a_bundle_without_example_rows_is_served_without_a_warm_up(tmp_path):
    make_bundle(tmp_path)
    assert example_rows(tmp_path) is None
    assert served(tmp_path) == "1"
