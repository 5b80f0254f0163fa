"""What earlier versions left is opened by the present one: workspaces, bundles, signatures and compiled pipelines.

`tests/upgrades` holds a folder for each version, see `tests/upgrades/make.py`.
"""

import importlib
import io
import json
import lzma
import re
import tarfile
from urllib.request import Request, urlopen

import pytest
import yaml
from mlflow import MlflowClient

from switchyard.pipelines.runners.kubeflow.compiler.check import check
from tests.cluster.submitting import nested, wait_for_end
from tests.command import REPOSITORY
from tests.serving.server import serving

UPGRADES = REPOSITORY / "tests" / "upgrades"
VERSIONS = sorted(f.name for f in UPGRADES.iterdir() if (f / "scores.json").is_file())
FRAMEWORKS = ("tensorflow", "pytorch")


@pytest.fixture(scope="module", params=VERSIONS)
def kept(request):
    """The folder of an earlier version's files."""
    return UPGRADES / request.param


@pytest.fixture(scope="module")
def workspace(kept, tmp_path_factory):
    """The earlier version's workspace, at another place than where it was made."""
    folder = tmp_path_factory.mktemp("earlier") / "w"
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress((kept / "workspace.tar.xz").read_bytes()))) as tar:
        tar.extractall(folder, filter="data")
    return folder


def scores_of(kept, framework):
    """Returns the number of the framework's version, and its scores of `rows.csv`."""
    recorded = json.loads((kept / "scores.json").read_text())
    return next((number, found["scores"]) for number, found in recorded.items() if found["framework"] == framework)


def post(url, body):
    asked = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(asked, timeout=60) as answer:
        return json.load(answer)


def lists_models(warm, workspace):
    done = warm("models", "list", "upgrade", "--workspace", workspace, "--json")
    assert done.code == 0, done.stderr
    return json.loads(done.stdout.splitlines()[0])


def test_models_runs_and_files_of_an_earlier_workspace_are_there(kept, workspace, warm):
    listed = lists_models(warm, workspace)
    assert {v["framework"] for v in listed["versions"]} == set(FRAMEWORKS)
    assert [m["action"] for m in listed["moves"]] == ["promote"]
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    [experiment] = [e for e in client.search_experiments() if e.name == "upgrade"]
    [run] = client.search_runs([experiment.experiment_id], "tags.switchyard.status = 'blessed'")
    assert run.data.metrics
    assert "report" in {f.path for f in client.list_artifacts(run.info.run_id)}
    for version in listed["versions"]:
        done = warm(
            "models", "verify", "upgrade", version["version"], "--key", kept / "signer.pem", "--workspace", workspace, "--json"
        )
        outcomes = {c["what"]: c["outcome"] for c in json.loads(done.stdout)["checks"]}
        assert done.code == 0, done.stdout
        assert (outcomes["manifest.json"], outcomes["signature"], outcomes["run"]) == ("same", "same", "same")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_earlier_bundle_predicts_and_serves_the_scores_that_it_had(framework, kept, workspace, warm, tmp_path):
    number, expected = scores_of(kept, framework)
    options = ["--workspace", workspace, "--verify", kept / "signer.pem"]
    done = warm("predict", f"upgrade@{number}", kept / "rows.csv", "-o", tmp_path / "o.jsonl", *options)
    assert done.code == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [r["probability"] for r in rows] == pytest.approx(expected, abs=1e-6)
    with serving(f"upgrade@{number}", tmp_path / "log", *options) as server:
        records = [{k: r[k] for k in ("miles", "zone")} for r in rows]
        status, _, answer = server.request("/invocations", {"dataframe_records": records})
    assert status == 200
    assert [p["probability"] for p in answer["predictions"]] == pytest.approx(expected, abs=1e-6)


def test_an_earlier_pipeline_compiled_for_kubeflow_is_valid_and_its_stages_are_there(kept):
    spec = next(yaml.safe_load_all(lzma.decompress((kept / "pipeline.yaml.xz").read_bytes())))
    check(spec)
    code = json.dumps(spec["deploymentSpec"])
    called = set(re.findall(r"component='(switchyard[\w.]+)\.(\w+)'", code))
    assert len(called) >= 10
    assert all(hasattr(importlib.import_module(module), name) for module, name in called)


def test_an_earlier_pipeline_compiled_for_kubeflow_runs_in_an_image_of_this_version(kept, host, mlflow, warm):
    """As KFP's API starts it, with KFP's MLflow plugin, on the server that executes what it receives."""
    spec, platform = yaml.safe_load_all(lzma.decompress((kept / "pipeline.yaml.xz").read_bytes()))
    experiment = post(f"{host}/apis/v2beta1/experiments", {"display_name": "earlier"})["experiment_id"]
    body = {"display_name": "earlier", "experiment_id": experiment, "plugins_input": {"mlflow": {"experiment_name": "plugin"}}}
    run = post(f"{host}/apis/v2beta1/runs", {**body, "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform}})
    shown = wait_for_end(warm, host, run["run_id"])
    assert shown["state"] == "SUCCEEDED", shown
    parent = run["plugins_output"]["mlflow"]["entries"]["root_run_id"]["value"]
    ran = {r.info.run_name for r in nested(mlflow, parent)}
    assert {"ingest", "transform", "training_tensorflow", "training_pytorch", "evaluation", "registry", "report"} <= ran
    versions = MlflowClient(mlflow).search_model_versions("name='upgrade'")
    assert versions
    assert all("switchyard.digest" in v.tags for v in versions)


def test_a_run_in_an_earlier_workspace_compares_with_its_champion(kept, workspace, warm, tmp_path):
    champion = next(v["version"] for v in lists_models(warm, workspace)["versions"] if "champion" in v["aliases"])
    rows = "".join(f"{i % 12}.5,{'ABC'[i % 3]},{int((i % 12) > 5)}\n" for i in range(300))
    (tmp_path / "rides.csv").write_text(f"miles,zone,tip\n{rows}")
    short = ["--set", "trainer.hyperparameters.epochs=2", "--set", "evaluation.thresholds={}"]
    given = [
        "run",
        "--data",
        tmp_path / "rides.csv",
        "--label",
        "tip",
        "--set",
        "name=upgrade",
        "--trainer",
        "tensorflow",
        *short,
    ]
    done = warm(*given, "--workspace", workspace, "--json")
    assert done.code in (0, 4), done.stderr
    assert f"version {champion}" in json.dumps(done.json) or done.json["champion"] == champion
    assert len(lists_models(warm, workspace)["versions"]) >= 2
