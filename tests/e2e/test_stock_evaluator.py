"""Our figures against those of stock TFX's Evaluator, on the same SavedModel and the same rows."""

import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
import yaml
from google.protobuf.json_format import MessageToJson
from tensorflow_model_analysis.proto import config_pb2
from tfx.components.evaluator import executor
from tfx.types import artifact_utils, standard_artifacts

from switchyard.components.metrics import METRICS, names
from switchyard.pipelines.config.beam import BeamConfig


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, warm):
    """A run with slices, its model trained by Keras: two numbers and a word, an integer label."""
    folder = tmp_path_factory.mktemp("stock")
    random = np.random.default_rng(0)
    x, z = random.normal(size=(2, 3000))
    word = random.choice(["a", "b", "c"], 3000)
    y = (x + 0.5 * z + (word == "a") + random.normal(size=3000) > 0).astype(int)
    pd.DataFrame({"x": x, "z": z, "word": word, "y": y}).to_csv(folder / "d.csv", index=False)
    document = {"name": "stock", "data": {"path": "d.csv"}, "label": "y", "evaluation": {"slices": ["word"]}}
    (folder / "p.yaml").write_text(yaml.safe_dump(document))
    quick = ["--set", "trainer.hyperparameters.epochs=3", "--set", "serving.infra_validation=null"]
    warm.run(folder / "p.yaml", folder / "w", *quick)
    return folder / "w" / "artifacts"


def only(folder):
    [found] = folder.iterdir()
    return found


def savedmodel(bundle, target):
    """The bundle's two SavedModels behind one signature that takes serialized examples, as stock TFX needs it."""
    preprocess = tf.saved_model.load(str(bundle / "preprocess"))
    model = tf.saved_model.load(str(bundle / "model"))
    info = json.loads((bundle / "bundle.json").read_text())
    names = json.loads((bundle / "model" / "features.json").read_text())
    kinds = {"float32": tf.float32, "int64": tf.int64, "string": tf.string}
    spec = {f["name"]: tf.io.FixedLenFeature([f["width"]], kinds[f["dtype"]]) for f in info["features"]}

    class Whole(tf.Module):
        def __init__(self):
            self.preprocess, self.model = preprocess, model

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def serve(self, examples):
            raw = tf.io.parse_example(examples, spec)
            tensors = {f"f{i}": raw[f["name"]] for i, f in enumerate(info["features"])}
            outputs = self.preprocess.transform(tensors)
            by_place = {f"f{i}": outputs[f"t{info['transformed'].index(name)}"] for i, name in enumerate(names)}
            return {"probability": self.model.serve(by_place)}

    whole = Whole()
    tf.saved_model.save(whole, str(target), signatures={"serving_default": whole.serve})


def test_the_metrics_equal_those_of_stock_tfx(evaluated, tmp_path):
    ours = json.loads((only(evaluated / "evaluation" / "evaluation") / "metrics.json").read_text())["models"]["tensorflow"]
    bundle = only(only(evaluated / "training" / "model") / "Format-Serving" / "artifacts")
    model = standard_artifacts.Model()
    model.uri = str(tmp_path / "model")
    savedmodel(bundle, tmp_path / "model" / "Format-Serving")
    examples = standard_artifacts.Examples()
    examples.uri = str(only(evaluated / "ingest" / "examples"))
    examples.split_names = artifact_utils.encode_split_names(["train", "eval", "test"])
    outputs = {"evaluation": standard_artifacts.ModelEvaluation(), "blessing": standard_artifacts.ModelBlessing()}
    for key, artifact in outputs.items():
        artifact.uri = str(tmp_path / key)
    config = config_pb2.EvalConfig()
    config.model_specs.add(label_key="y", signature_name="serving_default", prediction_key="probability")
    config.slicing_specs.add()
    config.slicing_specs.add(feature_keys=["word"])
    spec = config.metrics_specs.add()
    for metric in METRICS:
        if metric.has_threshold("binary"):
            spec.metrics.add(class_name=metric.formulas["binary"].tfma, config=json.dumps({"name": metric.name}))
    stock = executor.Executor(executor.Executor.Context(beam_pipeline_args=list(BeamConfig().arguments()), tmp_dir=str(tmp_path)))
    stock.Do(
        {"examples": [examples], "model": [model]},
        {k: [a] for k, a in outputs.items()},
        {"eval_config": MessageToJson(config), "example_splits": '["test"]', "fairness_indicator_thresholds": "null"},
    )
    compared = 0
    for record in tfma.load_metrics(str(tmp_path / "evaluation")):
        key = ", ".join(f"{k.column}={k.bytes_value.decode()}" for k in record.slice_key.single_slice_keys)
        mine = ours["slices"][key] if key else ours["metrics"]
        theirs = {m.key.name: m.value.double_value.value for m in record.metric_keys_and_values if m.key.name in mine}
        assert theirs == pytest.approx(mine, abs=1e-6)
        compared += len(theirs)
    assert compared == 4 * len(names("binary"))
