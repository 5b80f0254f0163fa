"""TFX pipelines that are not ours: each construct, and TFX's taxi-style pipeline, compiled and run under the backend's rules."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import REPOSITORY


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conformance")
    done = subprocess.run(
        [sys.executable, "-m", "tests.kubeflow.run_conformance", str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def constructs(ran):
    assert ran["constructs"]["error"] is None
    return ran["constructs"]["outputs"]


def seen(outputs, node, key="out"):
    return json.loads((Path(outputs[node][key]["uri"]) / "seen.json").read_text())


def test_exec_properties_of_every_type_arrive(constructs):
    assert seen(constructs, "one", "examples") == {"n": 1, "flag": "x", "weights": [0.5, 2.0], "loud": True}


def test_a_runtime_parameter_is_a_pipeline_parameter(constructs):
    assert seen(constructs, "two", "examples") == {"n": 2, "flag": "given", "weights": [], "loud": False}


def test_values_and_metadata_survive_the_backend(constructs):
    assert seen(constructs, "reading") == {
        "count": 7,
        "share": 2.0,
        "title": "7",
        "rows": 12,
        "loss": 0.25,
        "digits": "12",
        "shape": [1, {"a": None}],
        "values": [0.5, "<x>", 1],
    }


def test_a_future_value_is_an_exec_property(constructs):
    assert seen(constructs, "future") == {"threshold": 1.0}


def test_several_channels_on_one_input_keep_their_order(constructs):
    assert seen(constructs, "Gather.both") == {"examples": [1, 2], "sep": ","}


def test_a_custom_driver_runs_first(constructs):
    assert seen(constructs, "watch", "examples") == {"n": 0, "content": "seen", "span": 4}


def test_an_imported_artifact_keeps_its_properties(constructs):
    assert constructs["imported"]["result" if "result" in constructs["imported"] else "artifact"]["metadata"]["origin"] == "here"
    assert "of_imported" in constructs, "it asserts the span"


def test_conditions_hold_or_do_not(constructs):
    assert seen(constructs, "if_true") == {"examples": [1], "sep": ","}
    assert seen(constructs, "if_both") == {"examples": [0], "sep": ","}
    assert "if_false" not in constructs


def test_empty_folders_are_restored(ran):
    assert any(os.path.basename(lost) == "notes" for lost in ran["lost"])


def test_a_second_identical_run_is_cached(ran):
    again = ran["constructs2"]
    assert again["error"] is None
    # Only what cannot be cached ran: a task that runs says so.
    started = {s.partition(":")[0] for s in again["said"] if ": done in" in s}
    assert started <= {"of-imported"}


def contents(outputs):
    """Returns (node, output) -> its metadata, and its files with their bytes."""

    def files(path):
        below = [p for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file()]
        return {str(p.relative_to(path)): p.read_bytes() for p in below}

    return {
        (node, key): (found["metadata"], files(Path(found["uri"]))) if isinstance(found, dict) else found
        for node, by_key in outputs.items()
        for key, found in by_key.items()
    }


def test_joined_nodes_give_the_outputs_of_separate_ones(ran, constructs):
    joined = ran["joined"]
    assert joined["error"] is None
    tasks = [{s.partition(":")[0] for s in ran[name]["said"]} for name in ("constructs", "joined")]
    assert len(tasks[1]) < len(tasks[0])
    assert contents(joined["outputs"]) == contents(constructs)


def test_a_failing_node_is_a_failing_task(ran):
    failed = ran["failing"]
    assert failed["error"].startswith("StageError: two: ValueError: no such luck")
    assert not any(s.startswith("three") for s in failed["said"])


def test_the_taxi_pipeline_pushes_a_model(ran):
    taxi = ran["taxi"]
    assert taxi["error"] is None
    outputs = taxi["outputs"]
    assert set(outputs) == {
        "CsvExampleGen",
        "StatisticsGen",
        "SchemaGen",
        "ExampleValidator",
        "Transform",
        "Trainer",
        "Evaluator",
        "Pusher",
    }
    assert outputs["Evaluator"]["blessing"]["metadata"]["blessed"] == 1
    pushed = Path(outputs["Pusher"]["pushed_model"]["metadata"]["pushed_destination"])
    assert (pushed / "saved_model.pb").exists()


def test_stock_artifacts_have_views(ran):
    outputs = ran["taxi"]["outputs"]
    page = Path(outputs["StatisticsGen"]["statistics_html"]["uri"]).read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "payment" in page
    assert "No anomalies" in Path(outputs["ExampleValidator"]["anomalies_markdown"]["uri"]).read_text()
    metrics = outputs["Evaluator"]["evaluation_metrics"]["metadata"]
    assert 0.7 < metrics["auc"] <= 1
    assert "auc[payment=card]" in metrics
    assert all(isinstance(v, float) for v in metrics.values())
    assert outputs["Evaluator"]["evaluation_roc"]["metadata"]["confidenceMetrics"]
