"""Writes how long each call to MLflow took, from every process of a run; Python imports this by itself (PYTHONPATH)."""

import functools
import importlib.abc
import importlib.util
import os
import sys
import threading
import time

_SPENT = os.environ.get("TRACKING_PROBE")
# What `switchyard.components.tracking.run` has that asks MLflow; one of them inside of another counts once.
_CALLS = ("client", "apply", "ensure_experiment", "create_run", "end_if_running", "last_passed_gate", "register_model")
_inside = threading.local()


def _timed(function):
    @functools.wraps(function)
    def call(*arguments, **keywords):
        if getattr(_inside, "yes", False):
            return function(*arguments, **keywords)
        _inside.yes, started = True, time.monotonic()
        try:
            return function(*arguments, **keywords)
        finally:
            _inside.yes = False
            with open(_SPENT, "a") as file:
                file.write(f"{function.__name__} {time.monotonic() - started}\n")

    return call


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "switchyard.components.tracking.run":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            for call in _CALLS:
                setattr(module, call, _timed(getattr(module, call)))

        spec.loader.exec_module = exec_module
        return spec


if _SPENT:
    sys.meta_path.insert(0, _Finder())
