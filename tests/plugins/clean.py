"""Fails tests that leave a changed environment, a process or a file in the repository behind; few garbage collections."""

import gc
import os
from pathlib import Path

import psutil
import pytest

# Libraries set these once, when they are first imported or used.
OF_LIBRARIES = (
    "TF_",
    "TF2_",
    "KMP_",
    "MLFLOW_HTTP_",
    "TPU_",
    "PL_",
    "HDF5_",
    "PYTORCH_",
    "TORCHINDUCTOR_",
    "_TORCHINDUCTOR_",
    "ENABLE_RUNTIME_",
    "TEMPORARILY_DISABLE_PROTOBUF_",
)
REPOSITORY = Path(__file__).parents[2]


def pytest_collection_finish():
    """Takes what imports have made out of the garbage collection: millions of objects, which each full one went through."""
    gc.collect()
    gc.freeze()


def _files():
    """Returns the names at the top of the repository, where stray output of processes appears; caches begin with a dot."""
    return {
        name for name in os.listdir(REPOSITORY) if not name.startswith(".") and not name.endswith((".egg-info", "__pycache__"))
    }


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """Fails a test that leaves a changed environment, a process or a file in the repository behind."""
    before, files = dict(os.environ), _files()
    children = {p.pid for p in psutil.Process().children(recursive=True)}
    yield
    changed = {k for k in before.keys() | os.environ.keys() if before.get(k) != os.environ.get(k)} - {"PYTEST_CURRENT_TEST"}
    changed -= {k for k in changed if k.startswith(OF_LIBRARIES)}
    assert not changed, f"the test left environment variables changed: {sorted(changed)}"
    written = _files() - files
    assert not written, f"the test left files in the repository: {sorted(written)}"
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in children]
    # The process behind `warm` is of the session, also one that replaces another (see `WarmCommand`).
    again = [p for p in left if _runs(p, "tests.warm_cli")]
    again += [child for p in again for child in p.children(recursive=True)]
    left = [p for p in left if p not in again]
    # What imports start for a moment (`uname`, `ldconfig`) in the process behind `warm`, say, is gone at once.
    _, left = psutil.wait_procs([p for p in left if not _runs(p, "resource_tracker")], timeout=10)
    assert not left, f"the test left processes: {[' '.join(p.cmdline())[:200] for p in left]}"


def _runs(process, name):
    try:
        return name in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
