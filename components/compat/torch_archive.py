"""Keeps executable content out of `torch.export` archives.

`torch.export.save` writes guards, which are Python source that a loader compiles, and has no option to omit them.
For an archive that is not in the current format, `torch.export.load` falls back to an older format and unpickles it; `load_pt2`,
which it calls first, does not.
"""

from __future__ import annotations

import io
import warnings

import torch
from torch.export.pt2_archive._package import load_pt2

from switchyard.components.compat.patch import Private

PRIVATE = Private(
    "torch",
    ("2.10",),
    (
        "torch.export.pt2_archive._package:load_pt2",
        "torch.export:load",
        "torch.export.exported_program:ExportedProgram.__init__",
    ),
    "https://github.com/pytorch/pytorch/blob/v2.10.0/torch/export/pt2_archive/_package.py",
)


def remove_guards(program: torch.export.ExportedProgram) -> None:
    """Removes the program's guards, which are Python source."""
    program._guards_code = []


def load_current(content: bytes) -> torch.export.ExportedProgram:
    """Returns the program in an archive of PyTorch's current format.

    Raises:
        RuntimeError: the archive has another format.
    """
    with warnings.catch_warnings():
        # Weights are views of bytes that are not writable; predictions do not write to them.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return load_pt2(io.BytesIO(content)).exported_programs["model"]
