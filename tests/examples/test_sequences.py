"""The sessions example: sequences of texts and of numbers, the same in training, evaluation, over HTTP and in files."""

import json

import numpy as np
import pandas as pd
import pytest

from switchyard.components.bundle.model import load_bundle
from switchyard.components.training.columns import read_features
from switchyard.pipelines.examples import make_data
from tests.command import EXAMPLES

SESSIONS = EXAMPLES / "sessions"


@pytest.fixture(scope="module")
def sessions(tmp_path_factory, warm):
    """The workspace and the run by both trainers."""
    workspace = tmp_path_factory.mktemp("sessions")
    both = ["--trainer", "tensorflow", "--trainer", "pytorch", "--set", "serving.infra_validation.startup_seconds=600"]
    return workspace, warm.run(SESSIONS / "pipeline.yaml", workspace, *both)


@pytest.fixture(scope="module")
def models(sessions):
    """The models of both frameworks."""
    return list(map(load_bundle, sessions[0].glob("artifacts/training_*/model/*/Format-Serving")))


@pytest.fixture(scope="module")
def visits():
    """Sixty visits without the label."""
    return pd.read_json(SESSIONS / "data.jsonl", lines=True).drop(columns="ordered").head(60)


def test_both_frameworks_learn_from_sequences_alike_and_serve_them(sessions):
    workspace, done = sessions
    assert done.json["status"] == "blessed"
    auc = {name: model["metrics"]["auc"] for name, model in done.json["models"].items()}
    assert min(auc.values()) >= 0.82, auc
    assert abs(auc["tensorflow"] - auc["pytorch"]) <= 0.02, auc
    [verdict] = workspace.glob("artifacts/infra_validation/blessing/*/infra_validation.json")
    for served in json.loads(verdict.read_text()).values():
        assert served["rows"] > 100
        assert served["difference"] <= 1e-5


def test_a_model_reads_padded_values_their_mask_and_what_is_a_bag(sessions):
    [transformed] = sessions[0].glob("artifacts/transform/transformed_examples/*")
    features = {f.name: (f.dtype, f.shape, f.vocabulary_size, f.pool, f.mask) for f in read_features(transformed)}
    assert features == {
        "device": ("int64", (1,), 3, None, None),
        "pages": ("int64", (14,), 12, "mean", "pages_mask"),
        "pages_mask": ("float32", (14,), None, None, None),
        "seconds": ("float32", (8,), None, None, None),
        "seconds_mask": ("float32", (8,), None, None, None),
    }


def test_the_order_of_a_bag_and_values_that_are_cut_off_change_no_score(models, visits):
    assert len(models) == 2
    longer = visits.assign(
        pages=[pages[::-1] for pages in visits["pages"]],
        seconds=[[9] * 3 + values if len(values) >= 8 else values for values in visits["seconds"]],
    )
    unknown = visits.assign(pages=[["a new page"] for _ in visits["pages"]])
    for model in models:
        np.testing.assert_allclose(model.scores(longer), model.scores(visits), atol=1e-6)
        assert np.isfinite(model.scores(unknown)).all()


def test_a_file_has_the_scores_of_the_rows(sessions, visits, warm, tmp_path):
    visits.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    for model in sessions[0].glob("artifacts/training_*/model/*/Format-Serving"):
        warm("predict", model, tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl", "--trust", "--fresh")
        found = pd.read_json(tmp_path / "out.jsonl", lines=True)
        np.testing.assert_allclose(found["probability"], load_bundle(model).scores(visits)[:, 0], atol=1e-5)


def test_the_sessions_are_made_by_a_seed():
    pd.testing.assert_frame_equal(pd.read_json(SESSIONS / "data.jsonl", lines=True), make_data.sessions())
