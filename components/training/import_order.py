"""PyTorch and TensorFlow in one process: Triton (PyTorch's compiler) and TensorFlow both carry LLVM.

When TensorFlow comes first, importing Triton aborts the process; the other way round both work (measured with torch 2.15
and tensorflow 2.21). PyTorch imports Triton by itself, late, so that this has to be settled early.
"""

import importlib
import importlib.util
import sys
from typing import Any, cast


def settle() -> None:
    """Imports PyTorch and Triton now, or, when TensorFlow was first, keeps Triton out for good.

    Without Triton PyTorch does all but `torch.compile` on GPUs.
    """
    if "triton" in sys.modules:
        return
    if "tensorflow" in sys.modules:
        cast(dict[str, Any], sys.modules)["triton"] = None  # Python's way to say "not installed"
        return
    importlib.import_module("torch")
    if importlib.util.find_spec("triton"):
        importlib.import_module("triton")
