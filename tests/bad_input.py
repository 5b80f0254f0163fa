"""Mistakes of users, as data for the suites that check them in one process and through the command."""

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from click.testing import CliRunner

from switchyard.pipelines.cli import main

# Values that come back, in no order: nothing for the data gate to stop at.
GOOD = "x,word,y\n" + "".join(f"{i * 37 % 50},{'ab'[i % 3 % 2]},{int(i * 37 % 50 > 25)}\n" for i in range(200))


@dataclass
class Case:
    """Attributes:
    name: in a few words.
    message: what the user must read.
    config: of the pipeline's YAML.
    files: name -> text, beside the YAML and good data.
    arguments: of the command.
    code: its exit code.
    """

    name: str
    message: str
    config: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    arguments: list = field(default_factory=list)
    code: int = 2

    def write(self, folder):
        """Writes the files and the YAML; returns the YAML's path."""
        for name, text in {"d.csv": GOOD, **self.files}.items():
            Path(folder, name).write_text(text)
        path = Path(folder, "p.yaml")
        path.write_text(yaml.safe_dump(self.config))
        return path


def config(**changes):
    return {"name": "case", "data": {"path": "d.csv"}, "label": "y", **changes}


@contextmanager
def command_in_this_process():
    """Yields the command as a function of its arguments; restores what the command sets in this process."""
    before, on_sigterm = dict(os.environ), signal.getsignal(signal.SIGTERM)
    try:
        yield lambda *arguments: CliRunner().invoke(main, [*map(str, arguments)])
    finally:
        os.environ.clear()
        os.environ.update(before)
        signal.signal(signal.SIGTERM, on_sigterm)
