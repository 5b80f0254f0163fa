"""TFX's `module_file`: what it imports travels with it, what lies beside it does not."""

import zipfile
from contextlib import contextmanager

import pytest

from switchyard.components.errors import UserError
from switchyard.pipelines.runners.kubeflow.compiler.user_modules import packaged_user_modules
from tests.kubeflow import taxi


@pytest.fixture
def module(tmp_path, monkeypatch):
    """TFX's taxi module in a folder with other files."""
    folder = tmp_path / "code"
    folder.mkdir()
    text = taxi.MODULE.read_text()
    (folder / "taxi_module.py").write_text(f"import helper\n{text}" if '"""' not in text[:3] else text + "\nimport helper\n")
    (folder / "helper.py").write_text("import deeper\n")
    (folder / "deeper.py").write_text("N = 1\n")
    (folder / "other_pipeline.py").write_text("this is no Python\n")
    monkeypatch.setattr(taxi, "MODULE", folder / "taxi_module.py")
    return folder


@contextmanager
def only_the_trainer(pipeline):
    """One wheel is enough: each takes seconds."""
    components = pipeline.components
    pipeline.components = [c for c in components if c.id == "Trainer"]
    yield pipeline
    pipeline.components = components


def modules_in(wheels):
    return [sorted(n for n in zipfile.ZipFile(w).namelist() if n.endswith(".py")) for w in wheels]


def test_a_module_travels_with_what_it_imports_and_nothing_else_of_its_folder(module, tmp_path):
    with only_the_trainer(taxi.taxi(str(tmp_path))) as pipeline, packaged_user_modules(pipeline) as wheels:
        assert modules_in(wheels) == [["deeper.py", "helper.py", "taxi_module.py"]]


def test_packaging_a_pipeline_again_gives_the_same_package(module, tmp_path):
    with only_the_trainer(taxi.taxi(str(tmp_path))) as pipeline:
        names = []
        for _ in range(2):
            with packaged_user_modules(pipeline) as wheels:
                names.append([w.name for w in wheels])
    assert names[0] == names[1] != []


def test_a_missing_module_is_named_with_its_node(tmp_path, monkeypatch):
    monkeypatch.setattr(taxi, "MODULE", tmp_path / "nothing.py")
    with (
        pytest.raises(UserError, match=r"Trainer\.module_file: .*nothing\.py: no such file"),
        only_the_trainer(taxi.taxi(str(tmp_path))) as pipeline,
        packaged_user_modules(pipeline),
    ):
        pass
