"""An extra that is not installed is an error that names it, before anything starts; `find_spec` is replaced."""

import pytest

from switchyard.components.errors import UserError
from switchyard.components.training import trainers
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.preflight import check_inputs
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


def test_a_run_with_lightgbm_is_refused_before_its_data_are_read(monkeypatch, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("name: n\ndata: {path: missing.csv}\nlabel: y\ntrainer: {framework: lightgbm}\n")
    config = load_config(file)
    monkeypatch.setattr(trainers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"lightgbm is not installed; .*pip install 'switchyard\[lightgbm\]'"):
        check_inputs(config, tmp_path)
