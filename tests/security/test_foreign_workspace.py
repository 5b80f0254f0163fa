"""A workspace of another user: its models and code are not run unasked; a run that cannot write to it ends before it begins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from switchyard.components.errors import UserError
from switchyard.components.tracking import run as tracking
from switchyard.pipelines.workspace import Workspace, default_workspace, find_workspace
from tests.command import REPOSITORY, environment

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away: run the tests as root")]
OTHER = 12345
# Root without its rights over the files of other users.
RIGHTS = "-dac_override,-dac_read_search,-fowner"
UNPRIVILEGED = ["setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}"]


def give_away(root, mode=None):
    for path in (root, *root.rglob("*")):
        os.chown(path, OTHER, OTHER, follow_symlinks=False)
        if mode and path.is_dir():
            path.chmod(mode)


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A folder like `/tmp`, in which another user has made a workspace."""
    root = tmp_path / ".switchyard"
    Workspace(root).create()
    give_away(root)
    tmp_path.chmod(0o1777)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_workspace_of_another_user_is_used_only_if_it_is_named(shared):
    (shared / "p.yaml").write_text("name: p")
    for find in (
        lambda: find_workspace(None, None),
        lambda: find_workspace(None, Path("p.yaml")),
        lambda: default_workspace(Path("p.yaml")),
        lambda: default_workspace(None),
    ):
        with pytest.raises(UserError, match=rf"another user \(id {OTHER}\).* name it: --workspace {shared}/\.switchyard"):
            find()
    assert find_workspace(shared / ".switchyard", None) == shared / ".switchyard"


def test_the_same_holds_for_a_workspace_below_the_current_folder(shared, monkeypatch):
    (shared / "below").mkdir()
    (shared / ".switchyard").rename(shared / "below" / ".switchyard")
    with pytest.raises(UserError, match="belongs to another user"):
        find_workspace(None, None)


def test_a_link_that_another_user_made_is_not_followed(shared, tmp_path_factory):
    own = tmp_path_factory.mktemp("own")
    (shared / ".switchyard").rename(shared / "theirs")
    (shared / ".switchyard").symlink_to(own)
    os.chown(shared / ".switchyard", OTHER, OTHER, follow_symlinks=False)
    with pytest.raises(UserError, match="belongs to another user"):
        find_workspace(None, None)


def test_the_owner_of_the_pipeline_that_was_named_is_trusted(shared):
    """As in a container whose user is root, on a mounted folder."""
    (shared / "p.yaml").write_text("name: p")
    os.chown(shared / "p.yaml", OTHER, OTHER)
    assert default_workspace(Path("p.yaml")) == shared / ".switchyard"


@pytest.mark.parametrize(("mode", "where"), [(0o755, ""), (0o777, " ({}/metadata.lock)")])
def test_what_a_run_cannot_write_to_is_named_before_it_begins(tmp_path, mode, where):
    root = tmp_path / "theirs"
    place = Workspace(root)
    place.create()
    place.metadata_lock.touch(0o644)
    give_away(root, mode)
    done = in_child(f"from switchyard.pipelines.workspace import *; Workspace(Path({str(root)!r})).create()")
    assert f"workspace {root}: cannot write to it{where.format(root)}: Permission denied" in done.stderr


def test_a_folder_with_the_sticky_bit_is_refused_if_it_holds_files_of_others_with_the_user_mocked(tmp_path, monkeypatch):
    place = Workspace(tmp_path / "theirs")
    place.create()
    place.state.chmod(0o1777)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    place.create()

    place.last_run.touch()

    with pytest.raises(UserError, match=r"cannot write to it \(.*/state/last_run\.json\): Operation not permitted"):
        place.create()


def test_a_database_of_another_user_is_read_in_a_folder_that_all_may_write_to(tmp_path):
    place = Workspace(tmp_path / "theirs")
    place.create()
    tracking.ensure_experiment(place.mlflow_uri, "e", place.mlflow_artifacts)
    give_away(place.root, 0o777)
    code = (
        "from switchyard.components.tracking import run as tracking\n"
        f"print(tracking.client({place.mlflow_uri!r}).get_experiment_by_name('e').name)"
    )
    done = in_child(code)
    assert (done.stdout, done.returncode) == ("e\n", 0), done.stderr


def in_child(code):
    return subprocess.run(
        [*UNPRIVILEGED, sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment(PYTHONPATH=REPOSITORY),
        capture_output=True,
        text=True,
        check=False,
    )
