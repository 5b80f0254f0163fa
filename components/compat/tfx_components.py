"""Wraps private methods of TFX components that runners and subclasses need."""

from __future__ import annotations

from typing import Any

from switchyard.components.compat.patch import Private

PRIVATE = Private(
    "tfx",
    ("1.21",),
    (
        "tfx.dsl.components.base.base_beam_executor:BaseBeamExecutor._make_beam_pipeline",
        "tfx.dsl.components.base.base_component:BaseComponent._resolve_pip_dependencies",
        "tfx.dsl.components.base.base_component:BaseComponent.__init__",
    ),
    "https://github.com/tensorflow/tfx/blob/v1.21.0/tfx/dsl/components/base/base_component.py",
)


def beam_pipeline(executor: Any) -> Any:
    """Returns a Beam pipeline with the options of a `BaseBeamExecutor`'s component, as TFX's subclasses build it."""
    return executor._make_beam_pipeline()


def packages_modules(component: Any) -> bool:
    """Whether TFX's runners package the `module_file` of a component."""
    return hasattr(component, "_resolve_pip_dependencies")


def modules_to_package(component: Any) -> list[Any]:
    """Returns a component's pip dependencies: locations of `module_file`s before packaging, wheels after it."""
    return list(component._pip_dependencies)


def set_modules_to_package(component: Any, dependencies: list[Any]) -> None:
    """Restores a component's pip dependencies after `package_modules`."""
    component._pip_dependencies = dependencies


def package_modules(component: Any, folder: str) -> None:
    """Packages a component's `module_file`s as wheels in `folder/_wheels`, as TFX's own runners do."""
    component._resolve_pip_dependencies(folder)
