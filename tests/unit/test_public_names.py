"""`import switchyard`: the public names, and that the docs import no other."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import switchyard
from switchyard import stages
from tests.command import REPOSITORY

MODULE = ast.parse((REPOSITORY / "switchyard" / "__init__.py").read_text())


def defined(module):
    """Returns the names that a module defines or imports at its top level, without importing it."""
    tree = ast.parse((REPOSITORY / Path(*module.split(".")[1:]).with_suffix(".py")).read_text())
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_import_switchyard_imports_no_other_module_of_ours():
    code = "import switchyard, sys; print([m for m in sys.modules if m.startswith('switchyard.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


LAZY = {**switchyard._MODULES, **switchyard._PERSISTED}


@pytest.mark.parametrize("name", LAZY)
def test_every_public_name_is_defined_in_its_module(name):
    assert name in defined(LAZY[name])


@pytest.mark.parametrize("name", stages.CLASSES)
def test_every_class_that_a_compiled_pipeline_names_exists(name):
    module, _, attribute = stages.CLASSES[name].rpartition(".")
    assert attribute in defined(module)


def test_a_compiled_pipeline_names_no_private_class():
    assert stages.public_path("tfx.types.standard_artifacts.Examples") == "tfx.types.standard_artifacts.Examples"
    assert stages.public_path("switchyard.components.ingest.executor.Executor") == "switchyard.stages.IngestExecutor"
    with pytest.raises(LookupError, match=r"private path; give the class a name in switchyard\.stages"):
        stages.public_path("switchyard.components.ingest.executor.Other")


def test_the_code_in_every_bundle_imports_only_public_names():
    tree = ast.parse((REPOSITORY / "switchyard" / "mlflow_model.py").read_text())
    imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports == ["import mlflow", "from switchyard import PyfuncModel"]
    assert "PyfuncModel" in LAZY


def test_type_checkers_see_the_imported_names():
    [block] = [node for node in MODULE.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == LAZY
    assert sorted(switchyard._MODULES) == sorted(switchyard.__all__)


def test_a_name_that_is_not_public_is_refused_with_those_that_are():
    with pytest.raises(AttributeError, match=r"has no attribute 'PipelineConfig'; public names: .*load_config"):
        switchyard.PipelineConfig  # noqa: B018


@pytest.mark.parametrize(
    "file", ["README.md", *sorted(str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "docs").glob("*.md"))]
)
def test_the_docs_import_only_public_names(file):
    blocks = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / file).read_text(), re.DOTALL | re.MULTILINE)
    imports = [
        line
        for block in blocks
        for line in block.splitlines()
        if re.match(r"\s*(from|import) (switchyard|components|pipelines)\b", line)
    ]
    for line in imports:
        [statement] = ast.parse(line.strip()).body
        if isinstance(statement, ast.Import):
            assert [alias.name for alias in statement.names] == ["switchyard"], line
            continue
        assert statement.module == "switchyard", line
        assert {alias.name for alias in statement.names} <= set(switchyard.__all__), line


@pytest.mark.parametrize(
    "file", sorted(str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "pipelines/examples").rglob("*.py"))
)
def test_the_examples_import_only_public_names(file):
    modules = {
        name
        for node in ast.walk(ast.parse((REPOSITORY / file).read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    assert {name for name in modules if name.partition(".")[0] in ("switchyard", "components", "pipelines")} <= {"switchyard"}
