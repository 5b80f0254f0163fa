"""Buffers operations that could not be sent to MLflow: one folder per pipeline run, one file per MLflow run, replayed in order.

Layout: `<journal>/pipeline.json` holds the tracking URI, the experiment, the runs that already exist, and the process while it
runs. `<journal>/<key>.jsonl` holds the operations; the key is `pipeline` for the parent run, else the stage's name.
`<journal>/files/` holds files to upload, since their sources may be deleted before. `refused/`, beside the journals, holds
operations that MLflow refused, in journals of their own: `why.txt` has the reasons; a journal that is moved back is retried.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from switchyard.components.errors import first_line
from switchyard.components.tracking.journal_files import local_files, with_its_files

HEADER = "pipeline.json"
PARENT_KEY = "pipeline"
REFUSED, WHY = "refused", "why.txt"
# Setting the clock while a process runs shifts its apparent start time.
_CLOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Journal:
    """The operations of one MLflow run."""

    folder: Path
    key: str

    def append(self, operation: dict[str, Any]) -> None:
        """Appends one operation and syncs it to disk before returning; an operation that does not fit leaves no part of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(with_its_files(operation, self.folder)) + "\n").encode()
        with open(self.folder / f"{self.key}.jsonl", "ab", buffering=0) as file:
            before, written = file.tell(), 0
            try:
                while written < len(line):
                    written += file.write(line[written:])
                os.fsync(file.fileno())
            except OSError:
                # The next operation would continue the line, and be damaged too. Other processes may have appended meanwhile.
                if os.fstat(file.fileno()).st_size == before + written:
                    file.truncate(before)
                raise

    def write(self, operations: Sequence[dict[str, Any]]) -> None:
        """Writes all operations of a run, which name no files. Not synced to disk: they are sent in a moment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{json.dumps(operation)}\n" for operation in operations)
        (self.folder / f"{self.key}.jsonl").write_text(lines, encoding="utf-8")

    def note(self, why: str) -> None:
        """Records once why MLflow refused something, for the message at the end of the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / WHY
        notes = path.read_text(encoding="utf-8") if path.exists() else ""
        if f"{why}\n" not in notes:
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{why}\n")


def noted(folder: Path) -> str | None:
    """Returns the first reason recorded in a journal, or None."""
    path = folder / WHY
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return lines[0] if lines else None


def write_header(folder: Path, header: dict[str, Any]) -> None:
    """Writes `pipeline.json` atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{HEADER}.new"
    temporary.write_text(json.dumps(header, indent=1), encoding="utf-8")
    os.replace(temporary, folder / HEADER)


def process_identity() -> dict[str, Any]:
    """Returns the header's fields on its process: `pid` and, as pids are reused, `pid_since` (seconds since 1970)."""
    process = psutil.Process()
    return {"pid": process.pid, "pid_since": process.create_time()}


