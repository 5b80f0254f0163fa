"""An extra that is not installed is an error that names it, before anything starts; `find_spec` is replaced."""

import io
from importlib.util import find_spec

import pytest
from rich.console import Console

from switchyard.components.bundle import code
from switchyard.components.errors import UserError
from switchyard.components.signing import signatures
from switchyard.components.signing.config import SigningConfig
from switchyard.components.training import trainers
from switchyard.pipelines.api.model_argument import verifying_key
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.preflight import check_inputs
from switchyard.pipelines.runners.kubeflow import extra
from switchyard.pipelines.runners.kubeflow.cluster.client import Connection, KubeflowClient
from switchyard.pipelines.runners.kubeflow.compiler.compile import compile_tfx_pipeline
from switchyard.pipelines.runners.kubeflow.local.runner import KfpLocalRunner
from switchyard.pipelines.runners.local.runner import LocalRunner
from switchyard.pipelines.workspace import Workspace


@pytest.mark.parametrize(
    "use",
    [lambda: KubeflowClient(Connection("https://kfp")), lambda: compile_tfx_pipeline(object(), image="i:1")],
    ids=["client", "compiler"],
)
def test_without_kfps_sdk_what_needs_it_names_the_extra(use, monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"kfp and kfp_server_api not installed.*pip install 'switchyard\[kubeflow\]'"):
        use()


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("name: n\ndata: {path: d.csv}\nlabel: y\ntrainer: {framework: lightgbm}\n")
    return load_config(file)


@pytest.mark.parametrize(
    ("runner", "module", "message"),
    [
        (LocalRunner, trainers.importlib.util, r"lightgbm is not installed; .*pip install 'switchyard\[lightgbm\]'"),
        (KfpLocalRunner, extra, r"kfp and kfp_server_api not installed.*pip install 'switchyard\[kubeflow\]'"),
    ],
)
def test_a_run_is_refused_before_its_data_are_read_and_leaves_nothing(runner, module, message, config, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        runner(Workspace(tmp_path / "w"), Console(file=io.StringIO())).check(config)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("runner", [LocalRunner, KfpLocalRunner])
def test_a_run_that_signs_and_a_model_that_is_verified_need_the_extra(runner, config, monkeypatch, tmp_path):
    without = lambda name, found=find_spec: None if name == "model_signing" else found(name)  # noqa: E731
    monkeypatch.setattr(signatures.importlib.util, "find_spec", without)
    message = r"model-signing is not installed; .*pip install 'switchyard\[signing\]'"
    signed = config.model_copy(update={"signing": SigningConfig(key=str(tmp_path / "key.pem"))})
    with pytest.raises(UserError, match=f"signing: {message}"):
        runner(Workspace(tmp_path / "w"), Console(file=io.StringIO())).check(signed)
    assert not (tmp_path / "w").exists()
    with pytest.raises(UserError, match=f"verify: {message}"):
        verifying_key(tmp_path / "key.pem")


def test_a_pipeline_is_compiled_without_the_framework_that_its_image_has(config, monkeypatch, tmp_path):
    (tmp_path / "d.csv").write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
    monkeypatch.setattr(trainers.importlib.util, "find_spec", lambda name: None)
    assert check_inputs(config, tmp_path).task == "binary"


@pytest.mark.parametrize(("framework", "package"), [("pytorch", "torch"), ("lightgbm", "lightgbm")])
def test_a_serving_image_refuses_a_model_of_another_framework_and_names_the_image_for_it(
    framework, package, monkeypatch, tmp_path
):
    monkeypatch.setenv("SWITCHYARD_SERVES", "tensorflow")
    monkeypatch.setattr(code.importlib.util, "find_spec", lambda name, found=find_spec: None if name == package else found(name))
    message = f"of {framework}, and this image, switchyard-serving for tensorflow, .*make image-serving FRAMEWORK={framework}"
    with pytest.raises(UserError, match=message):
        code.load_predictor_class(tmp_path, framework)
