"""Servers that the tests of `submit` share."""

import json

import pytest

from tests.command import BREAST_CANCER, mlflow_server
from tests.kubeflow.submitting import SHORT, kfp_server


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture(scope="session")
def host(tmp_path_factory, mlflow):
    with kfp_server(tmp_path_factory.mktemp("kfp") / "server", mlflow) as url:
        yield url


@pytest.fixture(scope="session")
def submit(warm, host, mlflow, tmp_path_factory):
    workspace = tmp_path_factory.mktemp("workspace")

    def run(*arguments, expect=0):
        done = warm(
            "submit",
            BREAST_CANCER,
            "--host",
            host,
            "--workspace",
            workspace,
            "--poll",
            "0.5",
            "--json",
            "--set",
            f"tracking.uri={mlflow}",
            *SHORT,
            *arguments,
        )
        assert done.code == expect, f"exit code {done.code}, expected {expect}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    return run
