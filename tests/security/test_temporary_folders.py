"""In a temporary folder that all may write to, nothing of another user is taken for one's own, and nothing is left for good."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from switchyard.components.errors import UserError
from switchyard.components.process.own_folder import own_folder
from switchyard.components.process.temporary import PREFIX, contain_temporary_files, remove_abandoned, temporary_folder
from switchyard.pipelines.runners.kubeflow.carried_files import unpack
from switchyard.pipelines.workspace import Workspace
from tests.command import REPOSITORY, environment

pytestmark = pytest.mark.core
CODE = {"code/my_model.py": "raise SystemExit('unpacked')"}


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def foreign(kind, folder, tmp_path, monkeypatch):
    """What another user may have made before: a link to a folder of this user's, one that all may write to, one of theirs."""
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777 if kind == "open" else 0o700)
    if kind == "theirs":
        mine, number = os.getuid(), os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: number)
        folder.rename(folder.with_name(folder.name.replace(str(mine), str(number))))


@pytest.mark.parametrize("kind", ["link", "open", "theirs", "file"])
def test_carried_code_is_neither_unpacked_into_nor_read_from_a_folder_that_others_can_write(
    kind, temporary, tmp_path, monkeypatch
):
    place = unpack(CODE)
    content = {p.relative_to(place.parent): p.read_text() for p in place.rglob("*") if p.is_file()}
    place.parent.rename(tmp_path / "earlier")
    folder = temporary / place.parent.name
    foreign(kind, folder, tmp_path, monkeypatch)
    for there in temporary.iterdir():
        for name in content if there.is_dir() else ():
            (there / name).parent.mkdir(parents=True)
            (there / name).write_text("raise SystemExit('of somebody else')")

    with pytest.raises(UserError, match="belongs to another user or is writable by others"):
        unpack(CODE)


def test_code_unpacked_before_is_used_again(temporary):
    place = unpack(CODE)

    assert unpack(CODE) == place
    assert (place / "code/my_model.py").read_text() == CODE["code/my_model.py"]


def test_a_private_folder_is_closed_to_others_under_any_umask(temporary):
    before = os.umask(0)
    try:
        folder = own_folder("x")
    finally:
        os.umask(before)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert own_folder("x") == folder


def test_what_a_killed_process_left_is_removed_by_the_next_and_nothing_else(temporary, tmp_path):
    code = (
        "import tempfile, sys; tempfile.tempdir = sys.argv[1]; from switchyard.components.process.temporary import *\n"
        "folder = TemporaryFolder(); print(folder.path, flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(temporary)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment(PYTHONPATH=REPOSITORY)}
    killed, alive = subprocess.Popen(command, **pipes), subprocess.Popen(command, **pipes)
    left, used = (Path(p.stdout.readline().strip()) for p in (killed, alive))
    (left / "0").mkdir()
    killed.kill()
    killed.communicate()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link, new = temporary / f"{PREFIX}link", temporary / f"{PREFIX}new"
    link.symlink_to(elsewhere)
    new.mkdir()
    others = [temporary / "switchyard-home-0", temporary / "anything"]
    for folder in (left, used, elsewhere, *others):
        folder.mkdir(exist_ok=True)
        os.utime(folder, (0, 0))

    remove_abandoned()

    assert not left.exists()
    assert all(p.exists() for p in (used, elsewhere, link, new, *others))
    alive.communicate("\n")


@pytest.mark.parametrize("given", [None, "here"])
def test_temporary_files_of_a_command_and_its_children_are_removed_at_its_end(given, temporary, monkeypatch):
    monkeypatch.setenv("TMPDIR", given) if given else monkeypatch.delenv("TMPDIR", raising=False)
    with contain_temporary_files():
        made = [tempfile.mkdtemp(), subprocess.check_output(["mktemp"], text=True).strip()]
        assert all(Path(path).parent.parent == temporary and Path(path).exists() for path in made)
    assert (list(temporary.iterdir()), os.environ.get("TMPDIR"), tempfile.gettempdir()) == ([], given, str(temporary))


def test_a_folder_of_another_user_is_not_removed_with_the_user_mocked(temporary, monkeypatch):
    theirs = temporary / f"{PREFIX}theirs"
    theirs.mkdir()
    os.utime(theirs, (0, 0))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    remove_abandoned()

    assert theirs.exists()


def test_a_temporary_folder_is_removed_at_its_end(temporary):
    with temporary_folder() as folder:
        (folder / "x").touch()
        assert list(temporary.iterdir()) == [folder]
    assert list(temporary.iterdir()) == []


def test_without_a_folder_for_temporary_files_a_run_is_refused_before_it_begins(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/proc/self", "/sys"])

    with pytest.raises(UserError, match=r"TMPDIR: no folder for temporary files can be written to: .* set TMPDIR"):
        Workspace(tmp_path / "w").create()
    assert not (tmp_path / "w").exists()
