"""What `switchyard init` writes runs as it stands: in both frameworks, its own tests, and compiled."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.command import REPOSITORY, environment

BOTH = ["--trainer", "tensorflow", "--trainer", "pytorch"]


def own_tests(folder):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error::UserWarning", "-p", "no:cacheprovider"],
        cwd=folder,
        env=environment(PYTHONPATH=REPOSITORY),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("template", ["tabular", "text", "image"])
def test_a_project_without_data_trains_good_models_in_both_frameworks_tests_itself_and_compiles(template, warm, tmp_path):
    assert warm("init", "--template", template, cwd=tmp_path).code == 0
    done = warm("run", *BOTH, "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    metric, bound = ("accuracy", 0.8) if template == "image" else ("auc", 0.84)
    candidates = {name: model["metrics"][metric] for name, model in done.json["models"].items()}
    assert set(candidates) == {"tensorflow", "pytorch"}
    assert min(candidates.values()) > bound, candidates
    tested = own_tests(tmp_path)
    assert tested.returncode == 0, tested.stdout
    assert warm("compile", "--set", "kubeflow.image=registry.example.org/switchyard:0.1.0", cwd=tmp_path).code == 0
    assert (tmp_path / "pipeline.kfp.yaml").is_file()


@pytest.mark.timeout(600)
def test_a_project_for_awkward_data_runs_in_both_frameworks(warm, tmp_path):
    random = np.random.default_rng(0)
    rows = 400
    frame = pd.DataFrame(
        {
            "price/unit. (€)": np.where(random.random(rows) < 0.1, np.nan, random.normal(size=rows)),
            "kind": random.choice(["a", "b", None], rows),
            "pages": [list(random.choice(["home", "cart"], n)) for n in random.integers(0, 5, rows)],
            "seen": pd.date_range("2026-01-01", periods=rows, freq="37min").astype(str),
            "no": random.choice(["low", "middle", "high"], rows),
        }
    )
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    written = warm("init", "rows.jsonl", "--label", "no", "-o", "project", cwd=tmp_path)
    assert written.code == 0, written.stderr
    limits = ["--set", "trainer.hyperparameters.epochs=2"]
    done = warm("run", "project/pipeline.yaml", *BOTH, *limits, "--json", cwd=tmp_path)
    assert done.code == 4, done.stderr  # the label is chance
    assert set(done.json["models"]) == {"tensorflow", "pytorch"}
    assert own_tests(tmp_path / "project").returncode == 0
