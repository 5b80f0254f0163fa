"""The TPUs of this machine."""

from __future__ import annotations

import os
import sys

from switchyard.components.process import variables


def tpus() -> int:
    """Returns the number of local TPUs. With `SWITCHYARD_TRY_XLA_ON_CPU=1` PyTorch/XLA's CPU device counts as one."""
    if "torch_xla" not in sys.modules or sys.modules["torch_xla"] is None:
        return 0
    if xla_on_cpu():
        return 1
    from lightning.pytorch.accelerators import XLAAccelerator  # Lightning takes seconds to import

    allow_metadata()
    return XLAAccelerator.auto_device_count() if XLAAccelerator.is_available() else 0


def xla_on_cpu() -> bool:
    """Returns whether PyTorch/XLA runs on its CPU device."""
    # PJRT_DEVICE=CPU is not a sign of intent: torch_xla sets it by itself if it finds no TPU.
    return bool(os.environ.get(variables.TRY_XLA_ON_CPU))


def allow_metadata() -> None:
    """Lets PyTorch/XLA look for TPUs."""
    # JAX, which TensorFlow imports, sets the variable where it finds no TPU, and a stage's environment becomes that of its
    # trainings. PyTorch/XLA then requires the other variable instead of reporting that there is no TPU.
    if "TPU_ACCELERATOR_TYPE" not in os.environ:
        os.environ.pop("TPU_SKIP_MDS_QUERY", None)
