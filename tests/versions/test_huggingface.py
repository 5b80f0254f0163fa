"""The reviews by a transformer: a model folder of Hugging Face's in PyTorch and its twin in Keras, from raw text to a score."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from switchyard.components.bundle.model import load_bundle
from tests.command import EXAMPLES
from tests.serving.server import serving

REVIEWS = EXAMPLES / "reviews"
ROWS = pd.read_csv(REVIEWS / "data.csv", nrows=50)[["review"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory, warm):
    """The workspace and the run by both trainers."""
    workspace = tmp_path_factory.mktemp("transformer")
    both = ["--trainer", "tensorflow", "--trainer", "pytorch", "--set", "serving.infra_validation.startup_seconds=600"]
    return workspace, warm.run(REVIEWS / "transformer.yaml", workspace, *both)


def model(workspace, framework):
    """Returns the MLflow Model folder of a trainer."""
    [folder] = workspace.glob(f"artifacts/training*{framework}/model/*/Format-Serving")
    return folder


def test_transformers_and_keras_learn_the_reviews_alike(run):
    found = run[1].json
    assert found["status"] == "blessed"
    auc = {name: trained["metrics"]["auc"] for name, trained in found["models"].items()}
    assert min(auc.values()) >= 0.91
    assert abs(auc["tensorflow"] - auc["pytorch"]) <= 0.02, auc


def test_a_text_has_one_score_in_a_file_and_by_http(run, warm, tmp_path):
    workspace, _ = run
    [verdict] = workspace.glob("artifacts/infra_validation/blessing/*/infra_validation.json")
    served = json.loads(verdict.read_text())
    folder = model(workspace, "pytorch")
    scores = load_bundle(folder).scores(ROWS)[:, 0]
    assert {name: found["difference"] <= 1e-5 for name, found in served.items()} == {"tensorflow": True, "pytorch": True}
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    warm("predict", folder, tmp_path / "rows.csv", "-o", tmp_path / "scores.csv", "--trust")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "scores.csv")["probability"], scores, atol=1e-5)
    with serving(folder, tmp_path / "log") as server:
        status, _, answer = server.request("/invocations", {"dataframe_records": ROWS.to_dict("records")})
    assert status == 200, answer
    np.testing.assert_allclose([row["probability"] for row in answer["predictions"]], scores, atol=1e-5)


def test_a_bundle_needs_the_tokenizers_and_neither_transformers_nor_peft(run):
    folder = model(run[0], "pytorch")
    needed = [line.partition("==")[0] for line in (folder / "requirements.txt").read_text().splitlines()]
    assert "tokenizers" in needed
    assert not {"transformers", "peft"} & set(needed)


def test_an_adapter_is_trained_and_served_merged(warm, tmp_path):
    lora = ["--set", "trainer.model.pytorch.lora={rank: 4}", "--set", "trainer.hyperparameters.epochs=2"]
    warm.run(REVIEWS / "transformer.yaml", tmp_path / "w", *lora, expect=4)  # two epochs on untrained weights
    [verdict] = (tmp_path / "w").glob("artifacts/infra_validation/blessing/*/infra_validation.json")
    assert json.loads(verdict.read_text())["pytorch"]["difference"] <= 1e-5


def test_the_model_folder_is_made_by_its_script(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REVIEWS)
    import make_transformer

    make_transformer.main(tmp_path)
    for name in ("config.json", "tokenizer.json"):
        made, kept = (json.loads((folder / name).read_text()) for folder in (tmp_path, REVIEWS / "transformer"))
        assert made | {"transformers_version": ""} == kept | {"transformers_version": ""}
    made, kept = (load_file(folder / "model.safetensors") for folder in (tmp_path, REVIEWS / "transformer"))
    assert set(made) == set(kept)
    assert all(torch.equal(weight, kept[name]) for name, weight in made.items())
