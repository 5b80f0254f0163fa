"""A training that starts from a registered version, by the command: on newer data, whose words have other indices."""

import json

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from safetensors.numpy import load_file

from tests.command import NO_CONTEST

EFFECT = {"aachen": 2, "berlin": -2, "celle": 1, "dresden": -1, "essen": 0, "fulda": 3}
QUICK = ["--trainer", "tensorflow", "--set", "trainer.hyperparameters.epochs=2", *NO_CONTEST]
DRIFTED = ["--set", "validation.drift.fail=1.0"]


def rides(file, counts, seed):
    """Writes rows with a city of each count, and whether the ride was late, which the city decides with a number."""
    rng = np.random.default_rng(seed)
    city = rng.permutation(np.repeat(list(counts), list(counts.values())))
    x = rng.normal(size=len(city))
    late = np.array([EFFECT[c] for c in city]) + x + rng.logistic(size=len(city)) > 0
    pd.DataFrame({"city": city, "x": x, "late": np.where(late, "yes", "no")}).to_csv(file, index=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rides")
    rides(folder / "old.csv", {"aachen": 500, "berlin": 400, "celle": 300, "dresden": 200, "essen": 100}, 0)
    rides(folder / "new.csv", {"fulda": 500, "essen": 400, "dresden": 300, "celle": 200, "berlin": 100}, 1)
    text = "name: rides\ndata: {path: DATA}\nlabel: late\ntrainer: {start_from: champion}\n"
    for name in ("old", "new"):
        (folder / f"{name}.yaml").write_text(text.replace("DATA", f"{name}.csv"))
    return folder


def bundle(workspace, number):
    """Returns the folder of the bundle of a training, in their order."""
    folders = sorted((workspace / "artifacts" / "training" / "model").iterdir(), key=lambda f: int(f.name))
    [inner] = (folders[number] / "Format-Serving" / "artifacts").iterdir()
    return inner


@pytest.fixture(scope="module")
def started(warm, project, tmp_path_factory):
    """The workspace, the first run, and the one that starts from its model with the words' rows frozen."""
    workspace = tmp_path_factory.mktemp("started") / "w"
    first = warm.run(project / "old.yaml", workspace, *QUICK)
    frozen = ["--set", "trainer.freeze=[f0_embedding/*]"]
    return workspace, first, warm.run(project / "new.yaml", workspace, *QUICK, *DRIFTED, *frozen)


def test_without_a_champion_it_starts_fresh_and_says_so(started):
    _, first, _ = started
    assert first.stderr.count("rides has no champion yet: the training starts fresh") == 1
    assert first.stages["warm_start"] == "ran"


def test_the_rows_of_the_embedding_follow_their_words(started):
    workspace, _, _ = started
    found = []
    for number in (0, 1):
        place = bundle(workspace, number)
        words = json.loads((place / "data" / "vocabularies.json").read_text())["city"]["words"]
        rows = load_file(place / "model" / "weights.safetensors")["f0_embedding/embeddings"]
        found.append({**dict(zip(words, rows, strict=False)), "unknown": rows[-1]})
    old, new = found
    assert list(old)[:2] == ["aachen", "berlin"]
    assert list(new)[:2] == ["fulda", "essen"]
    for word in old.keys() & new.keys():
        np.testing.assert_array_equal(old[word], new[word])
    assert "fulda" not in old


def test_the_run_the_version_and_its_card_name_what_it_started_from(started):
    workspace, _, second = started
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    digest = client.get_model_version("rides", "1").tags["switchyard.digest"]
    expected = {"start_from": "models:/rides/1", "start_from.digest": digest}
    version = client.get_model_version("rides", "2")
    assert expected.items() <= version.tags.items()
    assert f"digest `{digest}`" in version.description
    parent = f"tags.mlflow.parentRunId = '{second.json['mlflow_run_id']}'"
    runs = {r.info.run_name: r for r in client.search_runs([second.json["mlflow_experiment_id"]], parent)}
    training = runs["training"].data
    assert (training.params["start_from"], training.params["freeze"]) == ("models:/rides/1", "f0_embedding/*")
    assert expected.items() <= training.tags.items()


def test_a_version_is_trained_from_once_and_a_moved_alias_trains_again(started, warm, project):
    workspace, _, _ = started
    pinned = [*QUICK, *DRIFTED, "--set", "trainer.start_from=models:/rides/1"]
    assert warm.run(project / "new.yaml", workspace, *pinned).stages["training"] == "ran"
    again = warm.run(project / "new.yaml", workspace, *pinned, "--even-if-unchanged").stages
    assert (again["warm_start"], again["training"]) == ("ran", "cached")
    alias = [*QUICK, *DRIFTED, "--set", "trainer.start_from=rides@1"]
    assert warm.run(project / "new.yaml", workspace, *alias).stages["training"] == "ran"  # another setting
