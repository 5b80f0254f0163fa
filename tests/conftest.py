"""Set-up for all suites; fixtures live in `tests/plugins`."""

import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Each command imports for itself, unless warm processes are asked for: by a test, or for the session (SWITCHYARD_WARM=1).
os.environ.setdefault("SWITCHYARD_WARM", "0")
os.environ.pop("MLFLOW_TRACKING_URI", None)
# A shell ignores Ctrl-C for what it starts in the background, and so would the commands that are tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import HealthCheck, settings

# How long anything takes says nothing on a machine with other guests.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

pytest_plugins = [
    "tests.plugins.suites",
    "tests.plugins.durations",
    "tests.plugins.clean",
    "tests.plugins.warm_processes",
    "tests.plugins.made_once",
    "tests.plugins.pipelines",
    "tests.plugins.trainings",
    "tests.plugins.servers",
    "tests.plugins.any_cluster",
]
