"""A user id without a name and a home folder in the system."""

import getpass
import os
import pwd
import stat
from pathlib import Path

import pytest

from switchyard.components.process.account import ensure_account
from switchyard.components.tracking.model_registry import user_name


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    """What `docker run -u 12345` gives, as far as this process can show it."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "HADOOP_USER_NAME"):
        # Set first, so that what is made below goes with the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    for name in ("LOGNAME", "USER", "HOME", "HADOOP_USER_NAME"):
        os.environ.pop(name, None)


def test_a_user_without_an_account_gets_a_name_and_a_home_with_the_account_mocked(no_account):
    ensure_account()
    assert getpass.getuser() == user_name() == "12345"
    assert Path.home().is_dir()
    assert Path("~/x").expanduser().parent == Path.home()


def test_the_home_is_private_and_the_same_in_the_next_process(no_account, monkeypatch, tmp_path):
    ensure_account()
    home = Path.home()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    monkeypatch.setattr(os, "getuid", lambda: home.stat().st_uid)
    (tmp_path / f"switchyard-home-{home.stat().st_uid}").mkdir(mode=0o700)
    os.environ.pop("HOME")
    ensure_account()
    assert Path.home().parent == tmp_path
    assert Path.home().name == f"switchyard-home-{home.stat().st_uid}"


def test_a_home_created_by_another_user_is_not_used(no_account, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "switchyard-home-12345").symlink_to(tmp_path / "theirs")
    ensure_account()
    assert Path.home().resolve() != tmp_path / "theirs"


def test_dockers_home_at_the_root_is_not_used(no_account, monkeypatch):
    monkeypatch.setenv("HOME", "/")
    ensure_account()
    assert str(Path.home()) != "/"


def test_a_user_with_an_account_keeps_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "me")
    monkeypatch.setenv("LOGNAME", "me")
    ensure_account()
    assert (getpass.getuser(), Path.home()) == ("me", tmp_path)
