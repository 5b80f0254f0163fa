"""PyTorch and TensorFlow in one process: TensorFlow, Triton (PyTorch's compiler) and PyTorch/XLA all carry LLVM.

Importing one of the others after TensorFlow aborts the process; the reverse order works (measured with tensorflow 2.21 and
torch 2.15, and with torch_xla 2.9; torch 2.10's Triton was not affected). PyTorch imports Triton lazily, so the order must
be settled early.
"""

import importlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, cast

_log = logging.getLogger(__name__)
_loading = threading.RLock()


def import_torch_first() -> None:
    """Imports PyTorch, Triton and PyTorch/XLA; after TensorFlow, blocks Triton and PyTorch/XLA instead.

    Without Triton, PyTorch lacks only `torch.compile` on GPUs; without PyTorch/XLA, only TPUs. The serving images of the other
    frameworks have no PyTorch.
    """
    if importlib.util.find_spec("torch") is None:
        return
    late = [name for name in ("triton", "torch_xla") if name not in sys.modules]
    if "tensorflow" in sys.modules:
        cast(dict[str, Any], sys.modules).update(dict.fromkeys(late))  # marks a module as not installed
        return
    importlib.import_module("torch")
    for name in late:
        if importlib.util.find_spec(name):
            importlib.import_module(name)


def hide_gpus_from_tensorflow() -> None:
    """Hides the GPUs from TensorFlow in a process that runs a PyTorch model, or whose job does.

    TensorFlow only transforms requests there; GPU memory is left to PyTorch.
    """
    tf = sys.modules.get("tensorflow")
    if tf is None:
        return
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        # The host process initialized TensorFlow before, so its devices are fixed.
        _log.warning("TensorFlow was used before and may hold GPU memory that PyTorch needs")


@contextmanager
def without_other_frameworks() -> Iterator[None]:
    """Blocks imports of PyTorch and JAX inside the context, which saves seconds.

    Where they are installed, Beam imports PyTorch, and TensorFlow JAX (for TFLite). For processes that may never need them. If
    they do, `import_torch_first` has already blocked Triton where necessary.
    """
    if "torch" in sys.modules:
        yield
        return
    # Not `None` in `sys.modules`: SciPy looks up PyTorch there during its own import.
    blocked = _NotInstalled("torch", "jax")
    sys.meta_path.insert(0, blocked)
    try:
        yield
    finally:
        sys.meta_path.remove(blocked)
        import_torch_first()


def import_tensorflow_without_keras() -> None:
    """Imports TensorFlow for a process that only runs SavedModels.

    Where they are installed, TensorFlow imports Keras last, which takes more than half of the import, and JAX, which takes a
    quarter. Both can still be imported later.
    """
    blocked: list[Any] = [_KerasLater, _NotInstalled("jax")]
    sys.meta_path[:0] = blocked
    try:
        importlib.import_module("tensorflow")
    finally:
        for importer in blocked:
            sys.meta_path.remove(importer)


def import_scipy_signal_later() -> None:
    """Defers the import of `scipy.signal` until a name of it is read: 520 modules, 0.7 processor seconds.

    torchmetrics imports it at once to add `hamming`, which SciPy has removed and an audio package needs:
    https://github.com/Lightning-AI/torchmetrics/blob/v1.9.0/src/torchmetrics/__init__.py
    """
    if "scipy.signal" in sys.modules or importlib.util.find_spec("scipy") is None:
        return
    if spec := importlib.util.find_spec("scipy.signal"):
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _ScipySignal
        sys.modules["scipy.signal"] = module


@contextmanager
def transformers_later() -> Iterator[None]:
    """Defers the import of Transformers' classes within the context until one of them is used: 0.8 seconds.

    Where Transformers is installed, torchmetrics names two of them, for metrics of texts. Outside the context it is imported
    as usual.
    """
    if "transformers" in sys.modules or (spec := importlib.util.find_spec("transformers")) is None:
        yield
        return
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Transformers
    sys.modules["transformers"] = module
    try:
        yield
    finally:
        del sys.modules["transformers"]


class _Transformers(ModuleType):
    """`transformers` with classes that are imported at their first use."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module 'transformers' has no attribute {name!r}")
        return _Later(name, (), {})


class _Later(type):
    """A class of Transformers, imported when one of its names is read."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):  # read of every class, by `typing` for example
            raise AttributeError(name)
        return getattr(getattr(importlib.import_module("transformers"), cls.__name__), name)


class _ScipySignal(ModuleType):
    """`scipy.signal`, imported when one of its names is read. torchmetrics finds the function that it would add."""

    def hamming(self, *arguments: Any, **options: Any) -> Any:
        return self.windows.hamming(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        # Python and tools read others with underscores from all modules.
        if not name.startswith("__") or name == "__all__":
            with _loading:
                if not vars(self).get("_loaded"):  # also set while its own modules import it
                    self._loaded = True
                    cast(Any, self.__spec__).loader.exec_module(self)
                if name in vars(self):
                    return vars(self)[name]
        raise AttributeError(f"module 'scipy.signal' has no attribute {name!r}")


class _KerasLater:
    """An importer that finds Keras, since TensorFlow looks up its location, but does not load it."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "keras" else None
        if spec is not None:
            spec.loader = _NotNow()
        return spec


class _NotNow(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        raise ModuleNotFoundError(f"{spec.name} is not imported here", name=spec.name)


class _NotInstalled:
    """An importer that reports packages as not installed."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
