"""MLflow's server, one that executes what is submitted, and `switchyard submit` to it."""

import json

import pytest

from tests.command import BREAST_CANCER, mlflow_server
from tests.plugins.made_once import made_once


@pytest.fixture(scope="session")
@made_once
def mlflow(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture(scope="session")
@made_once
def host(tmp_path_factory, mlflow):
    from tests.cluster.submitting import kfp_server

    with kfp_server(tmp_path_factory.mktemp("kfp") / "server", mlflow) as url:
        yield url


@pytest.fixture(scope="session")
def submit(warm, host, mlflow, tmp_path_factory):
    """Returns a function: arguments of `submit` -> its JSON and what it said."""
    from tests.cluster.submitting import SHORT, tracked_by

    workspace = tmp_path_factory.mktemp("workspace")

    def run(*arguments, expect=0):
        to = ["--host", host, "--workspace", workspace, "--poll", "0.5", "--json", *tracked_by(mlflow)]
        done = warm("submit", BREAST_CANCER, *to, *SHORT, *arguments)
        assert done.code == expect, f"exit code {done.code}, expected {expect}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    return run
