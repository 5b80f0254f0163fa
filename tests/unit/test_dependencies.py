"""What the user's code needs: the config's `dependencies`, what it imports, and both as the requirements of a bundle."""

import re
from importlib import metadata

import pytest

from switchyard.components.errors import UserError
from switchyard.components.user_code.constraints import constraints
from switchyard.components.user_code.dependencies import check_installed, requirements
from switchyard.components.user_code.loading import snapshot
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import evaluation_settings, trainer_settings
from switchyard.pipelines.preflight import check_code
from tests.command import REPOSITORY

CODE = {
    "own.py": "import os.path\nimport helper\nfrom nets import layers\nimport yaml",
    "helper.py": "try:\n    import not_installed_anywhere\nexcept ImportError:\n    pass\n",
    "nets/__init__.py": "from . import layers\nfrom .layers import f",
    "nets/layers.py": "def f():\n    from google.protobuf import text_format\n    import switchyard\n    import torch.nn",
}


@pytest.fixture
def folder(tmp_path):
    for name, content in CODE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_imported_distributions_are_listed_with_their_versions(folder):
    expected = {name: metadata.version(name) for name in ("protobuf", "PyYAML", "torch")}
    assert requirements([folder, folder / "missing"]) == expected


def test_code_that_imports_nothing_requires_nothing(tmp_path):
    (tmp_path / "own.py").write_text("import json\n")
    assert requirements([tmp_path]) == {}


def test_listed_packages_are_required_once(folder):
    expected = {name: metadata.version(name) for name in ("click", "protobuf", "PyYAML", "torch")}
    assert requirements([folder], [f"click=={expected['click']}", f"pyyaml=={expected['PyYAML']}"]) == {
        **{name: version for name, version in expected.items() if name != "PyYAML"},
        "pyyaml": expected["PyYAML"],
    }


def test_a_local_label_of_an_installed_version_is_not_required_as_registries_lack_it(folder, monkeypatch):
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.10.0+cpu" if name == "torch" else installed(name))
    assert requirements([folder])["torch"] == "2.10.0"
    assert requirements([folder], ["torch==2.10.0"])["torch"] == "2.10.0"
    assert requirements([folder], ["torch==2.10.0+cpu"])["torch"] == "2.10.0+cpu"
    assert constraints()["torch"] == "2.10.0"
    check_installed(["torch==2.10.0"])


def config(tmp_path, *listed, **sections):
    (tmp_path / "rides.csv").write_text("miles,tip\n1,2\n")
    document = {"name": "trips", "data": {"path": "rides.csv"}, "label": "tip", "dependencies": list(listed), **sections}
    return load_config(None, document=document, base=tmp_path)


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        (["click"], "has no exact version; write click==VERSION, or run: switchyard dependencies add click"),
        (["click>=8"], "has no exact version"),
        (["click==8.*"], "has no exact version"),
        (["click[x]==8.0"], "has the extra 'x'; list the packages that it brings"),
        (["click @ file:///tmp/click"], "has a URL"),
        (["click click"], "is not a package"),
        (["click==8.0", "Click==8.1"], "lists 'Click' twice"),
    ],
)
def test_an_entry_without_one_version_is_refused(tmp_path, listed, problem):
    with pytest.raises(UserError, match=r"dependencies: .*" + re.escape(problem)):
        config(tmp_path, *listed)


def test_a_missing_package_is_refused_before_the_run_with_the_command_that_installs_it(tmp_path):
    with pytest.raises(
        UserError,
        match=r"^dependencies: nowhere==1.0 is not installed, pytest==0.1 is listed, and .* is installed; "
        r"run: switchyard dependencies add nowhere==1.0 pytest==0.1",
    ):
        check_code(config(tmp_path, "nowhere==1.0", "pytest==0.1", f"pyyaml=={metadata.version('pyyaml')}"), tmp_path / "store")
    with pytest.raises(
        UserError, match=rf"torch==0.1 is listed, and Switchyard runs with {re.escape(metadata.version('torch'))}"
    ):
        check_installed(["torch==0.1"])


def test_a_version_is_part_of_what_runs_the_users_code_and_of_nothing_else(tmp_path):
    for name in ("model.py", "losses.py", "metrics.py"):
        (tmp_path / name).write_text("def build_model(spec): ...\ndef loss(labels, outputs): ...\n")
    trainer = {"framework": ["pytorch", "tensorflow"], "loss": {"pytorch": "losses.py:loss", "tensorflow": "mae"}}
    found = []
    for version in ("1.0", "1.1"):
        given = config(tmp_path, f"nowhere=={version}", trainer=trainer, evaluation={"metrics": "metrics.py"}, task="regression")
        torch, keras = (trainer_settings(given, tmp_path / "store", f) for f in ("pytorch", "tensorflow"))
        found.append((keras, evaluation_settings(given, tmp_path / "store").metrics, torch.loss_code))
        assert (torch.dependencies, keras.dependencies) == ((f"nowhere=={version}",), ())
    assert [a == b for a, b in zip(*found, strict=True)] == [True, False, False]


def test_a_task_checks_the_packages_before_it_imports_the_code(tmp_path):
    (tmp_path / "own.py").write_text("raise ValueError\ndef f(): ...\n")
    code = snapshot(str(tmp_path / "own.py"), "f", tmp_path / "store", key="x", dependencies=["nowhere==1.0"])
    with pytest.raises(UserError, match=r'nowhere==1\.0 is not installed.* make image DEPENDENCIES="nowhere==1\.0"'):
        code.load()


@pytest.mark.parametrize(("version", "lock"), [("3.11", "requirements.lock"), ("3.12", "requirements.glibc239.lock")])
def test_the_shipped_constraints_are_those_of_the_lock(version, lock):
    shipped = (REPOSITORY / "components" / "user_code" / f"constraints-{version}.txt").read_text()
    pins = re.findall(r"^([\w.-]+==[^\s;]+)", shipped, re.MULTILINE)
    locked = set(re.findall(r"^([\w.-]+==[^\s;\\]+)", (REPOSITORY / lock).read_text(), re.MULTILINE))
    assert [pin for pin in pins if pin not in locked] == []
    assert {"numpy", "torch", "tensorflow", "protobuf", "kfp", "lightgbm"} <= {pin.partition("==")[0] for pin in pins}
