"""`infra/environment.sh`: the interpreter and the lock that `make` installs, by Python and by the system's glibc."""

import os
import re
import shutil
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.command import REPOSITORY

OLD, NEW = "requirements.lock", "requirements.glibc239.lock"


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path):
    """Returns a function that runs the script on a machine with some glibc and some Pythons."""

    def choose(glibc, pythons, named="", system="Linux x86_64"):
        for name, text in {"getconf": f"glibc {glibc}", "uname": system, **{f"python{v}": v for v in pythons}}.items():
            program(tmp_path / name, f"echo {text}")
        # The system's own Pythons are hidden by commands that run none, as shims of pyenv do.
        for name in {f"python3.{minor}" for minor in (11, 12, 13)} | {"python3"}:
            if not (tmp_path / name).exists():
                program(tmp_path / name, "exit 127")
        command = ["bash", str(REPOSITORY / "infra" / "environment.sh"), str(named)]
        path = f"{tmp_path}:{os.environ['PATH']}"
        return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)

    return choose


@pytest.mark.parametrize(
    ("glibc", "pythons", "chosen"),
    [
        ("2.41", ["3.11", "3.12", "3.13"], f"{NEW} python3.13"),
        ("2.39", ["3.12"], f"{NEW} python3.12"),
        ("2.41", ["3.11"], f"{OLD} python3.11"),
        ("2.36", ["3.11", "3.13"], f"{OLD} python3.11"),
    ],
)
def test_python_and_lock_follow_the_glibc_and_the_reason_is_printed(machine, glibc, pythons, chosen):
    done = machine(glibc, pythons)
    assert (done.returncode, done.stdout.strip()) == (0, chosen), done.stderr
    assert re.match(r"==> python3\.\d+ \(Python 3\.\d+\) with requirements\S*\.lock: .+", done.stderr)


def test_macos_on_arm64_has_the_lock_without_overrides_and_other_macs_are_refused(machine):
    done = machine("", ["3.11", "3.12"], system="Darwin arm64")
    assert (done.returncode, done.stdout.strip()) == (0, f"{NEW} python3.12"), done.stderr
    assert "macOS" in done.stderr
    assert machine("", ["3.12"], system="Darwin x86_64").returncode == 2


def test_without_a_python_that_fits_the_error_names_those_that_do(machine):
    done = machine("2.36", ["3.13"])
    assert done.returncode == 2
    assert "glibc 2.36 needs Python 3.11" in done.stderr
    assert "none of python3.11 python3 on the PATH is one" in done.stderr
    assert "PYTHON= " not in done.stderr
    assert "make PYTHON=" in done.stderr


@pytest.mark.parametrize(("glibc", "named"), [("2.17", "glibc 2.17"), ("", "no glibc")])
def test_a_system_whose_glibc_no_wheel_fits_is_refused(machine, glibc, named):
    done = machine(glibc, ["3.11"])
    assert (done.returncode, done.stdout) == (2, "")
    assert f"this system has {named}; the packages need Linux with glibc 2.28 or later, or macOS on arm64" in done.stderr


def test_a_python_named_by_the_user_is_used_or_refused(machine, tmp_path):
    assert machine("2.41", ["3.12", "3.13"], "python3.12").stdout.strip() == f"{NEW} python3.12"
    elsewhere = program(tmp_path / "my pythons" / "python", "echo 3.12")
    assert machine("2.41", ["3.13"], elsewhere).stdout.strip() == f"{NEW} {elsewhere}"
    refused = machine("2.36", ["3.11", "3.13"], "python3.13")
    assert refused.returncode == 2
    assert "PYTHON=python3.13 is 3.13" in refused.stderr


@pytest.mark.parametrize(("named", "made_anew"), [("", False), ("3.11", False), ("3.12", True)])
def test_an_environment_is_kept_unless_a_python_of_another_version_is_named(tmp_path, named, made_anew):
    for path in ("Makefile", "setup.py", "infra/environment.sh", OLD, NEW):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy2(REPOSITORY / path, tmp_path / path)
    for path in (".tools/bin/uv", ".venv/bin/python"):
        program(tmp_path / path, "echo 3 11")
    (tmp_path / ".venv" / ".installed").touch()
    python = program(tmp_path / "other", f"echo {named.replace('.', ' ')}") if named else ""
    command = ["make", "--dry-run", "setup", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ("==> environment in .venv" in done.stdout) is made_anew


def test_both_locks_hold_what_setup_py_declares():
    text = (REPOSITORY / "setup.py").read_text()
    declared = {canonicalize_name(Requirement(d).name) for d in re.findall(r'"([a-z][^"/ ]*?[><]=?[^"/ ]*)"[,\]]', text)}
    assert len(declared) > 40
    for name in (OLD, NEW):
        lock = (REPOSITORY / name).read_text()
        locked = {canonicalize_name(n) for n in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", lock, re.MULTILINE)}
        assert declared - locked == set(), name
