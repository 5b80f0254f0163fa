"""A command that is refused leaves nothing behind: neither a workspace, nor logs, nor parts, nor a half-written output."""

import io

import pytest
from click.testing import CliRunner
from rich.console import Console

from switchyard.components.errors import UserError
from switchyard.pipelines.api.output_path import check_output, removed_when_refused
from switchyard.pipelines.cli import main
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.local.runner import LocalRunner
from switchyard.pipelines.workspace import Workspace
from tests.bad_input import command_in_this_process


def refused(root, tmp_path):
    data = tmp_path / "d.csv"
    data.write_text("a,y\n1,0\n2,1\n")
    config = load_config(None, document={"name": "x", "data": {"path": str(data)}, "label": "none"})
    runner = LocalRunner(Workspace(root), Console(file=io.StringIO()))
    with pytest.raises(UserError, match="none"):
        runner.run(config)


def test_a_refused_run_leaves_no_workspace(tmp_path):
    refused(tmp_path / "new" / "deep" / "w", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["d.csv"]


def test_a_refused_compilation_leaves_no_workspace(tmp_path):
    (tmp_path / "p.yaml").write_text("{name: x, data: {path: none.csv}, label: y}")
    with command_in_this_process() as command:
        done = command("compile", tmp_path / "p.yaml")
    assert done.exit_code == 2, done.output
    assert [p.name for p in tmp_path.iterdir()] == ["p.yaml"]


def test_a_refused_run_leaves_an_existing_workspace_unchanged(tmp_path):
    workspace = Workspace(tmp_path / "w")
    workspace.create()
    (workspace.logs / "earlier").mkdir()
    before = sorted(workspace.root.rglob("*"))
    refused(workspace.root, tmp_path)
    assert sorted(workspace.root.rglob("*")) == before


def test_a_refused_run_keeps_a_workspace_that_another_run_uses(tmp_path):
    workspace = Workspace(tmp_path / "w")
    made = workspace.create()
    assert made == [workspace.root]
    for name in ("mine", "another"):
        (workspace.logs / name).mkdir()
    workspace.forget(workspace.logs / "mine", made)
    assert [p.name for p in workspace.logs.iterdir()] == ["another"]


def test_an_existing_workspace_is_not_new(tmp_path):
    (tmp_path / "w").mkdir()
    assert not Workspace(tmp_path / "w").create()


def test_parts_of_a_refused_prediction_are_removed(tmp_path):
    parts = tmp_path / "out.parts"
    parts.mkdir()
    (parts / "00000-0000000.parquet").touch()
    with pytest.raises(UserError), removed_when_refused(parts):
        raise UserError("column 'a' is missing")
    assert not parts.exists()


def test_parts_of_an_interrupted_prediction_are_kept(tmp_path):
    parts = tmp_path / "out.parts"
    parts.mkdir()
    with pytest.raises(KeyboardInterrupt), removed_when_refused(parts):
        raise KeyboardInterrupt
    assert parts.exists()


@pytest.mark.parametrize(
    ("output", "is_folder", "why"),
    [
        ("none/out.csv", False, "does not exist; create it"),
        ("file/out.csv", False, "does not exist; create it"),
        ("folder", False, "is a folder"),
        ("file", True, "is a file"),
        ("file/deep/er", True, "does not exist; create it"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(output, is_folder, why, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"output: .*{why}"):
        check_output(tmp_path / output, is_folder=is_folder)


def test_a_folder_of_several_new_levels_can_be_written(tmp_path):
    check_output(tmp_path / "a" / "b", is_folder=True)


def test_deploy_without_kubectl_is_refused_before_it_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["deploy", "m@champion", "--target", "kserve", "-o", str(tmp_path / "out"), "--apply"]
    done = CliRunner().invoke(main, [*arguments, "--tracking-uri", f"sqlite:///{tmp_path / 'none' / 'm.db'}"])
    assert done.exit_code == 2
    assert "kubectl is not on the PATH" in done.output
    assert list(tmp_path.iterdir()) == []
