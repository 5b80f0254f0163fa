"""Uploads buffered records to MLflow. Records that MLflow rejects are moved aside and reported; the others are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from switchyard.components.errors import StageError, UserError, first_line
from switchyard.components.text.redaction import mask, take_credentials
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext
from switchyard.components.tracking.journal import HEADER, PARENT_KEY, REFUSED, Refused, is_alive, pending, replay, set_aside
from switchyard.components.tracking.journal_records import read_header
from switchyard.components.tracking.mlflow_errors import is_denial, is_refusal
from switchyard.components.tracking.operations import apply
from switchyard.pipelines.runners.tracking.runs import OF_STAGES
from switchyard.pipelines.workspace import Workspace

_MASKED = "***@"


def upload(workspace: Workspace, say: Callable[[str], None]) -> int:
    """Replays a workspace's journals, except those of active runs, and returns the number of runs sent.

    Raises:
        UserError: the database's address holds a password, and MLFLOW_TRACKING_URI is not set.
        StageError: MLflow is unreachable and unsent records are kept; or it rejected records, which are moved aside.
    """
    sent, refused, failed = 0, 0, 0
    unreachable: dict[str, UserError | StageError] = {}
    # Concurrent uploads would send every record twice.
    with FileLock(workspace.upload_lock):
        for folder in pending(workspace.journal):
            outcome = _send_one(folder, unreachable)
            sent += outcome.sent
            refused += outcome.refused
            failed += outcome.failed
            for line in outcome.lines:
                say(f"{folder.name}: {line}")
    if refused or failed:
        aside = (
            f" Refused records are kept in {workspace.journal / REFUSED}: fix the reason, move the folder back, and upload again."
        )
        again = " Records on which MLflow failed stay where they are: try again later, or check the server's log."
        raise StageError(
            f"MLflow did not accept {refused + failed} of the journals completely, see above; the others were sent."
            f"{aside if refused else ''}{again if failed else ''}{''.join(f' {error}' for error in unreachable.values())}"
        )
    for error in unreachable.values():
        raise error
    return sent


def send_stages(workspace: Workspace, say: Callable[[str], None]) -> None:
    """Sends the stages of a workspace's unchanged runs; says what was sent and why something is left, for the next call."""
    unreachable: dict[str, UserError | StageError] = {}
    with FileLock(workspace.upload_lock):
        for folder in pending(workspace.journal):
            if folder.name.endswith(OF_STAGES):
                for line in _send_one(folder, unreachable).lines:
                    say(f"{folder.name}: {line}")
    for error in unreachable.values():
        say(str(error))


def send_stages_of(root: str, descriptors: Sequence[int]) -> int:
    """Calls `send_stages` for the workspace in a folder, in this fork of a warm process; returns its exit code."""
    send_stages(Workspace(Path(root)), lambda line: print(line, flush=True))  # noqa: T201
    return 0


@dataclass(frozen=True)
class _Outcome:
    """Result of sending one journal, with the lines to print."""

    lines: list[str]
    sent: bool = False
    refused: bool = False
    failed: bool = False


def _send_one(folder: Path, unreachable: dict[str, UserError | StageError]) -> _Outcome:
    """Sends a journal; adds an unreachable server to `unreachable`; other journals may use other servers."""
    header = _header(folder)
    if isinstance(header, _Outcome):
        return header
    uri = str(header["uri"])
    try:
        uri = _uri(uri)
    except UserError as error:
        unreachable.setdefault(uri, error)
    if uri in unreachable:
        return _Outcome([])
    try:
        records, refused, registered = _send(folder, uri, header["runs"].values())
    except Exception as error:  # MLflow passes on the exceptions of its store backends
        return _unsent(folder, uri, error, unreachable)
    reasons = [f"refused, kept in {refused.target}: {reason}" for reason in refused.reasons] if refused else []
    return _Outcome([f"{records} records sent", *registered, *reasons], sent=True, refused=bool(refused))


def _header(folder: Path) -> dict[str, Any] | _Outcome:
    """Returns a journal's header, or the outcome when it cannot be sent."""
    if folder.is_symlink():
        return _Outcome(["is a link to another folder and is not sent; upload that folder's own workspace"], failed=True)
    try:
        header = read_header((folder / HEADER).read_text(encoding="utf-8"))
        running = is_alive(header)
    except OSError as error:
        return _Outcome([f"its {HEADER} cannot be read: {error.strerror}"], failed=True)
    except (UserError, ValueError, TypeError) as error:
        return _aside(folder, f"its {HEADER} is damaged: {first_line(error)}")
    return _Outcome([f"still runs (process {header['pid']}); send it when it has ended"]) if running else header


def _unsent(folder: Path, uri: str, error: Exception, unreachable: dict[str, UserError | StageError]) -> _Outcome:
    if is_refusal(error):
        return _aside(folder, first_line(error))
    try:
        _check_that_it_answers(uri, error)
    except StageError as found:
        unreachable[uri] = found
        return _Outcome([])
    return _Outcome([f"MLflow failed on it, and it stays where it is: {first_line(error)}"], failed=True)


def _aside(folder: Path, why: str) -> _Outcome:
    try:
        return _Outcome([f"refused, kept in {set_aside(folder, why)}: {why}"], refused=True)
    except OSError as error:
        return _Outcome([f"refused: {why}; it stays where it is, as it cannot be moved: {error.strerror}"], failed=True)


def _check_that_it_answers(uri: str, error: Exception) -> None:
    """Raises StageError when the server is unreachable or denies access."""
    try:
        tracking.client(uri).search_experiments(max_results=1)
    except Exception as failure:  # see _send_one
        error = failure
    else:
        if not is_denial(error):
            return
    why = first_line(error)
    if is_denial(error):
        raise StageError(
            f"MLflow at {mask(uri)} denies access: {why}. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN. Nothing is lost."
        ) from error
    raise StageError(f"MLflow is unreachable: {why}. Nothing is lost; try again later.") from error


def _uri(address: str) -> str:
    if given := RunContext.current().tracking_uri:
        return take_credentials(given)
    if _MASKED in address and not address.startswith("http"):
        raise UserError("the database's address contains a password, which is not stored; set MLFLOW_TRACKING_URI.")
    # For servers, only journals of older versions hold the mask.
    return address.replace(_MASKED, "", 1)


def _send(folder: Path, uri: str, known: Iterable[str]) -> tuple[int, Refused | None, list[str]]:
    """Returns the number of records sent, the rejected records, and one line per registered model."""
    runs, registered = list(known), []
    for run_id in runs:
        # Raises when the server does not have the runs that the records belong to.
        tracking.client(uri).get_run(run_id)

    def create(header: dict[str, Any], key: str) -> str:
        runs.append(_create(uri, header, key))
        return runs[-1]

    def send(run_id: str, operation: dict[str, Any]) -> None:
        found = apply(tracking.client(uri), run_id, operation)
        if found and found.version:
            why = f": {found.why}" if found.why else ""
            registered.append(f"{operation['model']['name']} version {found.version} is {found.status}{why}")

    records, refused = replay(folder, create, send, is_refusal)
    # A killed run leaves no record of its end.
    for run_id in runs:
        tracking.end_if_running(uri, run_id)
    return records, refused, registered


def _create(uri: str, header: dict[str, Any], key: str) -> str:
    experiment = tracking.ensure_experiment(uri, header["experiment"], Path(header["artifacts"]))
    new = header["new"][key]
    tags = dict(new["tags"])
    if key != PARENT_KEY:
        tags["mlflow.parentRunId"] = header["runs"][PARENT_KEY]
    return tracking.create_run(uri, experiment, new["name"], tags, new["started"])
