"""The devices of a training as plain data. Trainers map a profile to devices, runners map it to resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from switchyard.components.errors import UserError

KINDS = ("auto", "cpu", "gpu", "tpu")
PRECISIONS = ("float32", "tf32", "bf16", "fp16")
# Precisions that require an NVIDIA GPU.
GPU_ONLY = ("tf32", "fp16")


@dataclass(frozen=True)
class AcceleratorProfile:
    """The devices of one training.

    Attributes:
        kind: one of `KINDS`; `auto` selects a GPU if there is one, else the CPU.
        count: devices of that kind on each node. On CPUs these are workers that share the cores.
        precision: one of `PRECISIONS`, the same in every framework. `float32`: matrix products and convolutions in IEEE float32;
            `tf32`: both with 10 bits of mantissa on an NVIDIA GPU's tensor cores; `bf16` and `fp16`: mixed precision (weights,
            losses and the optimizer stay float32).
        nodes: machines.
        shard_model: shard weights, gradients and optimizer state over the workers, for models that do not fit on one device;
            otherwise each worker holds a full copy.
        compile: compile the training step with the framework's compiler (torch.compile, XLA); falls back to eager mode with a
            warning.
        deterministic: bitwise reproducible on the same devices and versions; an operation without a deterministic
            implementation is an error.
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
        """Total number of devices; each processes an equal part of every global batch."""
        return self.count * self.nodes

    def resolve(self, available: Mapping[str, int], *, nodes_here: int = 1) -> AcceleratorProfile:
        """Returns the profile with `auto` resolved, validated against the available devices.

        Args:
            available: kind -> number of devices on this machine.
            nodes_here: number of nodes that this machine simulates.

        Raises:
            UserError: a requested device is missing or does not support the precision.
        """
        kind = self.kind
        if kind == "auto":
            kind = "gpu" if available.get("gpu", 0) else "cpu"
        wanted = 1 if kind == "cpu" else self.count * nodes_here  # CPUs are shared
        if available.get(kind, 0) < wanted:
            there = ", ".join(f"{n} {k}" for k, n in available.items() if n) or "none"
            raise UserError(
                f"trainer.accelerator requests {wanted} {kind}, this machine has: {there}. Request one of these, or use 'auto'."
            )
        if self.precision in GPU_ONLY and kind != "gpu":
            raise UserError(
                f"trainer.accelerator.precision: {self.precision!r} needs a GPU, the device is a {kind.upper()}; use 'float32' "
                "or 'bf16'"
            )
        return replace(self, kind=kind)
