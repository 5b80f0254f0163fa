"""`import switchyard` as a notebook uses it, over a workspace that the command has trained in."""

import json
import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from tests.command import BREAST_CANCER, EXAMPLES, REPOSITORY, TRAINERS, environment

pytestmark = pytest.mark.core
DATA = EXAMPLES / "breast_cancer" / "data.csv"
RUN = """
import json, sys, warnings
import switchyard

warnings.simplefilter("ignore", UserWarning)
yaml, workspace, trainer = sys.argv[1:]
result = switchyard.run(
    yaml,
    trainer=trainer,
    overrides={"trainer.hyperparameters.epochs": 5, "evaluation.improvement": None},
    workspace=workspace,
    even_if_unchanged=True,
)
stages = {name: stage.status for name, stage in result.stages.items()}
print(json.dumps([result.status, result.exit_code, result.mlflow_run_id, result.metrics, stages, str(result.report)]))
"""


def python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment(PYTHONPATH=REPOSITORY),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_run_does_what_the_command_does_and_prints_nothing(runs, workspace, tmp_path):
    copy = tmp_path / "w"
    shutil.copytree(workspace, copy)
    done = python(RUN, BREAST_CANCER, copy, TRAINERS["sklearn"])
    [line] = done.stdout.splitlines()
    status, exit_code, run_id, metrics, stages, report = json.loads(line)
    assert (status, exit_code) == (runs["sklearn"].json["status"], 0)
    assert run_id not in {r.json["mlflow_run_id"] for r in runs.values()}
    assert metrics["auc"] == pytest.approx(runs["sklearn"].json["metrics"]["auc"])
    assert (stages["training"], stages["evaluation"]) == ("cached", "ran")
    assert "<html" in open(report).read(2000)
    [moved] = done.stderr.splitlines()
    assert moved.startswith(f"workspace {copy}: copied from {workspace}")


@pytest.fixture
def _variables_as_they_were():
    """A notebook keeps what keeps libraries quiet and out of the home folder; the tests after these do not."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("_variables_as_they_were")
def test_a_loaded_model_predicts_rows_as_the_command_predicts_files(runs, workspace, tmp_path, warm):
    import switchyard as api

    name = f"breast_cancer@{runs['pytorch'].json['model_version']}"
    frame = pd.read_csv(DATA).drop(columns="diagnosis").head(20)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    model = api.load_model(name, workspace=workspace)
    assert model.info.framework == "pytorch"
    found = api.predict(model, frame)
    pd.testing.assert_frame_equal(api.predict(model, frame.to_dict("records")), found)
    pd.testing.assert_frame_equal(api.predict(name, frame, workspace=workspace), found)
    done = warm("predict", name, tmp_path / "rows.csv", "-o", tmp_path / "by command.csv", "--workspace", workspace)
    assert done.code == 0, done.stderr
    written = api.predict(name, tmp_path / "rows.csv", output=tmp_path / "by function.csv", workspace=workspace)
    assert (written.rows, written.bad_rows, written.reasons) == (20, 0, None)
    assert (tmp_path / "by command.csv").read_text() == written.output.read_text()
    assert list(pd.read_csv(written.output)["prediction"]) == list(found["prediction"])
    with pytest.raises(api.UserError, match="has no version or alias '77'"):
        api.load_model("breast_cancer@77", workspace=workspace)


def test_a_bundle_names_only_the_public_api(bundles):
    for bundle in bundles.values():
        named = {
            found
            for file in bundle.rglob("*")
            if file.suffix in (".py", ".json", ".yaml", ".txt", "") and file.is_file()
            for found in re.findall(rb"switchyard\.(?:components|pipelines)[\w.]*", file.read_bytes())
        }
        assert named == set()
