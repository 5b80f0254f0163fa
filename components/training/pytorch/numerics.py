"""Sets PyTorch's process-wide float32 precision and determinism for one training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from switchyard.components.errors import UserError, first_line
from switchyard.components.training.accelerator import AcceleratorProfile

# cuBLAS sums in a fixed order only with a fixed workspace: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_NOT_DETERMINISTIC = "does not have a deterministic implementation"


@contextmanager
def numerics(accelerator: AcceleratorProfile) -> Iterator[None]:
    """Applies `accelerator.precision` and `accelerator.deterministic`, and restores the previous settings on exit.

    Raises:
        UserError: the model needs an operation that has no deterministic implementation.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()
    allow_tf32(accelerator.precision == "tf32")
    if accelerator.kind == "tpu" and accelerator.precision == "float32":
        from torch_xla import backends

        backends.set_mat_mul_precision("highest")  # by default a TPU multiplies in bfloat16
    own_workspace = accelerator.deterministic and _CUBLAS not in os.environ
    if own_workspace:
        os.environ[_CUBLAS] = ":4096:8"
    torch.use_deterministic_algorithms(accelerator.deterministic)
    try:
        yield
    except RuntimeError as error:
        if accelerator.deterministic and _NOT_DETERMINISTIC in str(error):
            raise UserError(
                f"trainer.deterministic: the model cannot be trained deterministically: {first_line(error)} Replace that "
                "operation, or set trainer.deterministic to false"
            ) from error
        raise
    finally:
        if own_workspace:
            del os.environ[_CUBLAS]
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
        torch.use_deterministic_algorithms(before[2])


def allow_tf32(allowed: bool) -> None:
    """Enables or disables TF32 for matrix products and convolutions; PyTorch enables it by default only for convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
