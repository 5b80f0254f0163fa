"""What a TFX component keeps to itself, and its runners and subclasses need."""

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
    """Returns a Beam pipeline with the options of a `BaseBeamExecutor`'s component: TFX's way, for its subclasses alone."""
    return executor._make_beam_pipeline()


def packages_modules(component: Any) -> bool:
    """Whether a component is one whose `module_file` TFX's runners package."""
    return hasattr(component, "_resolve_pip_dependencies")


def modules_to_package(component: Any) -> list[Any]:
    """Returns what will be packaged of a component: places of `module_file`s, then wheels."""
    return list(component._pip_dependencies)


def set_modules_to_package(component: Any, dependencies: list[Any]) -> None:
    """Puts back what `package_modules` changed."""
    component._pip_dependencies = dependencies


def package_modules(component: Any, folder: str) -> None:
    """Packages a component's `module_file`s as wheels in `folder/_wheels`, as TFX's own runners do."""
    component._resolve_pip_dependencies(folder)
