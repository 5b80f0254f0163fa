"""The photos example: images by every way to a score, without code."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from switchyard.components.bundle.model import load_bundle
from switchyard.components.errors import UserError
from switchyard.components.serving.tensorflow_serving import export_for_tensorflow_serving
from switchyard.pipelines.examples import make_data
from tests.command import EXAMPLES

PHOTOS = EXAMPLES / "photos"


@pytest.fixture(scope="module")
def photos(tmp_path_factory, warm):
    """The workspace and the run by both trainers."""
    workspace = tmp_path_factory.mktemp("photos")
    both = ["--trainer", "tensorflow", "--trainer", "pytorch", "--set", "serving.infra_validation.startup_seconds=600"]
    return workspace, warm.run(PHOTOS / "pipeline.yaml", workspace, *both)


@pytest.fixture(scope="module")
def models(photos):
    """Framework -> MLflow Model folder."""
    folders = photos[0].glob("artifacts/training_*/model/*/Format-Serving")
    return {folder.parts[-4].removeprefix("training_"): folder for folder in folders}


@pytest.fixture(scope="module")
def images():
    """Forty encoded images."""
    return pd.read_parquet(PHOTOS / "data.parquet")["photo"].tolist()[:40]


def test_both_frameworks_learn_the_photos_alike_and_serve_them(photos):
    workspace, done = photos
    assert done.json["status"] == "blessed"
    accuracy = {name: model["metrics"]["accuracy"] for name, model in done.json["models"].items()}
    assert min(accuracy.values()) >= 0.95
    assert abs(accuracy["tensorflow"] - accuracy["pytorch"]) <= 0.03, accuracy
    [verdict] = workspace.glob("artifacts/infra_validation/blessing/*/infra_validation.json")
    for served in json.loads(verdict.read_text()).values():
        assert served["rows"] == 200
        assert served["difference"] <= 1e-5


@pytest.mark.parametrize("name", ["tensorflow", "pytorch"])
def test_a_path_base64_and_bytes_have_one_score(name, models, images, warm, tmp_path):
    scores = load_bundle(models[name]).scores(pd.DataFrame({"photo": images}))
    (tmp_path / "images").mkdir()
    for i, image in enumerate(images):
        (tmp_path / "images" / f"{i}.png").write_bytes(image)
    texts = [f"images/{i}.png" if i % 2 else base64.b64encode(image).decode() for i, image in enumerate(images)]
    pd.DataFrame({"photo": [*texts, "../other.png", "images/0.gif"]}).to_csv(tmp_path / "rows.csv", index=False)
    warm("predict", models[name], tmp_path / "rows.csv", "-o", tmp_path / "out.csv", "--trust", "--max-bad-rows", "2")
    found = pd.read_csv(tmp_path / "out.csv")
    assert found["photo"].tolist()[:40] == texts
    probabilities = found[[f"probability_{i}" for i in range(10)]]
    np.testing.assert_allclose(probabilities[:40], scores, atol=1e-5)
    assert probabilities[40:].isna().all().all()
    with pytest.raises(UserError, match=r"column 'photo' must hold complete images, received '30 bytes' \(row 1\)"):
        load_bundle(models[name]).scores(pd.DataFrame({"photo": [images[0], images[1][:30]]}))


def test_tensorflow_serving_decodes_the_images_itself(models, images, tmp_path):
    import tensorflow as tf

    export_for_tensorflow_serving(models["tensorflow"], tmp_path / "1", verified=True)
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"](photo=tf.constant(images))
    scores = load_bundle(models["tensorflow"]).scores(pd.DataFrame({"photo": images}))
    np.testing.assert_allclose(served["probabilities"], scores, atol=1e-5)


def test_threads_get_the_scores_of_one(models, images):
    bundle = load_bundle(models["pytorch"])
    rows = pd.DataFrame({"photo": images})
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(bundle.scores, [rows] * 8):
            np.testing.assert_allclose(found, bundle.scores(rows), atol=1e-6)


def test_the_photos_are_the_digits():
    rows = pd.read_parquet(PHOTOS / "data.parquet")
    digits = make_data.digits()
    assert rows["digit"].tolist() == digits["digit"].tolist()
    for photo, digit in zip(rows["photo"][:50], digits["image"][:50], strict=True):
        np.testing.assert_allclose(np.asarray(Image.open(io.BytesIO(photo))).ravel() / 255 * 16, digit, atol=0.05)
