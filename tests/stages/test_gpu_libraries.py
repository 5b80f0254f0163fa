"""TensorFlow and PyTorch on one set of CUDA libraries: looked at without a GPU, as else it is missed on a cluster first."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
import torch

# What TensorFlow opens when it looks for GPUs, and without one of them does without GPUs (tsl/platform/default/dso_loader.cc).
OPENED = {
    "libcudart.so.12",
    "libcublas.so.12",
    "libcublasLt.so.12",
    "libcufft.so.11",
    "libcusolver.so.11",
    "libcusparse.so.12",
    "libcudnn.so.9",
    "libcupti.so.12",
    "libnccl.so.2",
    "libnvrtc.so.12",
}
HERE = Path(tf.__file__).parent.parent / "nvidia"

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(torch.version.cuda is None, reason="this environment was installed without CUDA"),
]


def test_both_frameworks_are_built_for_one_cuda():
    build = tf.sysconfig.get_build_info()
    assert torch.version.cuda.split(".")[0] == build["cuda_version"].split(".")[0]
    assert str(torch.backends.cudnn.version())[0] == build["cudnn_version"]
    names = [d.name for d in importlib.metadata.distributions()]
    assert [n for n in names if re.fullmatch(r"nvidia-.*-cu\d+", n) and not n.endswith("-cu12")] == []


def test_tensorflow_has_the_libraries_that_it_opens():
    found = [str(path) for name in sorted(OPENED) for path in HERE.glob(f"*/lib/{name}")]
    assert {Path(path).name for path in found} == OPENED
    code = f"import ctypes\nfor path in {found}: ctypes.CDLL(path)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_xla_has_its_assembler():
    assert (HERE / "cuda_nvcc" / "bin" / "ptxas").is_file()
    assert (HERE / "cuda_nvcc" / "nvvm" / "libdevice" / "libdevice.10.bc").is_file()
