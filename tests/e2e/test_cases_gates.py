"""A gate that could not compare promotes nothing: champions before data that has changed, coin flips, other people's models."""

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.model_registry import CHAMPION, alias_version, moves

QUICK = ["--trainer", "pytorch", "--set", "serving.infra_validation=null", "--set", "trainer.hyperparameters.epochs=4"]


def people(rows, seed, **columns):
    """A number that mostly decides, an age, a city; AUC about 0.9."""
    random = np.random.default_rng(seed)
    a = random.normal(size=rows)
    frame = pd.DataFrame({"a": a.round(4), "age": random.integers(18, 90, rows), "city": random.choice(["Ulm", "Bonn"], rows)})
    return frame.assign(**columns, y=(random.random(rows) < 1 / (1 + np.exp(-3 * a))).astype(int))


class Place:
    """A pipeline's folder: data by name, one registry."""

    def __init__(self, folder, warm):
        self.folder, self._warm = folder, warm
        (folder / "p.yaml").write_text(yaml.safe_dump({"name": "people", "data": {"path": "monday.csv"}, "label": "y"}))

    def run(self, frame, name, *arguments, expect=0):
        frame.to_csv(self.folder / f"{name}.csv", index=False)
        data = ["--set", f"data.path={self.folder / f'{name}.csv'}"]
        return self._warm.run(self.folder / "p.yaml", self.folder / "w", *data, *QUICK, *arguments, expect=expect)

    @property
    def client(self):
        return MlflowClient(f"sqlite:///{self.folder / 'w' / 'mlflow.db'}")

    def champion(self):
        return alias_version(self.client, "people", CHAMPION)


@pytest.fixture(scope="module")
def monday(tmp_path_factory, warm):
    """A place where version 1 is champion; tests that leave it champion share it."""
    place = Place(tmp_path_factory.mktemp("monday"), warm)
    first = place.run(people(800, 1), "monday")
    assert first.json["champion"] == "1"
    assert first.json["comparison"]["not_compared"] == "people has no champion yet"
    return place


def flipped(frame):
    other = np.random.default_rng(2).random(len(frame)) < 0.4
    return frame.assign(y=np.where(other, 1 - frame["y"], frame["y"]))


def test_a_champion_trained_on_integers_scores_a_column_that_now_holds_a_fraction(monday):
    frame = flipped(people(800, 1)).astype({"age": float})
    frame.loc[3, "age"] = 45.5
    done = monday.run(frame, "fraction", expect=4)
    assert done.json["comparison"]["champion"] == "1"
    assert done.json["comparison"]["compared_rows"] >= done.json["comparison"]["rows"] - 1
    assert "the champion's (version 1, pytorch)" in done.json["error"]
    assert done.json["champion"] == monday.champion() == "1"


def test_the_first_missing_values_are_reported_before_training_and_the_other_rows_are_compared(monday):
    frame = people(800, 1).astype({"age": "Int64"})
    frame.loc[::25, "age"] = pd.NA
    done = monday.run(frame, "gaps", expect=4)
    lines = done.stderr.splitlines()
    said = next(i for i, line in enumerate(lines) if "data_gate: warning: champion: age" in line)
    assert "the champion cannot judge" in lines[said]
    assert "version 1 of people" in lines[said]
    assert said < next(i for i, line in enumerate(lines) if "training: running" in line)
    compared = done.json["comparison"]
    assert 0.9 * compared["rows"] <= compared["compared_rows"] < compared["rows"]
    assert f"on {compared['compared_rows']} of {compared['rows']} rows" in done.stderr
    assert monday.champion() == "1"
    run = monday.client.get_run(done.json["mlflow_run_id"])
    assert run.data.tags["compared_rows"] == f"{compared['compared_rows']} of {compared['rows']}"
    page = open(monday.client.download_artifacts(run.info.run_id, "report/report.html")).read()
    assert "that it can predict" in page


def test_a_champion_that_scores_too_few_rows_stays_and_the_candidate_waits_for_review(monday):
    frame = people(800, 1).astype({"age": "Int64"})
    frame.loc[::3, "age"] = pd.NA
    done = monday.run(frame, "many_gaps", expect=4)
    error = done.json["error"]
    assert "champion version 1 of people cannot be compared: it can predict" in error
    assert "'age' is missing" in error
    assert "switchyard models promote people challenger --force --why" in error
    assert "evaluation.incomparable_champion: replace" in error
    assert "will be kept as challenger" in done.stderr
    assert "not compared with a champion: champion version 1 of people cannot be compared" in done.stderr
    assert done.json["comparison"]["champion"] is None
    assert monday.champion() == "1"
    assert alias_version(monday.client, "people", "challenger") == done.json["model_version"]


