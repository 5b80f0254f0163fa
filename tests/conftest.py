"""Fixtures for all tests. PyTorch comes first, as in the product: see `components.training.import_order`."""

import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.pop("MLFLOW_TRACKING_URI", None)
# A shell ignores Ctrl-C for what it starts in the background, and so would the commands that are tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

from components.training.import_order import settle

settle()

import psutil
import pytest
from hypothesis import HealthCheck, settings

from tests.command import WarmCommand

# How long anything takes says nothing on a machine with other guests.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


# Fixtures that take long: with `-n`, tests that look at the same one run in the same process, so that it is made once.
COSTLY = ("runs", "champion", "again", "common", "compiled", "ran", "submit", "bundles")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        found = next((name for name in COSTLY if name in item.fixturenames), None)
        if found:
            item.add_marker(pytest.mark.xdist_group(found))


@pytest.fixture(scope="session")
def warm():
    """The command without its start-up time; where the process itself is looked at, use `tests.command.switchyard`."""
    command = WarmCommand()
    yield command
    command.close()


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """Fails a test that leaves a changed environment or a process behind."""
    before = dict(os.environ)
    children = {p.pid for p in psutil.Process().children(recursive=True)}
    yield
    changed = {k for k in before.keys() | os.environ.keys() if before.get(k) != os.environ.get(k)} - {"PYTEST_CURRENT_TEST"}
    # Libraries set these once, when they are first imported or used.
    ours = (
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
    )
    changed -= {k for k in changed if k.startswith(ours)}
    assert not changed, f"the test left environment variables changed: {sorted(changed)}"
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in children]
    # What imports start for a moment (`uname`, `ldconfig`) in the process behind `warm`, say, is gone at once.
    _, left = psutil.wait_procs([p for p in left if not _is_resource_tracker(p)], timeout=10)
    assert not left, f"the test left processes: {[' '.join(p.cmdline())[:200] for p in left]}"


def _is_resource_tracker(process):
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
