"""PyTorch and TensorFlow in one process: TensorFlow, Triton (PyTorch's compiler) and PyTorch/XLA all carry LLVM.

When TensorFlow comes first, importing one of the others aborts the process; the other way round all work (measured with
tensorflow 2.21 and torch 2.15, and with torch_xla 2.9; torch 2.10's Triton did not mind). PyTorch imports Triton by itself,
late, so that this has to be settled early.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, cast


def import_torch_first() -> None:
    """Imports PyTorch, Triton and PyTorch/XLA now, or, when TensorFlow was first, keeps the last two out for good.

    Without Triton PyTorch does all but `torch.compile` on GPUs, without PyTorch/XLA all but TPUs.
    """
    late = [name for name in ("triton", "torch_xla") if name not in sys.modules]
    if "tensorflow" in sys.modules:
        cast(dict[str, Any], sys.modules).update(dict.fromkeys(late))  # Python's way to say "not installed"
        return
    importlib.import_module("torch")
    for name in late:
        if importlib.util.find_spec(name):
            importlib.import_module(name)


@contextmanager
def without_pytorch() -> Iterator[None]:
    """Keeps PyTorch, which Beam imports where it is installed, out of what is imported in here: two seconds less.

    For a process that may never need it. Where it does after all, `import_torch_first` has kept Triton out.
    """
    if "torch" in sys.modules:
        yield
        return
    # Not `None` among the modules: SciPy looks there for PyTorch while it is imported itself.
    sys.meta_path.insert(0, _NoPyTorch)
    try:
        yield
    finally:
        sys.meta_path.remove(_NoPyTorch)
        import_torch_first()


def import_tensorflow_without_keras() -> None:
    """Imports TensorFlow for a process that only runs SavedModels.

    TensorFlow imports Keras at its end, if it can: more than half of what its import takes. Whoever imports Keras later gets it.
    """
    sys.meta_path.insert(0, _KerasLater)
    try:
        importlib.import_module("tensorflow")
    finally:
        sys.meta_path.remove(_KerasLater)


class _KerasLater:
    """An importer that finds Keras, as TensorFlow looks where it lies, and does not load it."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "keras" else None
        if spec is not None:
            spec.loader = _NotNow()
        return spec


class _NotNow(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        raise ModuleNotFoundError(f"{spec.name} is not imported here", name=spec.name)


class _NoPyTorch:
    """An importer that says of PyTorch that it is not installed."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
