"""The wheel and the source distribution of this repository, for tests that install them."""

import shutil
import subprocess
import sys

from tests.command import REPOSITORY, environment


def build_wheel(folder):
    """Builds the wheel from a copy of the sources, without a network; returns its file in `folder`."""
    return _wheel_of(".", folder, cwd=_copied(folder))


def build_sdist(folder):
    """Builds the source distribution from a copy of the sources, without a network; returns its file in `folder`."""
    script = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", script, folder], cwd=_copied(folder), check=True, capture_output=True)
    return next(folder.glob("*.tar.gz"))


def wheel_of_sdist(sdist, folder):
    """Builds the wheel from a source distribution, without a network; returns its file in `folder`, a new folder."""
    return _wheel_of(sdist, folder, cwd=sdist.parent)


def without_hashes(lock):
    """Returns the versions of a lock, one a line, for `--constraint`."""
    return "".join(f"{line.removesuffix(chr(92)).strip()}\n" for line in lock.splitlines() if not line.startswith((" ", "#")))


def _copied(folder):
    source = folder / "source"
    source.mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("components", "pipelines", "switchyard"):
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return source


def _wheel_of(what, folder, cwd):
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(what)]
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, env=environment(PIP_DISABLE_PIP_VERSION_CHECK="1"))
    return next(folder.glob("*.whl"))
