"""Promotion, rollback, a model that cannot be served, a canary: under load, over a real registry."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

from switchyard.components.bundle.model import RawFeature, bundle_info, load_bundle
from switchyard.components.serving.client import tensors
from switchyard.components.tracking import model_registry
from switchyard.components.tracking.manifest import write_manifest
from tests.command import environment, free_port
from tests.registries import registry
from tests.serving.server import serving, wait_until

NAME = "swapped"
FAILS_AFTER_WARM_UP = """


import itertools


def _failing(cls, export_dir):
    calls = itertools.count()

    def predict(features):
        if next(calls) < 3:
            return np.full((len(next(iter(features.values()))), 1), 0.5, dtype=np.float32)
        raise RuntimeError("no such luck")

    return predict


SklearnTrainer.load_predictor = classmethod(_failing)
"""


@pytest.fixture(scope="module")
def registered(bundles, tmp_path_factory):
    """Version 1: TensorFlow, champion; 2: PyTorch; 3: weights damaged; 4: fails when it is used."""
    folder = tmp_path_factory.mktemp("registry")
    damaged, failing = folder / "damaged", folder / "failing"
    shutil.copytree(bundles["pytorch"], damaged)
    [weights] = damaged.glob("artifacts/*/model/model.pt2")
    weights.write_bytes(weights.read_bytes()[:1000])
    shutil.copytree(bundles["sklearn"], failing)
    [code] = failing.glob("artifacts/*/code/**/sklearn_trainer.py")
    code.write_text(code.read_text() + FAILS_AFTER_WARM_UP)
    write_manifest(damaged)  # registered as they are: whoever registers vouches for what is there
    write_manifest(failing)
    versions = [bundles["tensorflow"], bundles["pytorch"], damaged, failing]
    return registry(folder, NAME, [("any", source) for source in versions], each_beats_the_last=False)


@pytest.fixture(scope="module")
def rows(bundles, workspace, eval_rows):
    return eval_rows(workspace, bundle_info(bundles["pytorch"]).features)


@contextmanager
def load(server, rows, clients=8):
    """Asks all the time; yields what was answered: status, version, row, probability."""
    features = bundle_features(rows)
    bodies = [tensors(rows.iloc[[i]], features) for i in range(len(rows))]
    answers, over = [], threading.Event()

    def ask(client):
        i = client
        while not over.is_set():
            i = (i + clients) % len(bodies)
            status, _, answer = server.infer(bodies[i])
            value = answer["outputs"][1]["data"][0] if status == 200 else answer
            answers.append((status, answer.get("model_version"), i, value))

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask, c) for c in range(clients)]
        try:
            yield answers
        finally:
            over.set()
    for each in asking:
        each.result()


def bundle_features(rows):
    return [RawFeature(name, "float32", 1) for name in rows.columns]


def expected(bundles, rows):
    return {
        version: load_bundle(bundles[framework]).predict(rows)["probability"].to_numpy()
        for version, framework in (("1", "tensorflow"), ("2", "pytorch"))
    }


def check(answers, right):
    assert {status for status, *_ in answers} == {200}, [a for a in answers if a[0] != 200][:3]
    for version, values in right.items():
        mine = [(i, v) for _, found, i, v in answers if found == version]
        np.testing.assert_allclose([v for _, v in mine], values[[i for i, _ in mine]], atol=1e-5)


def test_promotions_and_rollbacks_under_load_fail_no_request(registered, bundles, rows, tmp_path):
    """No request fails, every answer is the old or the new model's; a damaged version is not put in; memory stays."""
    uri, client = registered
    right = expected(bundles, rows)
    assert np.abs(right["1"] - right["2"]).max() > 1e-3, "the two differ"
    with serving(f"{NAME}@champion", tmp_path / "log", "--tracking-uri", uri, "--poll", "0.2") as server:
        with load(server, rows) as answers:

            def answers_from(version):
                wait_until(lambda: answers and answers[-1][1] == version, 60, f"version {version}")

            answers_from("1")
            model_registry.promote(client, NAME, "2", why="test")
            answers_from("2")
            memory = psutil.Process(server.process.pid).memory_info().rss
            for _ in range(4):
                model_registry.rollback(client, NAME, why="test")
                answers_from("1")
                model_registry.rollback(client, NAME, why="test")
                answers_from("2")
            model_registry.promote(client, NAME, "3", why="test")
            wait_until(lambda: server.metric("switchyard_failed_swaps_total") == 1, 60, "the damaged version is refused")
            time.sleep(1)
            assert answers[-1][1] == "2"
            model_registry.promote(client, NAME, "1", why="test")
            answers_from("1")
        check(answers, right)
        grown = psutil.Process(server.process.pid).memory_info().rss - memory
        assert grown < 100 << 20, f"{grown >> 20} MiB after 10 swaps"
        assert server.stop() == 0
    log = (tmp_path / "log").read_text()
    assert "version 3 cannot be served and is not swapped in" in log