def is_alive(header: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a header is alive and its run is under way (`pid` is None then)."""
    pid, since = header.get("pid"), header.get("pid_since")
    if pid is None or since is None:
        return False
    try:
        return bool(abs(psutil.Process(pid).create_time() - since) < _CLOCK_SECONDS)
    except psutil.NoSuchProcess:
        return False


def pending(root: Path) -> list[Path]:
    """Returns the journals under `root` with pending operations, oldest first."""
    if not root.is_dir():
        return []
    return sorted(f for f in root.iterdir() if (f / HEADER).exists() and any(f.glob("*.jsonl")))


def set_aside(folder: Path, why: str) -> Path:
    """Moves a whole journal to `refused/`; returns its new path."""
    target = _free(folder)
    target.parent.mkdir(exist_ok=True)
    os.replace(folder, target)
    (target / WHY).write_text(f"{why}\n", encoding="utf-8")
    return target


def _free(folder: Path) -> Path:
    names = itertools.chain([folder.name], (f"{folder.name}-{n}" for n in itertools.count(2)))
    return next(t for name in names if not (t := folder.parent / REFUSED / name).exists())


def replay(
    folder: Path,
    create: Callable[[dict[str, Any], str], str],
    send: Callable[[str, dict[str, Any]], None],
    is_refused: Callable[[Exception], bool] = lambda error: False,
) -> tuple[int, Refused | None]:
    """Sends a journal's operations and removes those sent, so that a retry resumes where this one stopped.

    Args:
        folder: one journal.
        create: (header, key) -> id of a new run, for runs that do not exist yet; called for `pipeline` first.
        send: (run id, operation) -> None.
        is_refused: whether an error of `send` is the operation's fault; the operation is then set aside and the next one sent.

    Returns:
        The number of operations sent, and those set aside, if any.
    """
    # Imported here because every command imports this module, and its help must not import Pydantic.
    from switchyard.components.tracking.journal_records import read_header

    header = read_header((folder / HEADER).read_text(encoding="utf-8"))
    refused = Refused(folder, _free(folder), header, is_refused, [])
    files = sorted(folder.glob("*.jsonl"), key=lambda f: (f.stem != PARENT_KEY, f.stem))
    sent = 0
    if PARENT_KEY not in header["runs"]:
        header["runs"][PARENT_KEY] = create(header, PARENT_KEY)
        write_header(folder, header)
    for file in files:
        if file.stem not in header["runs"]:
            header["runs"][file.stem] = create(header, file.stem)
            write_header(folder, header)
        sent += _replay_file(file, header["runs"][file.stem], send, refused)
    if not any(folder.glob("*.jsonl")):
        shutil.rmtree(folder)
    return sent, refused if refused.reasons else None


@dataclass(frozen=True)
class Refused:
    """The operations of a journal that MLflow refused.

    Attributes:
        folder: the journal.
        target: the journal to which they are moved, created with the first one.
        header: header of both journals.
        is_refused: see `replay`.
        reasons: one reason per refused operation.
    """

    folder: Path
    target: Path
    header: Mapping[str, Any]
    is_refused: Callable[[Exception], bool]
    reasons: list[str]

    def add(self, key: str, line: str, error: Exception) -> None:
        """Moves an operation and its files to the target journal."""
        self.reasons.append(f"{key}: {_title(line)}: {first_line(error)}")
        write_header(self.target, dict(self.header))
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):  # a damaged line names no files
            for path in local_files(json.loads(line)):
                if not Path(path).is_absolute() and (self.folder / path).exists():
                    (self.target / path).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(self.folder / path, self.target / path)
        for name, text in ((f"{key}.jsonl", line), (WHY, f"{self.reasons[-1]}\n")):
            with open(self.target / name, "a", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                file.write(text)


def _title(line: str) -> str:
    try:
        operation = json.loads(line)
        named = operation.get("name") or operation.get("path") or operation.get("model", {}).get("name") or ""
        return f"{operation['op']} {named}".strip()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "a damaged line"


def _replay_file(file: Path, run_id: str, send: Callable[[str, dict[str, Any]], None], refused: Refused) -> int:
    from switchyard.components.tracking.journal_records import read_operation

    sent = done = 0
    # Reads line by line, since a journal has any size. Bytes that are no text are preserved.
    with open(file, "rb") as lines:
        try:
            while True:
                read = lines.readline()
                line = read.decode(errors="surrogateescape")
                # Skips a line truncated by a kill: it is the last one and was never acknowledged.
                if not line.endswith("\n"):
                    done = -1
                    break
                try:
                    send(run_id, read_operation(line, file.parent))
                    sent += 1
                except Exception as error:  # MLflow's stores raise many types of errors
                    if not refused.is_refused(error):
                        raise
                    refused.add(file.stem, line, error)
                done += len(read)
        finally:
            if done == -1:
                file.unlink()
            elif done:
                _keep_from(file, done)
    return sent


def _keep_from(file: Path, place: int) -> None:
    """Removes everything before a byte offset of a file."""
    temporary = file.with_suffix(".new")
    with open(file, "rb") as old, open(temporary, "wb") as new:
        old.seek(place)
        shutil.copyfileobj(old, new)
    os.replace(temporary, file)
