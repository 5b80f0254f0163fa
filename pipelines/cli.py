"""The `switchyard` command: finds a subcommand's module by name and imports it when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from switchyard.components.compat.python_exit import exit_at_once
from switchyard.components.process import warm
from switchyard.components.process.account import ensure_account
from switchyard.components.process.interpreter import protect_children
from switchyard.components.progress import no_progress_bars
from switchyard.components.text.redaction import install
from switchyard.pipelines.commands import COMMANDS, WARM
from switchyard.pipelines.commands.options import EXIT_CODES, refuse_in_a_serving_image


class _Commands(click.Group):
    """The commands of `COMMANDS`; each is `command` in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click."""
        if cmd_name not in COMMANDS:
            return None
        refuse_in_a_serving_image(cmd_name)
        found: click.Command = import_module(f"switchyard.pipelines.commands.{cmd_name}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EXIT_CODES)
@click.version_option(package_name="switchyard", prog_name="switchyard")
def main() -> None:
    """One ML pipeline: ingest, validate, transform, train, evaluate, register.

    With a TensorFlow or a PyTorch trainer, tracked in MLflow.
    """
    install()


def entry() -> None:
    """Runs the console script; exits without tearing down TensorFlow and TFX, which would take seconds of every run."""
    ensure_account()
    if not sys.stderr.isatty():
        no_progress_bars()
    protect_children()
    code = None
    if sys.argv[1:2] and sys.argv[1] in WARM and not {"-h", "--help"} & set(sys.argv):
        refuse_in_a_serving_image(sys.argv[1])
        warm.enable()
        code = _in_a_warm_fork() if warm.enabled() else None
    exit_at_once(_run() if code is None else code)


def _in_a_warm_fork() -> int | None:
    """Runs the command in a fork of a warm process; returns its exit code, or None if there is no warm process."""
    package = getattr(sys.modules["__main__"], "__package__", None)
    payload = {"argv": sys.argv, "path": sys.path, "package": package, "warm": warm.passed_on()}
    return warm.stand_for("switchyard.pipelines.cli:run_forked", payload)


def run_forked(payload: dict[str, Any], descriptors: list[int]) -> int:
    """Runs a command in this fork of a warm process, for the process that called it."""
    sys.argv, sys.path[:] = payload["argv"], payload["path"]
    sys.modules["__main__"].__package__ = payload["package"]  # by which click names the command
    warm.enable_as(payload["warm"])
    warm.stop_with_its_forks()
    return _run()


def _run() -> int:
    code: Any = 0
    try:
        main()
    except SystemExit as error:
        code = error.code
    if isinstance(code, str):
        click.echo(code, err=True)
    warm.start_missed()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    entry()
