"""The reviews example: raw text by every way to a score."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from switchyard.components.bundle.model import load_bundle
from switchyard.components.errors import UserError
from switchyard.components.serving.tensorflow_serving import export_for_tensorflow_serving
from switchyard.components.training.columns import read_features
from switchyard.pipelines.examples import make_data
from tests.command import EXAMPLES

REVIEWS = EXAMPLES / "reviews"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory, warm):
    """The workspace and the run by both trainers."""
    workspace = tmp_path_factory.mktemp("reviews")
    both = ["--trainer", "tensorflow", "--trainer", "pytorch", "--set", "serving.infra_validation.startup_seconds=600"]
    return workspace, warm.run(REVIEWS / "pipeline.yaml", workspace, *both)


@pytest.fixture(scope="module")
def models(reviews):
    """Framework -> MLflow Model folder."""
    folders = reviews[0].glob("artifacts/training_*/model/*/Format-Serving")
    return {folder.parts[-4].removeprefix("training_"): folder for folder in folders}


def test_both_frameworks_learn_the_reviews_alike(reviews):
    found = reviews[1].json
    assert found["status"] == "blessed"
    auc = {name: model["metrics"]["auc"] for name, model in found["models"].items()}
    assert min(auc.values()) >= 0.93
    assert abs(auc["tensorflow"] - auc["pytorch"]) <= 0.02, auc


def test_a_text_has_one_score_in_evaluation_by_http_and_in_a_file(reviews, models, warm, tmp_path, held_out):
    workspace, done = reviews
    [verdict] = workspace.glob("artifacts/infra_validation/blessing/*/infra_validation.json")
    served = json.loads(verdict.read_text())
    assert set(models) == set(served) == {"tensorflow", "pytorch"}
    rows = held_out(workspace)
    truth = (rows.pop("positive") == "yes").to_numpy()
    rows.to_csv(tmp_path / "rows.csv", index=False)
    for name, model in models.items():
        scores = load_bundle(model).scores(rows)[:, 0]
        # TFMA's AUC is a histogram over 10,000 thresholds.
        assert roc_auc_score(truth, scores) == pytest.approx(done.json["models"][name]["metrics"]["auc"], abs=1e-3)
        assert served[name]["rows"] == 200
        assert served[name]["difference"] <= 1e-5
        file = tmp_path / f"{name}.csv"
        warm("predict", model, tmp_path / "rows.csv", "-o", file, "--trust")
        np.testing.assert_allclose(pd.read_csv(file)["probability"], scores, atol=1e-5)


@pytest.fixture(scope="module")
def held_out():
    """Returns a function: workspace -> the rows of the test split, with the label."""

    def read(workspace):
        import tensorflow as tf

        [folder] = workspace.glob("artifacts/ingest/examples/*/Split-test")
        rows = []
        for record in tf.data.TFRecordDataset(sorted(map(str, folder.iterdir()))).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            rows.append({name: feature.bytes_list.value[0].decode() for name, feature in features.items()})
        return pd.DataFrame(rows)

    return read


def test_trainers_read_the_tokenizers_arrays(reviews):
    [transformed] = reviews[0].glob("artifacts/transform/transformed_examples/*")
    [feature] = read_features(transformed)
    assert (feature.name, feature.dtype, feature.shape, feature.vocabulary_size) == ("words", "int64", (32,), 2048)


def test_the_tokenizer_is_covered_by_the_digest(models, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(models["pytorch"], copy)
    [code] = copy.glob("artifacts/*/tokenizer/code/tokenizer.py")
    code.write_text(code.read_text() + "\n")
    with pytest.raises(UserError, match=r"tokenizer/code/tokenizer\.py"):
        load_bundle(copy)


def test_tensorflow_serving_has_no_python(models, tmp_path):
    with pytest.raises(UserError, match="TensorFlow Serving does not run the model's tokenizer; use --target kserve"):
        export_for_tensorflow_serving(models["tensorflow"], tmp_path / "1", verified=True)


def test_the_reviews_are_made_by_a_seed():
    pd.testing.assert_frame_equal(pd.read_csv(REVIEWS / "data.csv"), make_data.reviews())
