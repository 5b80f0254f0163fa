"""Sends what a run could not send to MLflow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from components import tracking
from components.errors import StageError, UserError, first_line
from components.tracking_journal import HEADER, PARENT_KEY, goes_on, pending, replay
from pipelines.runners.workspace import Workspace


def upload(workspace: Workspace, say: Callable[[str], None]) -> int:
    """Replays every journal of a workspace but those of runs that still go on; returns how many runs were sent.

    Raises:
        UserError: the server's address holds a password, and MLFLOW_TRACKING_URI is not set.
        StageError: MLflow is still away; what was not sent is still there.
    """
    sent = 0
    # Two uploads at once would send everything twice.
    with FileLock(workspace.upload_lock):
        for folder in pending(workspace.journal):
            header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
            if goes_on(header):
                say(f"{folder.name}: still runs (process {header['pid']}); send it when it has ended")
                continue
            uri = _uri(header)
            try:
                records = _send(folder, uri, header["runs"].values())
            except Exception as error:  # MLflow raises what its many stores raise
                raise StageError(f"MLflow cannot be reached: {first_line(error)}. Nothing is lost; try again later.") from error
            say(f"{folder.name}: {records} records sent")
            sent += 1
    return sent


def _uri(header: dict[str, Any]) -> str:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or str(header["uri"])
    if "://***@" in uri:
        raise UserError("the tracking server's address holds a password, which is not kept: set MLFLOW_TRACKING_URI.")
    return uri


def _send(folder: Path, uri: str, known: Iterable[str]) -> int:
    runs = list(known)

    def create(header: dict[str, Any], key: str) -> str:
        runs.append(_create(uri, header, key))
        return runs[-1]

    records = replay(folder, create, lambda run_id, operation: tracking.apply(tracking.client(uri), run_id, operation))
    # A run that was killed could not write down that it ended.
    for run_id in runs:
        tracking.end_if_running(uri, run_id)
    return records


def _create(uri: str, header: dict[str, Any], key: str) -> str:
    experiment = tracking.ensure_experiment(uri, header["experiment"], Path(header["artifacts"]))
    new = header["new"][key]
    tags = dict(new["tags"])
    if key != PARENT_KEY:
        tags["mlflow.parentRunId"] = header["runs"][PARENT_KEY]
    return tracking.create_run(uri, experiment, new["name"], tags, new["started"])
