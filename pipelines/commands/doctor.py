"""`switchyard doctor`: checks whether this machine, or a cluster, is fit for a first run."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from switchyard.components.errors import EXIT_DONE, EXIT_FAILED, UserError
from switchyard.pipelines.commands.options import (
    connection_options,
    handle_errors,
    json_option,
    overrides_option,
    tracking_uri_option,
    trainers_option,
)
from switchyard.pipelines.terminal.output import table_console

if TYPE_CHECKING:
    from switchyard.pipelines.api.pipeline_argument import Overrides
    from switchyard.pipelines.runners.kubeflow.cluster.client import Connection


@click.command("doctor")
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@partial(connection_options, required=False)
@tracking_uri_option
@trainers_option
@overrides_option
@json_option
@handle_errors
def command(
    pipeline: Path | None,
    connection: Connection | None,
    tracking_uri: str | None,
    trainers: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check whether this machine is ready for a run, or with --host a cluster; exit code 1 if it is not.

    With PIPELINE for its run, else in general. Of a machine: Python, memory, disk, packages that clash, GPU and its libraries,
    programs that some options need, MLflow. Kubernetes' state is read with kubectl in its current context.
    """
    if pipeline is None and (overrides or trainers):
        raise UserError("--set and --trainer override a pipeline's values; give PIPELINE, or remove them.")
    from switchyard.pipelines.api.pipeline_argument import with_trainer

    sys.exit(doctor(connection, pipeline, with_trainer(overrides, trainers), tracking_uri, as_json=as_json))


def doctor(
    connection: Connection | None, pipeline: Path | None, overrides: Overrides, tracking_uri: str | None, *, as_json: bool
) -> int:
    """Prints the checks and their findings; returns the exit code.

    Args:
        connection: connection to KFP; None: this machine is checked.
        pipeline: pipeline to run there, which determines the checks; None: only what every pipeline needs.
        overrides: overrides of the pipeline's values.
        tracking_uri: MLflow's address for this machine; default: the pipeline's.
        as_json: print JSON.

    Raises:
        UserError: KFP is unreachable, or the pipeline is invalid.
    """
    from switchyard.pipelines.config.load import load_config
    from switchyard.pipelines.finding import FAILED

    config = load_config(pipeline, overrides=overrides) if pipeline else None
    uri = tracking_uri or (config.tracking.uri if config else None)
    if connection is None:
        from switchyard.pipelines.machine_checks import examine_machine

        findings = examine_machine(pipeline.parent if pipeline else Path(), uri)
    else:
        from switchyard.pipelines.runners.kubeflow.cluster.client import KubeflowClient
        from switchyard.pipelines.runners.kubeflow.runs.cluster_checks import examine

        client = KubeflowClient(connection)
        client.check()
        findings = examine(client, config, uri)
    failed = any(f.outcome == FAILED for f in findings)
    if as_json:
        click.echo(json.dumps([{"check": f.check, "outcome": f.outcome, "message": f.message} for f in findings]))
        return EXIT_FAILED if failed else EXIT_DONE
    table = Table(box=None, pad_edge=False)
    for column in ("check", "outcome", "finding"):
        table.add_column(column, no_wrap=column != "finding")
    for finding in findings:
        table.add_row(finding.check, finding.outcome, finding.message)
    table_console().print(table)
    return EXIT_FAILED if failed else EXIT_DONE
