"""`infra/environment.sh`: the interpreter and the lock that `make` installs, by Python and by the system's glibc."""

import os
import re
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.command import REPOSITORY

OLD, NEW = "requirements.lock", "requirements.glibc239.lock"


@pytest.fixture
def machine(tmp_path):
    """Returns a function that runs the script on a machine with some glibc and some Pythons."""

    def choose(glibc, pythons, *arguments):
        for name, text in {"getconf": f"glibc {glibc}", **{f"python{v}": v for v in pythons}}.items():
            (tmp_path / name).write_text(f"#!/bin/sh\necho {text}\n")
            (tmp_path / name).chmod(0o755)
        # The system's own Pythons are hidden by commands that run none, as shims of pyenv do.
        for name in {f"python3.{minor}" for minor in (11, 12, 13)} | {"python3"}:
            if not (tmp_path / name).exists():
                (tmp_path / name).write_text("#!/bin/sh\nexit 127\n")
                (tmp_path / name).chmod(0o755)
        command = ["bash", str(REPOSITORY / "infra" / "environment.sh"), *arguments]
        path = f"{tmp_path}:{os.environ['PATH']}"
        return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)

    return choose


@pytest.mark.parametrize(
    ("glibc", "pythons", "chosen"),
    [
        ("2.41", ["3.11", "3.12", "3.13"], f"python3.13 {NEW}"),
        ("2.39", ["3.12"], f"python3.12 {NEW}"),
        ("2.41", ["3.11"], f"python3.11 {OLD}"),
        ("2.36", ["3.11", "3.13"], f"python3.11 {OLD}"),
    ],
)
def test_python_and_lock_follow_the_glibc_and_the_reason_is_printed(machine, glibc, pythons, chosen):
    done = machine(glibc, pythons)
    assert (done.returncode, done.stdout.strip()) == (0, chosen), done.stderr
    assert re.match(r"==> python3\.\d+ \(Python 3\.\d+\) with requirements\S*\.lock: .+", done.stderr)


def test_without_a_python_that_fits_the_error_names_those_that_do(machine):
    done = machine("2.36", ["3.13"])
    assert done.returncode == 2
    assert "glibc 2.36 needs Python 3.11" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_a_python_named_by_the_user_is_used_or_refused(machine):
    assert machine("2.41", ["3.12", "3.13"], "python3.12").stdout.strip() == f"python3.12 {NEW}"
    refused = machine("2.36", ["3.11", "3.13"], "python3.13")
    assert refused.returncode == 2
    assert "PYTHON=python3.13 is 3.13" in refused.stderr


def test_both_locks_hold_what_setup_py_declares():
    text = (REPOSITORY / "setup.py").read_text()
    declared = {canonicalize_name(Requirement(d).name) for d in re.findall(r'"([a-z][^"/ ]*?[><]=?[^"/ ]*)"[,\]]', text)}
    assert len(declared) > 40
    for name in (OLD, NEW):
        lock = (REPOSITORY / name).read_text()
        locked = {canonicalize_name(n) for n in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", lock, re.MULTILINE)}
        assert declared - locked == set(), name