def test_excluding_a_column_that_the_champion_needs_does_not_replace_it(monday):
    done = monday.run(people(800, 1), "monday", "--set", "data.exclude=[age]", expect=4)
    assert "it needs the column 'age', which is not in the data" in done.json["error"]
    assert monday.champion() == "1"


def test_labels_of_another_spelling_are_compared(monday):
    frame = flipped(people(800, 1))
    done = monday.run(frame.assign(y=np.where(frame["y"] == 1, "true", "false")), "words", expect=4)
    assert done.json["comparison"]["champion"] == "1", done.stderr
    assert monday.champion() == "1"


def test_replace_promotes_without_a_comparison_and_the_history_says_so(tmp_path, warm):
    place = Place(tmp_path, warm)
    place.run(people(800, 1), "monday")
    frame = people(800, 1).assign(y=lambda t: np.where(t["y"] == 1, "late", "on time"))
    done = place.run(frame, "words", "--set", "evaluation.incomparable_champion=replace")
    assert done.json["champion"] == place.champion() == "2"
    assert (
        "without a comparison: champion version 1 of people cannot be compared: its classes are 0, 1"
        in moves(place.client, "people")[-1].why
    )


def test_a_coin_flip_never_becomes_champion(tmp_path, warm):
    random = np.random.default_rng(11)
    noise = pd.DataFrame({"a": random.normal(size=400), "b": random.normal(size=400), "y": random.integers(0, 2, 400)})
    place = Place(tmp_path, warm)
    done = place.run(noise, "monday", expect=4)
    assert "the trivial predictor's 0.5000: not significantly better" in done.json["error"]
    assert done.json["champion"] is None
    # Neither thresholds of one's own nor a run without a comparison let it pass.
    mild = ["--set", "evaluation.thresholds.accuracy.lower_bound=0.1", "--set", "evaluation.improvement=null"]
    place.run(noise, "monday", *mild, expect=4)
    assert place.champion() is None


def test_a_registered_model_of_another_tool_is_refused_before_training(tmp_path, warm):
    uri = f"sqlite:///{tmp_path / 'theirs.db'}"
    client = tracking.client(uri)
    client.create_registered_model("people")
    client.create_model_version("people", "/theirs")
    client.set_registered_model_alias("people", CHAMPION, "1")
    place = Place(tmp_path, warm)
    done = place.run(people(300, 1), "monday", "--set", f"tracking.uri={uri}", expect=2)
    assert "the registered model 'people' was not created by Switchyard" in done.json["error"]
    assert "serving.model_name" in done.json["error"]
    assert "training" not in done.stages
    by_hand = warm("models", "promote", "people", "1", "--why", "x", "--force", "--tracking-uri", uri)
    assert by_hand.code == 2
    assert "was not created by Switchyard" in by_hand.stderr
    assert alias_version(client, "people", CHAMPION) == "1"
    assert [str(v.version) for v in client.search_model_versions("name = 'people'")] == ["1"]


OVERTAKE = """
def build_model(spec):
    import torch
    from mlflow import MlflowClient
    from switchyard.components.tracking.model_registry import promote

    # Between the baseline stage, which looks for the champion, and the registry: a person promotes another one.
    client = MlflowClient({uri!r}, {uri!r})
    promote(client, "people", "2", why="by hand", force=True)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, features):
            return self.layer(features["a"].float())

    return Net()
"""


def test_a_champion_that_was_moved_during_the_run_is_not_replaced(tmp_path, warm):
    place = Place(tmp_path, warm)
    place.run(people(800, 1), "monday")
    frame = people(800, 1)
    place.run(flipped(frame), "tuesday", expect=4)
    (tmp_path / "m.py").write_text(OVERTAKE.format(uri=f"sqlite:///{tmp_path / 'w' / 'mlflow.db'}"))
    better = ["--set", f"trainer.model={tmp_path / 'm.py'}", "--set", "evaluation.improvement=null"]
    done = place.run(frame, "monday", *better, expect=4)
    assert done.json["status"] == "not_blessed"
    assert "not promoted: people: the champion was version 1" in done.json["error"]
    assert "is version 2 now" in done.json["error"]
    assert place.champion() == "2"
    assert moves(place.client, "people")[-1].why == "by hand"
    assert place.client.get_run(done.json["mlflow_run_id"]).data.tags["switchyard.status"] == "not_blessed"
    # To run again, as the message says, is to be compared with the one of now.
    again = place.run(frame, "monday", *better)
    assert again.json["unchanged_since"] is None
    assert again.stages["training"] == "cached"
    assert again.json["champion"] == place.champion() == done.json["model_version"]
