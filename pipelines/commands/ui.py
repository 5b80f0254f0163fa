"""`switchyard ui`: opens MLflow's UI on a workspace."""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
from pathlib import Path

import click

from switchyard.components.errors import UserError
from switchyard.components.process import interpreter
from switchyard.pipelines.commands.options import (
    handle_errors,
    workspace_option,
)
from switchyard.pipelines.workspace import Workspace, find_workspace

# MLflow 3 opens its view for generative models by default.
VIEW = "workflowType=machine_learning"
# Uvicorn imports modules from its working directory first, regardless of Python's safe path: those of the standard library.
WORKING_DIRECTORY = sysconfig.get_path("stdlib")


@click.command("ui")
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@workspace_option
@handle_errors
def command(pipeline: Path | None, host: str, port: int, workspace: Path | None) -> None:
    """Open MLflow's UI on a workspace's runs (that of PIPELINE, or the only one below this folder)."""
    serve_ui(Workspace(find_workspace(workspace, pipeline)), host, port)


def run_link(host: str, port: int, experiment_id: str, run_id: str | None = None) -> str:
    """Returns a link into the UI."""
    run = f"/runs/{run_id}" if run_id else ""
    return f"http://{host}:{port}/#/experiments/{experiment_id}{run}?{VIEW}"


def serve_ui(workspace: Workspace, host: str, port: int) -> None:
    """Replaces this process with MLflow's server.

    Raises:
        UserError: the workspace has no runs, or the port is taken.
    """
    if not workspace.mlflow_database.exists():
        raise UserError(
            f"workspace {workspace.root}: has no MLflow database, because its runs went to another tracking server or "
            "failed; choose another workspace."
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"cannot listen on {host}:{port}: {error.strerror}. Choose another port with --port.") from None
    click.echo(f"MLflow on {workspace.root}: http://{host}:{port}/#/experiments?{VIEW} (Ctrl-C stops it)")
    sys.stdout.flush()
    # Without job runners MLflow starts 2 processes instead of 10.
    workspace.contain_libraries()
    os.chdir(WORKING_DIRECTORY)
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    arguments = [
        *("server", "--backend-store-uri", workspace.mlflow_uri),
        *("--artifacts-destination", workspace.mlflow_artifacts.as_uri()),
        *("--host", host, "--port", str(port), "--workers", "1"),
    ]
    interpreter.replace_this_process("mlflow", arguments, environment)
