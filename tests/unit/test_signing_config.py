"""The `signing` section: paths from the YAML's folder, and what is refused before a run."""

import io

import pytest
from rich.console import Console

from switchyard.components.errors import UserError
from switchyard.pipelines import preflight
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.kubeflow.local.runner import KfpDockerRunner
from switchyard.pipelines.workspace import Workspace


@pytest.fixture
def configured(tmp_path):
    def load(text):
        (tmp_path / "p.yaml").write_text(f"name: n\ndata: {{path: d.csv}}\nlabel: y\n{text}\n")
        return load_config(tmp_path / "p.yaml")

    return load


def test_paths_start_at_the_yamls_folder_and_the_short_form_is_the_key(configured, tmp_path):
    assert configured("").signing is None
    assert "signing" not in configured("").to_yaml()
    assert configured("signing: keys/k.pem").signing.key == str(tmp_path / "keys/k.pem")
    found = configured("signing: {key: k.pem, certificate: c.pem, chain: [a.pem, /b.pem]}").signing
    assert (found.certificate, found.chain) == (str(tmp_path / "c.pem"), (str(tmp_path / "a.pem"), "/b.pem"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "signing.key"),
        ("{key: ''}", "signing.*key: is empty"),
        ("{key: k.pem, chain: [c.pem]}", "chain: belongs to a certificate; set signing.certificate"),
        ("{key: k.pem, password: p}", "signing.*password"),
    ],
)
def test_a_section_that_cannot_sign_is_refused(text, message, configured):
    with pytest.raises(UserError, match=message):
        configured(f"signing: {text}")


def test_a_key_inside_the_workspace_is_refused(configured, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "check_signer", lambda config: "")
    config = configured("signing: w/k.pem")
    with pytest.raises(UserError, match=r"signing\.key: .*k\.pem lies in the workspace .*w; move it"):
        preflight.check_signing(config, tmp_path / "w")
    preflight.check_signing(config, tmp_path / "other")


def test_a_key_that_travels_with_the_users_code_is_refused_and_its_copy_removed(configured, tmp_path):
    (tmp_path / "k[1].pem").write_text("key")
    (tmp_path / "d.csv").write_text("x,y\n1,0\n")
    (tmp_path / "own.py").write_text("def preprocessing_fn(inputs):\n    return inputs\n")
    (tmp_path / "model.py").write_text("def build_model(spec):\n    pass\n")
    config = configured("signing: 'k[1].pem'\npreprocessing: own.py\ntrainer: {model: model.py}\nfiles: ['*.pem']")
    for _ in range(2):  # a second time too
        with pytest.raises(UserError, match=r"signing\.key: .*k\[1\]\.pem is one of the files of your code"):
            preflight.check_code(config, tmp_path / "store")
        assert list((tmp_path / "store").rglob("*.pem")) == []


def test_kfp_docker_refuses_to_sign(configured, tmp_path):
    runner = KfpDockerRunner(Workspace(tmp_path / "w"), Console(file=io.StringIO()))
    with pytest.raises(UserError, match=r"signing\.key: kfp-docker.*kfp-local"):
        runner.check(configured("signing: k.pem"))
