"""`switchyard compile`: compiles a pipeline for Kubeflow to a file."""

from __future__ import annotations

from pathlib import Path

import click

from switchyard.pipelines.commands.options import (
    handle_errors,
    overrides_option,
    pipeline_argument,
    trainers_option,
    workspace_option,
)


@click.command("compile")
@pipeline_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Output file.  [default: PIPELINE.kfp.yaml beside the YAML]",
)
@click.option("--source", type=click.Path(path_type=Path, dir_okay=False), help="Also write the generated Python source.")
@trainers_option
@overrides_option
@workspace_option
@handle_errors
def command(
    pipeline: Path,
    output: Path | None,
    source: Path | None,
    trainers: tuple[str, ...],
    overrides: tuple[str, ...],
    workspace: Path | None,
) -> None:
    """Compile PIPELINE for Kubeflow Pipelines v2; no cluster is needed."""
    from switchyard.pipelines.api.compile import compile as compile_pipeline

    target = output or pipeline.with_name(f"{pipeline.stem}.kfp.yaml")
    compile_pipeline(
        pipeline, overrides=overrides, trainer=trainers, output=target, source=source, workspace=workspace, progress=True
    )
    click.echo(target)
