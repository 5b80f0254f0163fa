"""A champion whose files were changed ends the run by name, before anything is compared with it."""

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from switchyard.components.artifacts import Baseline
from switchyard.components.baseline.component import Executor
from switchyard.components.baseline.contents import BaselineContents, champion_folder
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.evaluation.predictions import Loaded
from switchyard.components.tracking import model_registry
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.manifest import write_manifest
from tests.security.bundles import FEATURE, make_bundle


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Returns a function that runs the baseline stage, and the files of the champion in the registry."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = tracking.client(uri)
    run_id = client.create_run(client.create_experiment("x", artifact_location=str(tmp_path / "files"))).info.run_id
    make_bundle(tmp_path / "model")
    described = {
        "name": "m", "bundle": str(tmp_path / "model"), "uri": "1", "passed": True, "blessed": True, "compared_with": None,
        "why": "", "metrics": {}, "data": "", "tags": {"framework": "tensorflow"}, "description": "",
    }  # fmt: skip
    model_registry.register_model(client, run_id, described)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    examples, baseline = standard_artifacts.Examples(), Baseline()
    examples.uri, baseline.uri = str(tmp_path / "examples"), str(tmp_path / "baseline")
    (tmp_path / "examples" / "Split-test").mkdir(parents=True)
    values = {name: tf.train.Feature(float_list=tf.train.FloatList(value=[1.0])) for name in (FEATURE, "y")}
    with tf.io.TFRecordWriter(str(tmp_path / "examples" / "Split-test" / "rows")) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString())
    summary = DatasetSummary(
        "f", [], {FEATURE: "float", "y": "float"}, {}, {"train": 1, "test": 1}, 0, [], [], "y", "regression", [], {}
    )
    summary.save(examples.uri)

    def run():
        Executor().Do({"examples": [examples]}, {"baseline": [baseline]}, {"model_name": "m", "pipeline_name": "p"})
        return baseline.uri

    return run, tmp_path / "files"


def test_an_intact_champion_is_compared(stage):
    run, _ = stage
    uri = run()
    contents = BaselineContents.load(uri)
    assert contents.comparable(1.0), contents
    assert Loaded({"champion": (str(champion_folder(uri)), contents.digest)})["champion"].info.label == "y"


@pytest.mark.parametrize("anew", [False, True], ids=["file", "file and manifest"])
def test_a_changed_champion_ends_the_stage(anew, stage):
    run, files = stage
    [info] = files.rglob("bundle.json")
    info.write_text(info.read_text() + " ")
    if anew:
        write_manifest(info.parents[2])
    with pytest.raises(UserError, match=r"manifest\.json was changed" if anew else r"bundle\.json' was changed"):
        run()


def test_evaluation_checks_the_files_that_baseline_fetched(stage):
    run, _ = stage
    uri = run()
    contents = BaselineContents.load(uri)
    [info] = champion_folder(uri).glob("artifacts/*/bundle.json")
    info.write_text(info.read_text() + " ")
    write_manifest(champion_folder(uri))
    with pytest.raises(UserError, match=r"manifest\.json was changed"):
        Loaded({"champion": (str(champion_folder(uri)), contents.digest)})
