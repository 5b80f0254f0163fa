"""Sequences of any length: padded with a mask, the same in training, evaluation, over HTTP and in files."""

import json

import numpy as np
import pandas as pd
import pytest

from switchyard.components.bundle.model import load_bundle
from switchyard.components.training.columns import read_features


@pytest.fixture(scope="module")
def sessions(tmp_path_factory, warm):
    """The workspace, and the rows that both trainers read."""
    folder = tmp_path_factory.mktemp("sessions")
    random = np.random.default_rng(0)
    rows = []
    for _ in range(800):
        values = random.normal(size=random.integers(0, 9)).round(3)
        rows.append({"seconds": values.tolist(), "bought": int(values[-5:].sum() > 0), "device": str(random.choice(["a", "b"]))})
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    document = {
        "name": "sessions",
        "data": {"path": "data.jsonl", "columns": {"seconds": {"type": "sequence", "length": 5, "keep": "last"}}},
        "label": "bought",
        "trainer": {"framework": ["tensorflow", "pytorch"], "hyperparameters": {"epochs": 15, "batch_size": 32}},
        "serving": {"infra_validation": {"startup_seconds": 600}},
    }
    (folder / "pipeline.yaml").write_text(json.dumps(document))
    return folder / "workspace", warm.run(folder / "pipeline.yaml", folder / "workspace"), pd.DataFrame(rows)


def test_both_frameworks_learn_from_sequences_and_serve_them(sessions):
    workspace, done, _ = sessions
    assert done.json["status"] == "blessed"
    auc = {name: model["metrics"]["auc"] for name, model in done.json["models"].items()}
    assert min(auc.values()) >= 0.9, auc
    [verdict] = workspace.glob("artifacts/infra_validation/blessing/*/infra_validation.json")
    for served in json.loads(verdict.read_text()).values():
        assert served["rows"] > 100
        assert served["difference"] <= 1e-5


def test_a_model_reads_padded_values_and_their_mask(sessions):
    [transformed] = sessions[0].glob("artifacts/transform/transformed_examples/*")
    features = {f.name: (f.dtype, f.shape) for f in read_features(transformed)}
    assert {n: features[n] for n in ("seconds", "seconds_mask")} == dict.fromkeys(("seconds", "seconds_mask"), ("float32", (5,)))


def test_values_before_the_last_ones_change_nothing_and_a_file_has_the_same_scores(sessions, warm, tmp_path):
    workspace, _, rows = sessions
    rows = rows.drop(columns="bought").head(50)
    for model in workspace.glob("artifacts/training_*/model/*/Format-Serving"):
        bundle = load_bundle(model)
        scores = bundle.scores(rows)
        longer = rows.assign(seconds=[[9.0] * 3 + values if len(values) >= 5 else values for values in rows["seconds"]])
        np.testing.assert_allclose(bundle.scores(longer), scores, atol=1e-6)
        rows.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
        warm("predict", model, tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl", "--trust", "--fresh")
        found = pd.read_json(tmp_path / "out.jsonl", lines=True)
        np.testing.assert_allclose(found["probability"], scores[:, 0], atol=1e-5)
