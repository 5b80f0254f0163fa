"""`switchyard init`: writes a new project for data, or one that begins with invented data."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from switchyard.pipelines.commands.options import handle_errors
from switchyard.pipelines.project import PIPELINE, TEMPLATES


@click.command("init")
@click.argument("data", nargs=-1, metavar="[DATA]...")
@click.option("--label", metavar="COLUMN", help="The column to predict, or what the classes of pictures or texts are called.")
@click.option(
    "--template",
    type=click.Choice(TEMPLATES),
    help="Code to start from.  [default: what fits DATA; tabular without]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="How DATA is read: a key of data, as in data.csv.separator=';'.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Folder to write to, new or without files of these names.  [default: the current one]",
)
@handle_errors
def command(data: tuple[str, ...], label: str | None, template: str | None, overrides: tuple[str, ...], output: Path) -> None:
    """Write a project that runs as it stands: pipeline.yaml, models for both frameworks, a test, .gitignore.

    DATA is what `run --data` reads: files, folders, globs or URIs, or a folder with one of pictures or texts per class. Its
    first rows decide what the YAML says, with the reasons. Without DATA, a file of invented rows is written, too.

    \b
    switchyard init rides.csv --label big_tipper
    switchyard init pets/ --label animal -o pets_project
    switchyard init --template text
    """  # noqa: D301 (click requires the character)
    from switchyard.pipelines.project.write import write_project
    from switchyard.pipelines.terminal.output import quiet

    told: list[str] = []
    try:
        with quiet():  # hides TensorFlow's device messages, for TFRecord
            project = write_project(data, label, template, overrides, folder=output, tell=told.append)
    finally:
        for text in told:
            click.echo(text, err=True)
    found = project.found
    for name in project.files:
        click.echo(project.folder / name)
    click.echo(f"template: {found.template} ({found.template_by})", err=True)
    click.echo(f"label: {found.label} ({found.label_by}), task: {found.task} ({found.task_by})", err=True)
    here = output.resolve() == Path.cwd()
    where = "" if here else f" {shlex.quote(str(output / PIPELINE))}"
    click.echo(f"next: switchyard run{where} --trainer tensorflow --trainer pytorch", err=True)
