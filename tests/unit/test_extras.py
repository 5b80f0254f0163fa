"""An extra that is not installed is an error that names it, before anything starts; `find_spec` is replaced."""

import pytest

from switchyard.components.errors import UserError
from switchyard.pipelines.runners.kubeflow import extra
from switchyard.pipelines.runners.kubeflow.cluster.client import Connection, KubeflowClient
from switchyard.pipelines.runners.kubeflow.compiler.compile import compile_tfx_pipeline


@pytest.mark.parametrize(
    "use",
    [lambda: KubeflowClient(Connection("https://kfp")), lambda: compile_tfx_pipeline(object(), image="i:1")],
    ids=["client", "compiler"],
)
def test_without_kfps_sdk_what_needs_it_names_the_extra(use, monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"kfp and kfp_server_api not installed.*pip install 'switchyard\[kubeflow\]'"):
        use()
