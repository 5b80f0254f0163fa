"""A run whose columns all have awkward names, by three trainers at once; then predict, drift, serve and MLflow itself."""

import csv
import json
import random
import shutil
import subprocess
import sys

import pytest
import yaml

from switchyard.components.bundle.source import ModelRef
from tests.command import REPOSITORY, environment
from tests.security.awkward import MARK, names
from tests.serving.server import serving

LABEL = f'{MARK} la"bel {{x}}\n$(y)'
TEXT = f"{MARK}\\text\\"
TRAINERS = ["pytorch", "tensorflow", f"{REPOSITORY / 'tests' / 'contract' / 'sklearn_trainer.py'}:SklearnTrainer"]


class Awkward:
    def __init__(self, folder):
        self.folder, self.workspace, self.canary = folder, folder / "w", folder / "canary"
        self.columns = [TEXT, *names(self.canary)]
        self.data = self._write_data(folder / "data.csv")
        document = {
            "name": "awkward",
            "data": {"path": "data.csv"},
            "label": LABEL,
            "trainer": {"framework": TRAINERS, "hyperparameters": {"epochs": 2}},
            "evaluation": {"slices": [[TEXT]], "thresholds": {"auc": {"lower_bound": 0.1}}},
        }
        (folder / "p.yaml").write_text(yaml.safe_dump(document))

    def _write_data(self, path):
        rng = random.Random(1)
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*self.columns, LABEL])
            for i in range(600):
                values = [round(rng.gauss(0, 1), 3) for _ in self.columns[1:]]
                text = rng.choice(["red", "green", "<b>"])
                label = ["no", 'ye"s'][values[0] + (text == "red") > 0.3]
                writer.writerow([text, *values[:3], "" if i % 7 == 0 else values[3], *values[4:], label])
        return path


@pytest.fixture(scope="module")
def awkward(tmp_path_factory, warm):
    made = Awkward(tmp_path_factory.mktemp("awkward"))
    made.run = warm.run(made.folder / "p.yaml", made.workspace)
    return made


@pytest.fixture(autouse=True)
def _nothing_was_run(awkward):
    yield
    assert not awkward.canary.exists(), "a column's name was run"
    assert not (REPOSITORY / "canary").exists()


def test_every_trainer_is_trained_and_can_be_served(awkward):
    [verdict] = awkward.workspace.glob("artifacts/infra_validation/blessing/*/infra_validation.json")
    found = json.loads(verdict.read_text())
    assert len(found) == 3, found
    assert "cannot be served" not in awkward.run.stderr


def test_no_file_is_named_after_a_column_and_no_page_contains_a_columns_markup(awkward):
    files = [f for f in awkward.workspace.rglob("*") if f.is_file()]
    assert not [f for f in files if MARK in str(f.relative_to(awkward.workspace))]
    pages = [f for f in files if f.suffix in (".html", ".md")]
    assert pages
    for page in pages:
        text = page.read_text(errors="replace")
        assert "<script>" not in text, page
        assert "<img src=x" not in text, page


def test_exports_contain_no_column_name(awkward):
    exports = [
        f for f in awkward.workspace.glob("artifacts/training*/model/*/**/model/*") if f.name in ("model.pt2", "saved_model.pb")
    ]
    assert len(exports) == 2
    for file in exports:
        assert MARK.encode() not in file.read_bytes()


