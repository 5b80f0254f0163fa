"""Data as people have it: no YAML, messy columns, awkward names, a regression, several files, user code."""

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.command import REPOSITORY

TAXI = REPOSITORY.parent / "shared" / "data" / "chicago_taxi" / "data.csv"
QUICK = ["--set", "trainer.hyperparameters.epochs=8", "--set", "serving.infra_validation=null"]


@pytest.mark.skipif(not TAXI.exists(), reason=f"the taxi data is not part of the repository and not at {TAXI}")
def test_both_trainers_agree_on_taxi_trips_with_defaults(tmp_path, warm):
    document = {"name": "taxi", "data": {"path": str(TAXI), "exclude": ["tips"]}, "label": "big_tipper"}
    (tmp_path / "taxi.yaml").write_text(yaml.safe_dump(document))
    done = warm.run(tmp_path / "taxi.yaml", tmp_path / "w", "--trainer", "tensorflow", "--trainer", "pytorch")
    aucs = [m["metrics"]["auc"] for m in done.json["models"].values()]
    assert len(aucs) == 2
    assert min(aucs) > 0.9
    assert abs(aucs[0] - aucs[1]) <= 0.02


@pytest.mark.parametrize("trainer", ["tensorflow", "pytorch"])
def test_a_regression_without_a_yaml_learns_from_messy_data(trainer, regression):
    _, runs = regression
    done = runs[trainer]
    assert done.code == 0, done.stderr
    assert done.json["metrics"]["loss"] < 30
    assert set(done.json["metrics"]) >= {"mae", "loss", "mean_prediction"}
    assert done.json["pipeline"] == "my_data_1"


def test_columns_without_values_are_excluded_and_named(regression):
    _, runs = regression
    assert "skipped columns without any value: nothing" in runs["tensorflow"].stderr


def test_user_code_trains_on_text_labels_from_parquet_splits_and_its_content_is_in_the_fingerprint(tmp_path, warm):
    rng = np.random.default_rng(0)
    for split, n in (("train", 600), ("eval", 200)):
        x = rng.normal(size=n)
        kind = np.select([x > 0.5, x < -0.5], ["high", "low"], "mid")
        pd.DataFrame({"x": x, "unused": 1.0, "kind": kind}).to_parquet(tmp_path / f"{split}.parquet")
    (tmp_path / "shared_names.py").write_text("FEATURE = 'scaled'\n")
    (tmp_path / "features.py").write_text(
        "import tensorflow_transform as tft\nfrom shared_names import FEATURE\n"
        "def preprocessing_fn(inputs):\n    return {FEATURE: tft.scale_to_0_1(inputs['x'])}\n"
    )
    (tmp_path / "model.py").write_text(
        "import torch\nfrom shared_names import FEATURE\n"
        "class M(torch.nn.Module):\n"
        "    def __init__(self, spec):\n        super().__init__()\n"
        "        self.l = torch.nn.Sequential(torch.nn.Linear(1, spec.parameters['width']), torch.nn.ReLU(),"
        " torch.nn.Linear(spec.parameters['width'], spec.outputs))\n"
        "    def forward(self, f):\n        return self.l(f[FEATURE])\n"
        "def make(spec):\n    return M(spec)\n"
    )
    document = {
        "name": "kinds",
        "data": {"splits": {"train": "train.parquet", "eval": "eval.parquet"}},
        "label": "kind",
        "preprocessing": "features.py",
        "evaluation": {"improvement": None},
        "trainer": {
            "framework": "pytorch",
            "model": "model.py:make",
            "model_parameters": {"width": 16},
            "hyperparameters": {"epochs": 20, "learning_rate": 0.05, "class_weights": "balanced"},
        },
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    done = warm.run(tmp_path / "p.yaml", tmp_path / "w")
    assert done.json["metrics"]["accuracy"] > 0.9
    (tmp_path / "shared_names.py").write_text("FEATURE = 'other'\n")
    changed = warm.run(tmp_path / "p.yaml", tmp_path / "w")
    assert changed.stages["schema"] == "cached"
    assert changed.stages["transform"] == "ran"


def test_anomalies_against_the_users_schema_stop_a_run_until_they_are_accepted(tmp_path, warm):
    x = np.random.default_rng(0).permutation(1000) % 50
    frame = pd.DataFrame({"x": x, "id": np.arange(1000) / 7, "word": ["a", "b"] * 500, "y": (x > 25).astype(int)})
    frame.to_csv(tmp_path / "d.csv", index=False)
    (tmp_path / "schema.pbtxt").write_text(
        'feature { name: "x" type: INT presence { min_fraction: 1 } shape { dim { size: 1 } } int_domain { min: 0 max: 10 } }\n'
        'feature { name: "id" type: FLOAT presence { min_fraction: 1 } shape { dim { size: 1 } } }\n'
        'feature { name: "word" type: BYTES presence { min_fraction: 1 } shape { dim { size: 1 } } domain: "words" }\n'
        'feature { name: "y" type: INT presence { min_fraction: 1 } shape { dim { size: 1 } } }\n'
        'feature { name: "request_id" type: INT presence { min_fraction: 1 } shape { dim { size: 1 } } '
        'not_in_environment: "TRAINING" }\n'
        'string_domain { name: "words" value: "a" }\n'
        'default_environment: "TRAINING"\ndefault_environment: "SERVING"\n'
    )
    document = {"name": "curated", "data": {"path": "d.csv"}, "label": "y", "validation": {"schema": "schema.pbtxt"}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    done = warm.run(tmp_path / "p.yaml", tmp_path / "w", *QUICK, expect=3)
    assert "schema: word (train): unexpected string values. Expected: a. Seen: b. Rows: " in done.json["error"]
    assert "schema: x (train): out-of-range values. Expected: values from 0 to 10. Seen: 0 to 49" in done.json["error"]
    # It is not in the environment that training data is checked in.
    assert "request_id" not in done.json["error"]
    allowed = [part for f in ("x", "word") for part in ("--set", f"validation.on_anomaly.features.{f}=warn")]
    passed = warm.run(tmp_path / "p.yaml", tmp_path / "w", *QUICK, *allowed)
    assert "data_gate: warning: schema: word (train)" in passed.stderr
    # Accepting it is the other way.
    assert warm("schema", "diff", tmp_path / "p.yaml", "--workspace", tmp_path / "w").code == 1
    accepted = warm("schema", "accept", tmp_path / "p.yaml", "--workspace", tmp_path / "w")
    assert '+  value: "b"' in accepted.stdout
    assert "review and commit it" in accepted.stdout
    assert "the data fits" in warm("schema", "diff", tmp_path / "p.yaml", "--workspace", tmp_path / "w").stdout
    assert "a, b" in warm("schema", "show", tmp_path / "p.yaml").stdout
    fits = warm.run(tmp_path / "p.yaml", tmp_path / "w", *QUICK, "--set", "evaluation.improvement=null")
    assert fits.stages["data_gate"] == "ran"
