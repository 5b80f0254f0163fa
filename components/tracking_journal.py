"""What could not be sent to MLflow: one folder per pipeline run, one file of operations per MLflow run, replayed in order.

Layout: `<journal>/pipeline.json` (tracking URI, experiment, the runs that exist already, the process while it runs) and
`<journal>/<key>.jsonl`, where the key is `pipeline` for the parent run, else the stage's name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

HEADER = "pipeline.json"
PARENT_KEY = "pipeline"
# A clock that is set while a process runs moves when it seems to have begun.
_CLOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Journal:
    """The operations of one MLflow run."""

    folder: Path
    key: str

    def append(self, operation: dict[str, Any]) -> None:
        """Adds one operation, on disk before it returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{self.key}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(operation) + "\n")
            file.flush()
            os.fsync(file.fileno())


def write_header(folder: Path, header: dict[str, Any]) -> None:
    """Writes `pipeline.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{HEADER}.new"
    temporary.write_text(json.dumps(header, indent=1), encoding="utf-8")
    os.replace(temporary, folder / HEADER)


def process_of_ones_own() -> dict[str, Any]:
    """Returns what a header says of its process: `pid`, and as numbers come again, `pid_since` (seconds since 1970)."""
    process = psutil.Process()
    return {"pid": process.pid, "pid_since": process.create_time()}


def goes_on(header: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a header still runs, and has not said that its run is over (`pid` is None then)."""
    pid, since = header.get("pid"), header.get("pid_since")
    if pid is None or since is None:
        return False
    try:
        return bool(abs(psutil.Process(pid).create_time() - since) < _CLOCK_SECONDS)
    except psutil.NoSuchProcess:
        return False


def pending(root: Path) -> list[Path]:
    """Returns the journals under `root` that hold something, oldest first."""
    if not root.is_dir():
        return []
    return sorted(f for f in root.iterdir() if (f / HEADER).exists() and any(f.glob("*.jsonl")))


def replay(folder: Path, create: Callable[[dict[str, Any], str], str], send: Callable[[str, dict[str, Any]], None]) -> int:
    """Sends what a journal holds and removes what is sent, so that a second try goes on where this one stopped.

    Args:
        folder: one journal.
        create: (header, key) -> id of a new run, for runs that do not exist yet; `pipeline` comes first.
        send: (run id, operation).

    Returns:
        Operations sent.
    """
    header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    files = sorted(folder.glob("*.jsonl"), key=lambda f: (f.stem != PARENT_KEY, f.stem))
    sent = 0
    if PARENT_KEY not in header["runs"]:
        header["runs"][PARENT_KEY] = create(header, PARENT_KEY)
        write_header(folder, header)
    for file in files:
        if file.stem not in header["runs"]:
            header["runs"][file.stem] = create(header, file.stem)
            write_header(folder, header)
        sent += _replay_file(file, header["runs"][file.stem], send)
    if not any(folder.glob("*.jsonl")):
        shutil.rmtree(folder)
    return sent


def _replay_file(file: Path, run_id: str, send: Callable[[str, dict[str, Any]], None]) -> int:
    # A line that a kill cut short is the last one and was never acknowledged: left out.
    lines = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    done = 0
    try:
        for line in lines:
            send(run_id, json.loads(line))
            done += 1
    finally:
        rest = "".join(lines[done:])
        if rest:
            temporary = file.with_suffix(".new")
            temporary.write_text(rest, encoding="utf-8")
            os.replace(temporary, file)
        else:
            file.unlink()
    return done