@pytest.mark.timeout(900)
def test_a_compiled_pipeline_takes_the_same_names(awkward, warm, tmp_path):
    settings = ["--trainer", "pytorch", "--set", "serving.infra_validation=null"]
    done = warm("run", awkward.folder / "p.yaml", "--workspace", tmp_path / "w", "--runner", "kfp-local", *settings)
    # Two epochs need not make a model that is surely better than a trivial one; the pipeline comes to its end either way.
    assert done.code in (0, 4), done.stderr
    views = [f for kind in ("html", "markdown") for f in (tmp_path / "w" / "kubeflow").rglob(f"*_{kind}")]
    assert len(views) >= 4
    for view in views:
        assert "<script>" not in view.read_text(), view
        assert "<img src=x" not in view.read_text(), view


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_predict_writes_the_columns_unchanged(ending, awkward, warm, tmp_path):
    out = tmp_path / f"out.{ending}"
    done = warm("predict", "awkward@champion", awkward.data, "-o", out, "--workspace", awkward.workspace)
    assert done.code == 0, done.stderr
    if ending == "csv":
        with open(out, newline="") as file:
            columns = next(csv.reader(file))
    elif ending == "parquet":
        import pyarrow.parquet

        columns = pyarrow.parquet.read_schema(out).names
    else:
        with open(out) as file:
            columns = list(json.loads(file.readline()))
    assert columns == [*awkward.columns, LABEL, "prediction", "probability", "positive_class"]


def test_predict_refuses_nul_in_a_header(awkward, warm, tmp_path):
    (tmp_path / "in.csv").write_bytes(awkward.data.read_bytes().replace(MARK.encode(), b"a\0b", 1))
    done = warm("predict", "awkward@champion", tmp_path / "in.csv", "-o", tmp_path / "o.csv", "--workspace", awkward.workspace)
    assert done.code == 2
    assert "holds a NUL character. Rename it" in done.stderr


def test_run_refuses_nul_in_a_header(awkward, warm, tmp_path):
    (tmp_path / "data.csv").write_bytes(awkward.data.read_bytes().replace(MARK.encode(), b"a\0b", 1))
    (tmp_path / "p.yaml").write_text((awkward.folder / "p.yaml").read_text())
    done = warm("run", tmp_path / "p.yaml", "--workspace", tmp_path / "w")
    assert done.code == 2
    assert "holds a NUL character. Rename it" in done.stderr


def test_drift_logs_every_column_separately_in_mlflow(awkward, warm):
    from mlflow import MlflowClient

    done = warm("drift", "awkward@champion", awkward.data, "--workspace", awkward.workspace, "--json")
    assert done.code == 0, done.stderr
    run = MlflowClient(f"sqlite:///{awkward.workspace / 'mlflow.db'}").get_run(json.loads(done.stdout)["mlflow_run_id"])
    assert len([k for k in run.data.metrics if k.startswith("drift.")]) == len(awkward.columns)


def test_a_server_answers_by_name(awkward, tmp_path):
    with open(awkward.data, newline="") as file:
        row = next(iter(csv.DictReader(file)))
    record = {c: row[c] if c == TEXT else float(row[c]) if row[c] else None for c in awkward.columns}
    with serving("awkward@champion", tmp_path / "log", "--workspace", awkward.workspace) as server:
        status, _, answer = server.request("/invocations", {"dataframe_records": [record, record]})
        assert status == 200, answer
        assert len(answer["predictions"]) == 2
        assert server.request("/openapi.json")[0] == 200
        assert server.request("/v2/models/awkward")[0] == 200


LOAD = """
import sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
rows = pd.read_csv(sys.argv[2])
for place in sys.argv[3:]:
    try:
        print(len(mlflow.pyfunc.load_model(place).predict(rows.drop(columns=rows.columns[-1]))))
    except Exception as error:
        print(error)
"""


def test_mlflow_loads_what_was_registered_and_refuses_what_was_changed(awkward, tmp_path):
    uri = f"sqlite:///{awkward.workspace / 'mlflow.db'}"
    changed = []
    for version in "123":
        with ModelRef(uri, "awkward", version).open() as opened:
            changed.append(shutil.copytree(opened.folder, tmp_path / version))
        [info] = changed[-1].glob("artifacts/*/bundle.json")
        info.write_text(info.read_text() + " ")
    places = [*(f"models:/awkward/{v}" for v in "123"), *map(str, changed)]
    command = [sys.executable, "-c", LOAD, uri, str(awkward.data), *places]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == ["600"] * 3
    assert done.stdout.count("bundle.json' was changed") == 3
