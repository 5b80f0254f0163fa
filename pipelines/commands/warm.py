"""`switchyard warm`: shows and stops the warm processes, see `components.process.warm`."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import click
from rich.table import Table

from switchyard.components.process import warm
from switchyard.components.process.other_process import is_stopped
from switchyard.pipelines.commands.options import handle_errors
from switchyard.pipelines.terminal.output import table_console

_STOP_SECONDS = 5.0
_HAS_IMPORTED = {
    warm.STAGES: "predict, a run and its stages: TFX, TensorFlow, MLflow",
    warm.SERVING: "infra validation's server: TensorFlow alone",
    warm.TRAININGS: "trainings in PyTorch",
    warm.BARE: "infra validation's server: PyTorch alone",
}


@click.group("warm")
def command() -> None:
    """Show or stop the processes that make the next run or predict start sooner.

    A run, or predict, leaves processes that have imported the libraries; the next ones are forked from them. They end after 15
    minutes without one, and when a package or a source file has changed. SWITCHYARD_WARM=0 or CI in the environment: none is
    started or used.
    """


@command.command("status")
@handle_errors
def status() -> None:
    """List the warm processes and their memory.

    Memory is the share of each (proportional set size): pages that several of them or a run share are divided among them.
    """
    import psutil

    table = Table(box=None, pad_edge=False)
    for column in ("process", "memory, MiB", "for"):
        table.add_column(column, justify="right" if "MiB" in column else "left")
    for found in warm.running():
        with suppress(psutil.Error):
            memory = psutil.Process(found.pid).memory_full_info().pss / 2**20
            use = _HAS_IMPORTED.get(found.kind, found.kind)
            state = " (stopped)" if is_stopped(found.pid) else "" if found.is_ready else " (importing)"
            table.add_row(str(found.pid), f"{memory:.0f}", use + state)
    if table.row_count:
        table_console().print(table)
    else:
        click.echo("no warm process")


@command.command("stop")
@handle_errors
def stop() -> None:
    """Stop the warm processes; a command that was forked from one continues."""
    stopped = list(warm.running())
    for left in warm.stop(stopped, _STOP_SECONDS):
        with suppress(ProcessLookupError):
            os.kill(left.pid, signal.SIGKILL)
    click.echo(f"{len(stopped)} warm {'process' if len(stopped) == 1 else 'processes'} stopped")
