"""`switchyard upload`: sends the records buffered while MLflow was unreachable."""

from __future__ import annotations

from pathlib import Path

import click

from switchyard.pipelines.commands.options import (
    handle_errors,
    workspace_option,
)
from switchyard.pipelines.workspace import Workspace, find_workspace


@click.command("upload")
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@workspace_option
@handle_errors
def command(pipeline: Path | None, workspace: Path | None) -> None:
    """Send the records buffered while MLflow was unreachable."""
    from switchyard.pipelines.runners.tracking.upload import upload as send

    place = Workspace(find_workspace(workspace, pipeline))
    place.contain_libraries()
    sent = send(place, click.echo)
    click.echo(f"{sent} runs sent" if sent else "nothing to send")
