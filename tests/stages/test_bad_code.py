"""What users get wrong and only a framework can tell: code, schema and devices, in one process."""

from dataclasses import replace

import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_transform.tf_metadata.schema_utils import schema_from_feature_spec

from switchyard.components.baseline.contents import BaselineContents
from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.executor import Gate
from switchyard.components.errors import UserError
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.examples import Examples
from switchyard.components.training.losses import named_loss
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.request import hyperparameters
from switchyard.components.training.trainers import trainer_class
from switchyard.components.transform.columns import feature_specs
from switchyard.components.transform.preprocessing import preprocessing_fn
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import data_gate_settings, preprocessing_code, trainer_settings
from switchyard.pipelines.preflight import check_environment, check_inputs
from tests.bad_input import Case, config

pytestmark = pytest.mark.core

SUMMARY = DatasetSummary("f", [], {"x": "integer"}, {}, {"train": 160, "eval": 40}, 0, [], [], "y", "binary", [0, 1], {})


ENVIRONMENT = [
    Case(
        "schema is none",
        "is not a schema in text form",
        files={"s.pbtxt": "oops {"},
        config=config(validation={"schema": "s.pbtxt"}),
    ),
    Case("no gpu", "requests 1 gpu, this machine has: ", config=config(trainer={"accelerator": "gpu"})),
    Case(
        "no gpu, pytorch",
        "requests 1 gpu, this machine has: ",
        config=config(trainer={"accelerator": "gpu", "framework": "pytorch"}),
    ),
    Case("no tpu", "requests 1 tpu", config=config(trainer={"accelerator": "tpu"})),
    Case("two gpus", "requests 2 gpu, this machine has: ", config=config(trainer={"accelerator": "gpu:2"})),
    Case(
        "keras is not spread",
        "shard_model: TensorFlow replicates the model",
        config=config(trainer={"accelerator": {"count": 2, "shard_model": True}}),
    ),
]


@pytest.mark.parametrize("case", ENVIRONMENT, ids=lambda c: c.name)
def test_a_missing_schema_or_device_is_refused_before_the_run(case, tmp_path):
    loaded = load_config(case.write(tmp_path))
    with pytest.raises(UserError) as refused:
        check_environment((loaded, tmp_path / "code"))
    assert case.message in str(refused.value)


TFRECORD = [
    Case(
        "not TFRecord",
        "cannot be read as TFRecord",
        files={"d.tfrecord": "this is no TFRecord at all"},
        config=config(data={"path": "d.tfrecord"}),
    ),
]


@pytest.mark.parametrize("case", TFRECORD, ids=lambda c: c.name)
def test_a_file_that_is_not_tfrecord_is_refused_by_its_first_rows(case, tmp_path):
    loaded = load_config(case.write(tmp_path))
    with pytest.raises(UserError) as refused:
        check_inputs(loaded, tmp_path / "code")
    assert case.message in str(refused.value)


MODEL = [
    Case(
        "model raises",
        "build_model failed: m.py, line 2: KeyError: 'width'",
        files={"m.py": "def build_model(spec):\n    return spec.parameters['width']\n"},
        config=config(trainer={"model": "m.py"}),
    ),
    Case(
        "wrong output shape",
        "needs logits of shape (2, 1)",
        files={
            "m.py": "import keras\ndef build_model(spec):\n"
            "    i = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}\n"
            "    return keras.Model(i, keras.layers.Dense(3)(i['x']))\n"
        },
        config=config(trainer={"model": "m.py"}),
    ),
]


@pytest.mark.parametrize("case", MODEL, ids=lambda c: c.name)
def test_a_model_that_cannot_be_built_is_refused_before_any_row_is_read(case, tmp_path):
    settings = trainer_settings(load_config(case.write(tmp_path)), tmp_path / "code", "tensorflow")
    request = TrainRequest(
        spec=ModelSpec((FeatureSpec("word", "int64", (1,), 3), FeatureSpec("x", "float32", (1,))), "binary", 1),
        train=Examples([], []),
        eval=None,
        hyperparameters=hyperparameters(settings.hyperparameters, SUMMARY),
        loss=named_loss("binary"),
        accelerator=AcceleratorProfile("cpu"),
        build_model=settings.code.load(),
        checkpoint_dir=tmp_path / "checkpoints",
        export_dir=tmp_path / "export",
    )
    with pytest.raises(UserError) as refused:
        trainer_class("tensorflow")().train(request, lambda step, metrics: None)
    assert case.message in str(refused.value)


PREPROCESSING = [
    Case(
        "preprocessing raises",
        "features.py, line 2: KeyError: 'oops'",
        files={"features.py": "def preprocessing_fn(i):\n    return i['oops']\n"},
        config=config(preprocessing="features.py"),
    ),
    Case(
        "preprocessing asks for the label",
        "preprocessing_fn does not receive the label",
        files={"features.py": "def preprocessing_fn(inputs):\n    return {'a': inputs['y']}\n"},
        config=config(preprocessing="features.py"),
    ),
]


@pytest.mark.parametrize("case", PREPROCESSING, ids=lambda c: c.name)
def test_a_preprocessing_that_fails_is_refused_with_its_line(case, tmp_path):
    code = preprocessing_code(load_config(case.write(tmp_path)), tmp_path / "code")
    inputs = {"x": tf.constant([[1.0]]), "word": tf.constant([["a"]]), "y": tf.constant([[1]], tf.int64)}
    settings = {
        "label": "y",
        "labels": ["y"],
        "classes": [0, 1],
        "unusable": [],
        "code": {"path": code.path, "function": code.function},
    }
    with pytest.raises(UserError) as refused:
        preprocessing_fn(inputs, settings)
    assert case.message in str(refused.value)


def test_weights_of_unknown_classes_are_refused(tmp_path):
    given = {"hyperparameters": {"class_weights": {"7": 2.0}, "epochs": 1}}
    loaded = load_config(Case("class weight of no class", "", config=config(trainer=given)).write(tmp_path))
    settings = trainer_settings(loaded, tmp_path / "code", "tensorflow")
    with pytest.raises(UserError, match="'7' is not a class of 'y'; the classes are"):
        hyperparameters(settings.hyperparameters, SUMMARY)


def test_a_transformed_feature_that_is_text_is_refused():
    spec = {"a": tf.io.FixedLenFeature([1], tf.string), "y": tf.io.FixedLenFeature([], tf.int64)}
    with pytest.raises(UserError, match=r"'a' is string .*a model takes dense float32 or int64"):
        feature_specs(schema_from_feature_spec(spec), ["y"])


def test_an_environment_missing_in_the_schema_is_refused_by_the_data_gate(tmp_path):
    loaded = load_config(Case("", "", config=config(validation={"environment": "SERVING"})).write(tmp_path))
    (tmp_path / "Split-train").mkdir()
    statistics = tfdv.generate_statistics_from_dataframe(pd.DataFrame({"x": [1, 2], "y": [0, 1]}))
    (tmp_path / "Split-train" / "FeatureStats.pb").write_bytes(statistics.SerializeToString())
    tfdv.write_schema_text(tfdv.infer_schema(statistics), str(tmp_path / "schema.pbtxt"))
    replace(SUMMARY, rows={"train": 2}).save(str(tmp_path))
    BaselineContents(None, "", "", None, "").save(str(tmp_path))
    uris = dict.fromkeys(("examples", "statistics", "schema", "baseline", "anomalies"), str(tmp_path))
    with pytest.raises(UserError, match=r"the schema has no environment 'SERVING'. Allowed: none."):
        Gate(uris, data_gate_settings(loaded))
