"""AcceleratorProfile: which devices a trainer uses, as plain data. Trainers turn it into devices, runners into resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from switchyard.components.errors import UserError

KINDS = ("auto", "cpu", "gpu", "tpu")
PRECISIONS = ("float32", "tf32", "bf16", "fp16")
# What only NVIDIA's GPUs do.
GPU_ONLY = ("tf32", "fp16")


@dataclass(frozen=True)
class AcceleratorProfile:
    """Devices for one training.

    Attributes:
        kind: one of `KINDS`; `auto` takes a GPU where there is one, else the CPU.
        count: devices of that kind on each node. On CPUs these are workers that share the cores.
        precision: one of `PRECISIONS`, the same in every framework. `float32`: matrix products and convolutions in IEEE float32;
            `tf32`: both with 10 bits of mantissa on an NVIDIA GPU's tensor cores; `bf16` and `fp16`: mixed precision (weights,
            losses and the optimizer stay float32).
        nodes: machines.
        shard_model: weights, gradients and the optimizer's state are spread over the workers, for models that do not fit
            on one device; else each worker holds all of them.
        compile: the framework's compiler (torch.compile, XLA) makes the model's steps; where it cannot, they are run as they
            are, with a warning.
        deterministic: the same bits twice on the same devices and versions; what has no such implementation is refused.
    """

    kind: str = "auto"
    count: int = 1
    precision: str = "float32"
    nodes: int = 1
    shard_model: bool = False
    compile: bool = False
    deterministic: bool = False

    @property
    def workers(self) -> int:
        """Devices in all: each takes an equal part of every global batch."""
        return self.count * self.nodes

    def resolve(self, available: Mapping[str, int], *, nodes_here: int = 1) -> AcceleratorProfile:
        """Returns the profile with `auto` replaced, checked against the devices that are there.

        Args:
            available: kind -> number of devices on this machine.
            nodes_here: how many of the nodes this machine plays.

        Raises:
            UserError: a device that is asked for is not there, or cannot do the precision.
        """
        kind = self.kind
        if kind == "auto":
            kind = "gpu" if available.get("gpu", 0) else "cpu"
        wanted = 1 if kind == "cpu" else self.count * nodes_here  # CPUs are shared
        if available.get(kind, 0) < wanted:
            there = ", ".join(f"{n} {k}" for k, n in available.items() if n) or "none"
            raise UserError(
                f"trainer.accelerator asks for {wanted} {kind}, this machine has: {there}. Ask for what is there, or use 'auto'."
            )
        if self.precision in GPU_ONLY and kind != "gpu":
            raise UserError(
                f"trainer.accelerator.precision: {self.precision!r} needs a GPU, the device is a {kind.upper()}; use 'float32' "
                "or 'bf16'"
            )
        return replace(self, kind=kind)
