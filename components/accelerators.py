"""AcceleratorProfile: which devices a trainer uses, as plain data. Trainers turn it into devices, runners into resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from components.errors import UserError

KINDS = ("auto", "cpu", "gpu", "tpu")
PRECISIONS = ("float32", "bf16", "fp16")


@dataclass(frozen=True)
class AcceleratorProfile:
    """Devices for one training process.

    Attributes:
        kind: one of `KINDS`; `auto` takes a GPU where there is one, else the CPU.
        count: devices of that kind.
        precision: one of `PRECISIONS`; bf16 and fp16 are mixed precision (weights stay float32).
    """

    kind: str = "auto"
    count: int = 1
    precision: str = "float32"

    def resolve(self, available: Mapping[str, int]) -> AcceleratorProfile:
        """Returns the profile with `auto` replaced, checked against the devices that are there.

        Args:
            available: kind -> number of devices on this machine.

        Raises:
            UserError: a device that is asked for is not there, or cannot do the precision.
        """
        kind = self.kind
        if kind == "auto":
            kind = "gpu" if available.get("gpu", 0) else "cpu"
        there = ", ".join(f"{n} {k}" for k, n in available.items() if n) or "none"
        if available.get(kind, 0) < self.count:
            raise UserError(
                f"trainer.accelerator asks for {self.count} {kind}, this machine has: {there}. "
                "Ask for what is there, or use 'auto'."
            )
        if self.precision == "fp16" and kind == "cpu":
            raise UserError("trainer.accelerator.precision: 'fp16' needs a GPU, the device is a CPU. Use 'float32' or 'bf16'.")
        return AcceleratorProfile(kind, self.count, self.precision)
