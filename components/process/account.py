"""Supports processes without an account: a container's user id for which the system has no name and no home.

`docker run -u 12345` and OpenShift start such processes. Some libraries (IPython, PyTorch's compiler, Hadoop) look both up
during import and fail without them.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

from switchyard.components.process.own_folder import own_folder


def ensure_account() -> None:
    """Sets the variables for a name and a home when the system has none, for this process and its children."""
    number = os.getuid()
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ.update(dict.fromkeys(("LOGNAME", "USER"), str(number)))
        os.environ.setdefault("HADOOP_USER_NAME", str(number))
    # Docker sets the home of a user without one to `/`, which only root can write.
    if _home() in ("", "/") and not (number == 0 and _home() == "/"):
        os.environ["HOME"] = str(_made_home(number))


def _home() -> str:
    try:
        return str(Path.home())
    except (KeyError, RuntimeError):
        return ""


def _made_home(number: int) -> Path:
    name = f"switchyard-home-{number}"
    return own_folder(name) or Path(tempfile.mkdtemp(prefix=f"{name}-"))
