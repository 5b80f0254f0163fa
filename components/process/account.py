"""A process without an account: a user id of a container's own that the system knows no name and no home for.

`docker run -u 12345` and OpenShift start processes so. Libraries ask for both while they are imported (IPython, PyTorch's
compiler, Hadoop), and end the process where there is none.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

from switchyard.components.process.own_folder import own_folder


def ensure_account() -> None:
    """Sets the variables of a name and a home where the system knows none, for this process and those that it starts."""
    number = os.getuid()
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ.update(dict.fromkeys(("LOGNAME", "USER"), str(number)))
        os.environ.setdefault("HADOOP_USER_NAME", str(number))
    # Docker gives a user without a home the folder `/`, where only root may write.
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