def test_a_canary_gets_its_share_and_becomes_champion(registered, bundles, rows, tmp_path):
    uri, client = registered
    if model_registry.alias_version(client, NAME, "champion") != "1":
        model_registry.promote(client, NAME, "1", why="test")
    client.set_registered_model_alias(NAME, "challenger", "2")
    right = expected(bundles, rows)
    options = ["--tracking-uri", uri, "--poll", "0.2", "--canary", 25]
    with serving(f"{NAME}@champion", tmp_path / "log", *options) as server:
        wait_until(lambda: server.metric('switchyard_model{framework="pytorch"') == 1, 60, "the canary is in")
        with load(server, rows) as answers:
            wait_until(lambda: len(answers) > 800, 60)
        check(answers, right)
        share = np.mean([version == "2" for _, version, *_ in answers])
        assert 0.15 < share < 0.35
        of_canary = server.metric('switchyard_requests_total{code="200",route="/v2/models/{model}/infer",version="2"}')
        assert of_canary == sum(version == "2" for _, version, *_ in answers)
        # The challenger becomes champion: nothing is loaded again, no request waits.
        model_registry.promote(client, NAME, "2", why="test")
        wait_until(lambda: server.infer(tensors(rows.head(1), bundle_features(rows)))[2]["model_version"] == "2", 30)
        assert server.metric("switchyard_model_loads_total") == 2


def test_a_failing_canary_is_stopped_without_a_failed_request(registered, bundles, rows, tmp_path):
    uri, client = registered
    client.set_registered_model_alias(NAME, "champion", "1")
    client.set_registered_model_alias(NAME, "challenger", "4")
    options = ["--tracking-uri", uri, "--poll", "0.2", "--canary", 50]
    with serving(f"{NAME}@champion", tmp_path / "log", *options) as server:
        with load(server, rows) as answers:
            wait_until(lambda: server.metric("switchyard_canary_stops_total") == 1, 60, "the canary is stopped")
            time.sleep(1)
        check(answers, expected(bundles, rows))
        assert {version for _, version, *_ in answers} == {"1"}
        assert server.metric("switchyard_canary_stops_total") == 1, "it is not brought in again"
        client.set_registered_model_alias(NAME, "challenger", "2")
        wait_until(lambda: server.metric('switchyard_model{framework="pytorch"') == 1, 60, "another canary is brought in")
    assert "canary version 4 is stopped: it failed 3 of 3 requests" in (tmp_path / "log").read_text()


def test_serving_continues_while_the_registry_is_unreachable(registered, rows, tmp_path, workspace):
    uri, _ = registered
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    env = environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    with open(tmp_path / "mlflow.log", "w") as out:
        tracking = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:

        def healthy():
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
            except OSError:
                return False

        wait_until(healthy, 90, "MLflow")
        options = ["--tracking-uri", f"http://127.0.0.1:{port}", "--poll", "0.3"]
        quick = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        with serving(f"{NAME}@champion", tmp_path / "log", *options, **quick) as server:
            os.killpg(tracking.pid, signal.SIGTERM)
            tracking.wait(30)
            wait_until(lambda: server.metric("switchyard_registry_reachable") == 0, 60, "the server notices")
            assert server.infer(tensors(rows.head(1), bundle_features(rows)))[0] == 200
            assert server.request("/v2/health/ready")[0] == 200
        assert "still serving" in (tmp_path / "log").read_text()
    finally:
        if tracking.poll() is None:
            os.killpg(tracking.pid, signal.SIGKILL)


def test_a_server_of_a_fixed_version_ignores_promotions(registered, rows, tmp_path):
    uri, client = registered
    with serving(f"{NAME}@2", tmp_path / "log", "--tracking-uri", uri, "--poll", "0.2") as server:
        client.set_registered_model_alias(NAME, "champion", "1")
        time.sleep(1)
        answer = server.infer(tensors(rows.head(1), bundle_features(rows)))[2]
        assert answer["model_version"] == "2"
        assert server.logged(method="POST")["version"] == "2"
        assert server.stop(signal.SIGINT) == 0
