"""Packages the `module_file`s of TFX's components as wheels with only the files they import; TFX takes the whole folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from switchyard.components.compat.tfx_components import (
    modules_to_package,
    package_modules,
    packages_modules,
    set_modules_to_package,
)
from switchyard.components.user_code.loading import imported_files
from switchyard.pipelines.terminal.output import quiet


@contextmanager
def packaged_user_modules(pipeline: Any) -> Iterator[dict[Path, list[Path]]]:
    """Packages the nodes' `module_file`s with TFX, as its runners do; yields the wheels. The pipeline is restored on exit.

    Raises:
        UserError: a file is missing or is no valid Python.
    """
    nodes = [c for c in pipeline.components if packages_modules(c)]
    before = [(dict(c.spec.exec_properties), modules_to_package(c)) for c in nodes]
    with tempfile.TemporaryDirectory() as folder:
        try:
            with quiet(stdout=True):
                for number, component in enumerate(nodes):
                    _narrow(component, Path(folder) / str(number))
                    package_modules(component, folder)
            yield {wheel: [wheel] for wheel in sorted((Path(folder) / "_wheels").glob("*.whl"))}
        finally:
            for component, (properties, dependencies) in zip(nodes, before, strict=True):
                component.spec.exec_properties.update(properties)
                set_modules_to_package(component, dependencies)


def _narrow(component: Any, folder: Path) -> None:
    """Copies the component's module and its imports to a new folder, because TFX packages every file in the module's folder."""
    for dependency in modules_to_package(component):
        key = getattr(dependency, "module_file_key", None)
        path = component.spec.exec_properties.get(key) if key else None
        # Skip runtime parameters and files in a bucket.
        if not isinstance(path, str) or "://" in path:
            continue
        module = Path(path)
        folder.mkdir()
        for file in imported_files(module, f"{component.id}.{key}"):
            target = folder / file.relative_to(module.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        component.spec.exec_properties[key] = str(folder / module.name)
