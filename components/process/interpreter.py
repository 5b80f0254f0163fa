"""The one place that starts Python interpreters. None of them looks for modules in the working directory.

`python -m` and `python -c` put the working directory first on `sys.path`: a `random.py`, or an empty folder named like a library,
that lies beside somebody's data would be taken for that library. `PYTHONSAFEPATH` keeps it out, also of what children start.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # help texts do not wait for these
    import subprocess
    from multiprocessing.context import ForkServerContext

_SAFE = "PYTHONSAFEPATH"
_PATH = "PYTHONPATH"
# In a clone and where it is installed; not by this file, which links lead to.
_ROOT = Path(str(sys.modules["switchyard"].__file__)).resolve().parents[1]


def start(module: str, arguments: Sequence[str], *, env: Mapping[str, str] | None = None, **pipes: Any) -> subprocess.Popen[Any]:
    """Starts `python -m module arguments`.

    Args:
        module: what runs.
        arguments: of the command line.
        env: the child's variables; default: this process's.
        pipes: for `subprocess.Popen`.
    """
    import subprocess

    return subprocess.Popen(_command(module, arguments), env=environment(os.environ if env is None else env), **pipes)


def replace_this_process(module: str, arguments: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Makes this process `python -m module arguments`."""
    os.execve(sys.executable, _command(module, arguments), environment(env))


def fork_server(preload: str) -> ForkServerContext:
    """Returns the context whose processes are forked from one that has imported a module; see `ensure_fork_server`."""
    import multiprocessing

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


def ensure_fork_server() -> None:
    """Starts the fork server of this process, unless it runs; returns at once."""
    from multiprocessing import forkserver

    # The library takes no environment for it: it has that of this process.
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
    """Sets this process's variables so that also the interpreters that libraries start are safe."""
    os.environ.update(environment(os.environ))


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """Returns a child's variables: `base`, and what keeps the working directory out and this very Switchyard in."""
    # An empty entry, of PYTHONPATH=$PYTHONPATH:/my/folder say, stands for the working directory.
    path = [entry for entry in base.get(_PATH, "").split(os.pathsep) if entry]
    if _from_a_clone() and str(_ROOT) not in path:
        # Last, so that nothing of the user's changes its place.
        path.append(str(_ROOT))
    return {**base, _SAFE: "1", **({_PATH: os.pathsep.join(path)} if path or _PATH in base else {})}


def _command(module: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _from_a_clone() -> bool:
    """Whether this is no installed copy, and might be found by the working directory alone."""
    installed = [*site.getsitepackages(), site.getusersitepackages()]
    return _ROOT not in [Path(folder).resolve() for folder in installed]
