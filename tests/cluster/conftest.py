"""The stand-in for KFP whose tasks do nothing, or what a test says: a run of it takes a second."""

import pytest

from switchyard.pipelines.runners.kubeflow.cluster.client import Connection, KubeflowClient
from tests.cluster.kfp_server import stand_in


@pytest.fixture
def kfp(tmp_path):
    with stand_in(tmp_path / "kfp") as (server, host):
        yield server, KubeflowClient(Connection(host))
