"""What a child process does for a task of `kfp-local`: the command that KFP made, in a process that has TFX imported already."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


def run(command: Sequence[str]) -> None:
    """Runs a lightweight component as `sh -ec ... python3 -m kfp.dsl.executor_main` would.

    Args:
        command: KFP's: `sh`, `-ec`, the script, the component's source, then the arguments of KFP's executor.
    """
    from kfp.dsl import executor_main

    source, arguments = command[3], list(command[4:])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ephemeral_component.py"
        path.write_text(source, encoding="utf-8")
        sys.argv = ["executor_main", "--component_module_path", str(path), *arguments]
        executor_main.executor_main()
