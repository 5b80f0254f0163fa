"""The request log, and `switchyard drift` on what it wrote."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from switchyard.components.bundle.model import BundleInfo, Ragged, RawFeature, bundle_info
from switchyard.components.serving.client import tensors
from switchyard.components.serving.request_log import RequestLog, _array
from tests.serving.server import serving, wait_until


@pytest.fixture(scope="module")
def rows(bundles, workspace, eval_rows):
    return eval_rows(workspace, bundle_info(bundles["pytorch"]).features)


def test_requests_are_logged_and_drift_is_found(runs, bundles, workspace, rows, warm, tmp_path):
    """Half of the traffic is as in training, then one column comes in other units."""
    info = bundle_info(bundles["pytorch"])
    log = tmp_path / "requests"
    options = ["--request-log", log, "--sample", 100, "--redact", "mean_area"]
    shifted = rows.assign(mean_radius=rows["mean_radius"] * 10)
    with serving("breast_cancer@champion", tmp_path / "log", "--workspace", workspace, *options) as server:
        for frame in (rows, shifted):
            status, _, answer = server.infer(tensors(frame, info.features))
            assert status == 200, answer
        version = answer["model_version"]
    files = sorted(log.glob("*.parquet"))
    logged = pd.concat([pd.read_parquet(f) for f in files], ignore_index=True)
    assert len(logged) == 2 * len(rows)
    assert "mean_area" not in logged
    assert set(logged["switchyard_version"]) == {version}
    np.testing.assert_allclose(logged["mean_radius"], np.concatenate([rows["mean_radius"], shifted["mean_radius"]]), rtol=1e-6)
    np.testing.assert_allclose(logged["probability"].iloc[len(rows) :], answer["outputs"][1]["data"], atol=1e-9)
    assert not list(log.glob(".*")), "nothing is left half written"

    plain = tmp_path / "plain.parquet"
    logged.iloc[: len(rows)].to_parquet(plain)
    same = warm("drift", "breast_cancer@champion", plain, "--workspace", workspace)
    assert same.code == 0, same.stderr
    assert "not in the requests: mean_area" in same.stdout
    found = warm("drift", "breast_cancer@champion", log / "*.parquet", "--workspace", workspace, "--fail", 0.2, "--json")
    assert found.code == 3, (found.stdout, found.stderr)
    [finding] = [f for f in found.json["findings"] if f["action"] == "fail"]
    assert finding["feature"] == "mean_radius"
    assert found.json["distances"][0]["feature"] == "mean_radius"
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    run = client.get_run(found.json["mlflow_run_id"])
    assert run.data.metrics["drift.mean_radius"] == pytest.approx(found.json["distances"][0]["largest"])
    assert run.data.metrics["rows"] == 2 * len(rows)
    assert run.info.status == "FINISHED"
    page = open(client.download_artifacts(run.info.run_id, "drift/drift.html")).read()
    assert "mean_radius" in page
    assert "its distribution has changed" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=.https?:", page), "nothing is fetched"


def test_answers_continue_when_the_request_log_cannot_be_written(bundles, rows, tmp_path):
    """The folder goes away under the server: rows are dropped and counted."""
    info = bundle_info(bundles["tensorflow"])
    log = tmp_path / "requests"
    with serving(bundles["tensorflow"], tmp_path / "log", "--request-log", log, "--sample", 100, name="m") as server:
        log.rmdir()
        for _ in range(60):
            assert server.infer(tensors(rows, info.features))[0] == 200
        wait_until(lambda: server.metric("switchyard_request_log_dropped_rows_total") > 0, 40, "dropped rows are counted")
    assert not log.exists()


def test_drift_and_request_logs_refuse_invalid_arguments(bundles, workspace, warm, tmp_path):
    (tmp_path / "file").write_text("")
    done = warm("serve", bundles["tensorflow"], "--trust", "--request-log", tmp_path / "file" / "x")
    assert done.code == 2
    assert "--request-log: cannot write" in done.stderr
    pd.DataFrame({"other": [1.0]}).to_csv(tmp_path / "other.csv", index=False)
    done = warm("drift", bundles["tensorflow"], "--trust", tmp_path / "other.csv")
    assert done.code == 2
    assert "none of the model's columns is present" in done.stderr
    done = warm("drift", bundles["tensorflow"], "--trust", tmp_path / "none.csv")
    assert done.code == 2
    assert "no file matches" in done.stderr


@pytest.mark.core
def test_ragged_and_text_columns_become_arrow_arrays():
    ragged = Ragged(np.array([1.0, 2.0], dtype=np.float32), np.array([1, 0, 1]))
    assert _array(ragged, pa.float32(), is_list=False).to_pylist() == [1.0, None, 2.0]
    lists = Ragged(np.array([1, 2, 3]), np.array([2, 0, 1]))
    assert _array(lists, pa.int64(), is_list=True).to_pylist() == [[1, 2], None, [3]]
    assert _array(np.array([[b"a"], [b"b"]], dtype=object), pa.string(), is_list=False).to_pylist() == ["a", "b"]
    assert _array(np.array([[1, 2], [3, 4]]), pa.int64(), is_list=False).to_pylist() == [[1, 2], [3, 4]]


@pytest.mark.core
def test_the_request_log_keeps_its_share_of_rows(tmp_path):
    dropped = []
    log = RequestLog(tmp_path / "requests", 0.25, (), dropped.append)

    class Model:
        version = "1"
        info = bundle_of_one()

    for _ in range(2000):
        log.add(Model, {"a": np.ones((1, 1), dtype=np.float32)}, np.full((1, 1), 0.5, dtype=np.float32))
    log.close()
    kept = sum(len(pd.read_parquet(f)) for f in (tmp_path / "requests").glob("*.parquet"))
    assert 400 < kept < 600
    assert not dropped


@pytest.mark.core
def test_the_request_log_keeps_few_bytes_of_images_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("switchyard.components.serving.request_log._MOST_BYTES", 100)
    monkeypatch.setattr("switchyard.components.serving.request_log._BYTES", 60)
    dropped = []
    log = RequestLog(tmp_path / "requests", 1, ("secret",), dropped.append)
    features = [RawFeature(name, "string", 1, is_bytes=True, image=(8, 8, 3)) for name in ("photo", "secret")]

    class Model:
        version = "1"
        info = BundleInfo("pytorch", "x:Y", "binary", "label", ["no", "yes"], features)

    def add(size):
        columns = {"photo": np.array([[b"x" * size]], object), "secret": np.array([[b"x" * 1000]], object)}
        log.add(Model, columns, np.full((1, 1), 0.5, np.float32))

    add(101)
    assert dropped == [1]
    add(60)
    wait_until(lambda: list((tmp_path / "requests").glob("[!.]*.parquet")), 20, "a file before 30 s or 5,000 rows")
    log.close()
    [file] = (tmp_path / "requests").glob("*.parquet")
    assert pd.read_parquet(file)["photo"].tolist() == [b"x" * 60]


def bundle_of_one():
    return BundleInfo("pytorch", "x:Y", "binary", "label", ["no", "yes"], [RawFeature("a", "float32", 1)])
