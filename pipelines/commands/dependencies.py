"""`switchyard dependencies`: installs the packages that user code needs, and lists them in a pipeline's YAML."""

from __future__ import annotations

from pathlib import Path

import click

from switchyard.pipelines.commands.options import handle_errors, pipeline_argument


@click.group("dependencies")
def command() -> None:
    """Install packages that your code needs, and list them in the YAML."""


@command.command("add")
@click.argument("packages", nargs=-1, metavar="[PACKAGE]...")
@click.option("--pipeline", type=click.Path(path_type=Path), metavar="YAML", help="List them as dependencies in this pipeline.")
@handle_errors
def dependencies_add(packages: tuple[str, ...], pipeline: Path | None) -> None:
    """Install PACKAGEs into this environment, in versions that fit Switchyard's, which stay as they are.

    A PACKAGE is a name or name==version. Without one, those that --pipeline lists are installed.
    """
    from switchyard.pipelines.api.dependencies import add_dependencies

    for package in add_dependencies(packages, pipeline):
        click.echo(package)


@command.command("list")
@pipeline_argument
@handle_errors
def dependencies_list(pipeline: Path) -> None:
    """Print the packages that PIPELINE lists, one a line."""
    from switchyard.pipelines.config.load import load_config

    for package in load_config(pipeline).dependencies:
        click.echo(package)
