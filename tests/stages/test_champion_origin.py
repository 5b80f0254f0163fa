"""A champion of another data set is named as that before training: the baseline stage on a real MLflow store."""

import pytest
from tfx.types import standard_artifacts

from switchyard.components import progress
from switchyard.components.artifacts import Baseline
from switchyard.components.baseline.component import Executor
from switchyard.components.baseline.contents import BaselineContents
from switchyard.components.data import source as data_source
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.model_registry import register_model
from tests.registries import small_model


@pytest.fixture
def find(tmp_path, monkeypatch):
    """Returns the baseline, and what is said, of a run over /d/churn/*.csv, whose champion has these tags."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = tracking.client(uri)
    run_id = client.create_run(client.create_experiment("e", artifact_location=(tmp_path / "files").as_uri())).info.run_id
    facts = DatasetSummary("mine", [], {}, {}, {"train": 8, "test": 2}, 0, [], [], "y", "binary", [0, 1], {})

    def run(patterns, **changes):
        register_model(client, run_id, small_model(tmp_path, 1, tags=data_source.tags_of(patterns), **changes))
        examples, baseline = standard_artifacts.Examples(), Baseline()
        for artifact, name in ((examples, "examples"), (baseline, "baseline")):
            artifact.uri = str(tmp_path / name)
            (tmp_path / name).mkdir()
        DatasetSummary(**{**vars(facts), "source": ["/d/churn/*.csv"]}).save(examples.uri)
        said = []
        progress.set_sink(said.append)
        try:
            names = {"model_name": "m", "pipeline_name": "m"}
            Executor().Do({"examples": [examples]}, {"baseline": [baseline]}, names)
        finally:
            progress.set_sink(None)
        return BaselineContents.load(baseline.uri), "\n".join(said)

    return run


@pytest.mark.core
def test_a_champion_trained_on_other_files_is_named_with_them_and_compared_by_the_same_rules(find):
    baseline, said = find(["/d/fraud/*.csv"])
    assert "warning: champion version 1 was trained on another data set, /d/fraud/*.csv; they are compared anyway" in said
    assert "serving.model_name" in said
    assert (baseline.version, baseline.trained_on) == ("1", "/d/fraud/*.csv")


@pytest.mark.parametrize(
    ("patterns", "changes"),
    [(["/d/churn/*.csv"], {}), ([], {}), (["/moved/churn/*.csv"], {"data": "mine"})],
    ids=["the same pattern", "not recorded", "the same content elsewhere"],
)
def test_a_champion_trained_on_the_same_or_an_unknown_data_set_is_not_named(find, patterns, changes):
    baseline, said = find(patterns, **changes)
    assert (baseline.trained_on, "another data set" in said) == ("", False)
