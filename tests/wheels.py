"""The wheel of this repository, for tests that install it."""

import shutil
import subprocess
import sys

from tests.command import REPOSITORY, environment


def build_wheel(folder):
    """Builds the wheel from a copy of the sources, without a network; returns its file in `folder`."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("components", "pipelines", "switchyard"):
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        str(folder),
        ".",
    ]
    subprocess.run(command, cwd=source, check=True, capture_output=True, env=environment(PIP_DISABLE_PIP_VERSION_CHECK="1"))
    return next(folder.glob("*.whl"))
