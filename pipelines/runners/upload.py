"""Sends what a run could not send to MLflow."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from components import tracking
from components.errors import StageError, UserError, first_line
from components.tracking_journal import PARENT_KEY, pending, replay
from pipelines.runners.workspace import Workspace


def upload(workspace: Workspace, say: Callable[[str], None]) -> int:
    """Replays every journal of a workspace; returns how many runs were sent.

    Raises:
        StageError: MLflow is still away; what was not sent is still there.
    """
    folders = pending(workspace.journal)
    for folder in folders:
        try:
            sent = replay(folder, _create, _send(folder))
        except Exception as error:  # MLflow raises what its many stores raise
            raise StageError(f"MLflow cannot be reached: {first_line(error)}. Nothing is lost; try again later.") from error
        say(f"{folder.name}: {sent} records sent")
    return len(folders)


def _uri(header: dict[str, Any]) -> str:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or header["uri"]
    if "://***@" in uri:
        raise UserError("the tracking server's address holds a password, which is not kept: set MLFLOW_TRACKING_URI.")
    return str(uri)


def _create(header: dict[str, Any], key: str) -> str:
    from pathlib import Path

    uri = _uri(header)
    experiment = tracking.ensure_experiment(uri, header["experiment"], Path(header["artifacts"]))
    new = header["new"][key]
    tags = dict(new["tags"])
    if key != PARENT_KEY:
        tags["mlflow.parentRunId"] = header["runs"][PARENT_KEY]
    return tracking.create_run(uri, experiment, new["name"], tags, new["started"])


def _send(folder: Any) -> Callable[[str, dict[str, Any]], None]:
    import json

    uri = _uri(json.loads((folder / "pipeline.json").read_text(encoding="utf-8")))
    return lambda run_id, operation: tracking.apply(tracking.client(uri), run_id, operation)
