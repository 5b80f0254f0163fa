"""Starts Python interpreters; no other module does. They do not import modules from the working directory.

`python -m` and `python -c` put the working directory first on `sys.path`: a `random.py`, or an empty folder named like a
library, beside the user's data would shadow that library. `PYTHONSAFEPATH` prevents this, in child processes too.
"""

from __future__ import annotations

import json
import os
import site
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # keeps `--help` fast
    import subprocess
    from multiprocessing.context import ForkServerContext

_SAFE = "PYTHONSAFEPATH"
_PATH = "PYTHONPATH"
# Root of the clone or installation. Taken from the package, because this file may be reached through a link.
_ROOT = Path(str(sys.modules["switchyard"].__file__)).resolve().parents[1]


def start(module: str, arguments: Sequence[str], *, env: Mapping[str, str] | None = None, **pipes: Any) -> subprocess.Popen[Any]:
    """Starts `python -m module arguments`.

    Args:
        module: module to run.
        arguments: command line arguments.
        env: environment variables of the child; default: those of this process.
        pipes: options of `subprocess.Popen`.
    """
    import subprocess

    return subprocess.Popen(_command(module, arguments), env=environment(os.environ if env is None else env), **pipes)


def path() -> list[str]:
    """Returns `sys.path` of an interpreter that `start` starts."""
    import subprocess

    command = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path))"]
    found: list[str] = json.loads(subprocess.check_output(command, env=environment(os.environ), stdin=subprocess.DEVNULL))
    return found


def replace_this_process(module: str, arguments: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Replaces this process by `python -m module arguments`."""
    os.execve(sys.executable, _command(module, arguments), environment(env))


def fork_server(preload: str) -> ForkServerContext:
    """Returns a context that forks processes from a server with a preloaded module, see `ensure_fork_server`."""
    import multiprocessing

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


def ensure_fork_server() -> None:
    """Starts this process's fork server unless it is running; returns immediately."""
    from multiprocessing import forkserver

    from switchyard.components.compat.fork_server import shorten_addresses

    shorten_addresses()
    # multiprocessing has no parameter for the server's environment: it inherits this process's.
    before = {name: os.environ.get(name) for name in (_SAFE, _PATH)}
    os.environ.update(environment(os.environ))
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def protect_children() -> None:
    """Sets this process's variables so that interpreters started by libraries are safe too."""
    os.environ.update(environment(os.environ))


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """Returns a child's variables: `base`, without the working directory on the path and with this Switchyard on it."""
    # An empty entry, for example from PYTHONPATH=$PYTHONPATH:/my/folder, means the working directory.
    path = [entry for entry in base.get(_PATH, "").split(os.pathsep) if entry]
    if _from_a_clone() and str(_ROOT) not in path:
        # Last, so that the user's entries keep their positions.
        path.append(str(_ROOT))
    return {**base, _SAFE: "1", **({_PATH: os.pathsep.join(path)} if path or _PATH in base else {})}


def _command(module: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _from_a_clone() -> bool:
    """Returns whether this is no installed copy, so that only the working directory may lead to it."""
    installed = [*site.getsitepackages(), site.getusersitepackages()]
    return _ROOT not in [Path(folder).resolve() for folder in installed]
