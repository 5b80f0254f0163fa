"""Compiles models with torch.compile, with a fallback to eager mode."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from switchyard.components.errors import first_line
from switchyard.components.progress import say, warn
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.examples import placeholder_batch
from switchyard.components.training.positional import by_name, positional

_WARM_UP_STEPS, _TIMED_STEPS = 5, 50
_HOW = {False: "launched kernel by kernel", True: "as a CUDA graph"}


def compiled(model: nn.Module, request: TrainRequest) -> Callable[[Any], torch.Tensor]:
    """Returns the compiled model, or, with a warning, the model itself if torch.compile fails or does not support it.

    On a GPU its steps are CUDA graphs, or launched one by one: whichever is faster for some steps of a copy.
    """
    if request.accelerator.shard_model:
        warn("trainer.accelerator.compile: a model sharded over workers is trained without torch.compile")
        return model
    if request.accelerator.kind == "tpu":
        return model  # PyTorch/XLA always compiles every step
    names = [f.name for f in request.spec.features]
    try:
        if request.accelerator.kind == "gpu":
            graphs = _faster_as_graphs(model, request, names)
        else:
            # A copy runs forward and backward, as compilation starts with the first step of each.
            with torch.random.fork_rng():
                trial = copy.deepcopy(model)
                _step(trial, _by_place(trial, names, graphs=False), _batch(request, 2, "cpu"))
            graphs = False
    except Exception as error:
        reason = first_line(error)
        warn(f"trainer.accelerator.compile: torch.compile failed for this model, falling back to eager mode: {reason}")
        return model
    return _by_place(model, names, graphs=graphs)


def _faster_as_graphs(model: nn.Module, request: TrainRequest, names: Sequence[str]) -> bool:
    """Returns whether a step of the compiled model, forward and backward, is faster as a CUDA graph."""
    seconds = {}
    # A graph's gradients are overwritten by its next step, and DDP reduces them beside it; a deterministic training is not chosen
    # by time.
    single = request.hyperparameters.accumulate_steps == request.shard.count == 1 and not request.accelerator.deterministic
    batch = _batch(request, request.hyperparameters.batch_size // request.shard.count or 1, "cuda")
    dtype = torch.bfloat16 if request.accelerator.precision == "bf16" else torch.float16
    half = request.accelerator.precision in ("bf16", "fp16")
    for graphs in (False, True) if single else (False,):
        trial = copy.deepcopy(model).to("cuda")
        run = _by_place(trial, names, graphs=graphs)
        try:
            with torch.autocast("cuda", dtype=dtype, enabled=half), torch.random.fork_rng():
                for _ in range(_WARM_UP_STEPS):
                    _step(trial, run, batch)
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(_TIMED_STEPS):
                    _step(trial, run, batch)
                torch.cuda.synchronize()
                seconds[graphs] = time.perf_counter() - start
        except Exception as error:
            if not graphs:
                raise
            say(f"compiled: no CUDA graphs for this model: {first_line(error)}")
        del run, trial
        torch.compiler.reset()  # releases the memory of the copy's graphs
    faster = min(seconds, key=seconds.__getitem__)
    cost = ", ".join(f"{1e3 * s / _TIMED_STEPS:.2f} ms {_HOW[graphs]}" for graphs, s in seconds.items())
    say(f"compiled: a step of the model takes {cost}; {_HOW[faster]} is used")
    return faster


def _batch(request: TrainRequest, rows: int, device: str) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v).to(device) for k, v in placeholder_batch(request.spec, rows).items()}


def _step(model: nn.Module, run: Callable[[Any], torch.Tensor], batch: dict[str, torch.Tensor]) -> None:
    with torch.enable_grad():
        run(batch).sum().backward()
    model.zero_grad()  # gradients that a graph has written are overwritten by its next step


class _Positional(nn.Module):
    """A model with features by position, as the compiler writes the keys of its inputs into generated code."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self._names = model, tuple(names)

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        output: torch.Tensor = self.model(by_name(features, self._names))
        return output


def _by_place(model: nn.Module, names: Sequence[str], *, graphs: bool) -> Callable[[Any], torch.Tensor]:
    run = torch.compile(_Positional(model, names), mode="reduce-overhead" if graphs else "default")
    if graphs:
        # A graph's next step overwrites its output, which the metrics keep.
        return lambda features: run(positional(features, names)).clone()
    return lambda features: run(positional(features, names))
