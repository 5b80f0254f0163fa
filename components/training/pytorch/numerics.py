"""How PyTorch computes float32, and whether twice alike: the process's switches for one training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from switchyard.components.errors import UserError, first_line
from switchyard.components.training.accelerator import AcceleratorProfile

# cuBLAS takes sums in a fixed order only with a workspace of its own: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_NOT_DETERMINISTIC = "does not have a deterministic implementation"


@contextmanager
def numerics(accelerator: AcceleratorProfile) -> Iterator[None]:
    """Computes as `accelerator.precision` and `accelerator.deterministic` say, and as before afterwards.

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
                f"trainer.deterministic: the model cannot be trained with the same bits twice: {first_line(error)} Replace that "
                "operation, or set trainer.deterministic to false"
            ) from error
        raise
    finally:
        if own_workspace:
            del os.environ[_CUBLAS]
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
        torch.use_deterministic_algorithms(before[2])


def allow_tf32(allowed: bool) -> None:
    """Lets GPUs multiply and convolve float32 in TF32, or not; by itself PyTorch convolves in TF32 and multiplies in float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
