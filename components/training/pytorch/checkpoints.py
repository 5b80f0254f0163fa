"""Copies the state of a training and writes it beside the next epoch."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import nn

from switchyard.components.errors import UserError
from switchyard.components.training.beside import Beside
from switchyard.components.training.ledger import TrainingLedger

CHECKPOINT = ".ckpt"
# Most pinned memory of a checkpoint: it cannot be swapped out, and PyTorch rounds each tensor's up to a power of two.
_PINNED_BYTES = 4 << 30


class Copies:
    """Copies of a training's state, since the next epoch changes the weights in place; one at a time is written."""

    def __init__(self, writer: Beside) -> None:
        self._writer = writer
        self._pinned: list[torch.Tensor] = []
        self._pinned_bytes = 0
        self._loadable = False

    def wait(self) -> None:
        """Waits for the copy that is being written."""
        self._writer.wait()

    def copy(self, state: Any) -> Any:
        """Returns a copy of the state in the memory of the CPU; a GPU's is complete once its work until now is done."""
        free = iter(self._pinned)
        self._pinned, self._pinned_bytes = [], 0
        return apply_to_collection(state, torch.Tensor, lambda tensor: self._copy(tensor.detach(), free))

    def _copy(self, tensor: torch.Tensor, free: Iterator[torch.Tensor]) -> torch.Tensor:
        """Copies a tensor; from a GPU to pinned memory, the next `free` if it fits, in the order of its work, without waiting."""
        if not tensor.is_cuda or self._pinned_bytes + tensor.nbytes > _PINNED_BYTES:
            return tensor.to("cpu", copy=True)
        pinned = next(free, None)
        if pinned is None or (pinned.shape, pinned.dtype) != (tensor.shape, tensor.dtype):
            pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._pinned.append(pinned)
        self._pinned_bytes += tensor.nbytes
        return pinned.copy_(tensor, non_blocking=True)

    def write(self, state: Any, ledger: TrainingLedger) -> None:
        """Starts to write a copy as the last epoch's checkpoint, then the ledger; without a state the file is there."""
        copied = torch.cuda.current_stream().record_event() if self._pinned else None
        self._writer.submit(partial(self._write, state, copied, ledger.copy()))

    def _write(self, state: Any, copied: torch.cuda.Event | None, ledger: TrainingLedger) -> None:
        path = ledger.last(CHECKPOINT)
        if copied:
            copied.synchronize()
        if state is not None:
            with temporary(path).open("wb") as file:
                torch.save(state, file)
            if not self._loadable:  # now, not when a killed training resumes
                _check_loadable(temporary(path))
                self._loadable = True
        os.replace(temporary(path), path)
        ledger.save()


def temporary(path: Path) -> Path:
    """Returns the file in which a checkpoint is written."""
    return path.with_name(f"new_{path.name}")


def _check_loadable(checkpoint: Path) -> None:
    """Raises UserError for state that PyTorch's safe loader refuses."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        kind = re.search(r"GLOBAL (\S+)", str(error))
        raise UserError(
            f"trainer.model: the state of its optimizer, callbacks or module holds {kind[1] if kind else 'an object'}, which a "
            "resumed training would refuse to load; keep tensors, numbers, texts, lists and dicts in it"
        ) from error


def load(model: nn.Module, checkpoint: Path, prefix: str) -> None:
    """Loads the weights whose names begin with `prefix`."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
