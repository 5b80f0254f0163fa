"""Checks whether an image can run tasks. Run with `python -m switchyard.pipelines.runners.kubeflow.task.image_check`."""

from __future__ import annotations

import importlib
import json
import platform
import sys
from importlib import metadata

_MODULES = (
    "switchyard.components.import_order",
    "torch",
    "tensorflow",
    "kfp.dsl.executor_main",
    "switchyard.pipelines.runners.kubeflow.task.node",
    "switchyard.pipelines.runners.local.preload",
)
_PACKAGES = (
    "switchyard",
    "tfx",
    "tensorflow",
    "torch",
    "torch_xla",
    "transformers",
    "lightgbm",
    "libtpu",
    "mlflow",
    "kfp",
    "apache-beam",
)


def main() -> int:
    """Imports the modules that tasks import, prints versions as JSON or the import error, and returns the exit code."""
    from switchyard.components.import_order import import_torch_first

    import_torch_first()
    for module in _MODULES:
        try:
            importlib.import_module(module)
        except Exception as error:  # broken packages raise arbitrary exceptions
            sys.stderr.write(f"{module}: {type(error).__name__}: {error}\n")
            return 1
    found = {p: _version(p) for p in _PACKAGES}
    sys.stdout.write(json.dumps({"python": platform.python_version(), **{p: v for p, v in found.items() if v}}) + "\n")
    return 0


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
