"""Caches signatures and option views that Beam recomputes while it builds and starts a pipeline, a third of a small one's time.

Beam inspects the signature of every method of every DoFn at each step of a pipeline's life, and builds an argument parser for
every view of its options (measured with Beam 2.77: docs/performance.md). Neither result changes. Without the patch, pipelines
behave the same but are slower.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core

from switchyard.components.compat.patch import Private

PRIVATE = Private(
    "apache-beam",
    ("2.77",),
    (
        "apache_beam.transforms.core:get_function_args_defaults",
        "apache_beam.options.pipeline_options:PipelineOptions.view_as",
        "apache_beam.options.pipeline_options:PipelineOptions.__init__",
        "apache_beam.options.pipeline_options:PipelineOptions._visible_option_list",
    ),
    "https://github.com/apache/beam/blob/v2.77.0/sdks/python/apache_beam/options/pipeline_options.py",
)
_Arguments = tuple[list[str], list[Any]]


def install() -> None:
    """Installs the caches in this process and its forks. Idempotent."""
    if core.get_function_args_defaults.__module__ == __name__ or not PRIVATE.fits():
        return
    core.get_function_args_defaults = _remembering_arguments(core.get_function_args_defaults)
    PipelineOptions.view_as = _remembering_views(PipelineOptions.view_as)


def _remembering_arguments(ask: Callable[[Any], _Arguments]) -> Callable[[Any], _Arguments]:
    # The key is the function, not the method bound to one of many DoFns. It is weak, so that users' functions can be freed.
    known: WeakKeyDictionary[Any, _Arguments] = WeakKeyDictionary()

    def arguments(function: Any) -> _Arguments:
        unbound = getattr(function, "__func__", None)
        if unbound is None:
            return ask(function)
        if unbound not in known:
            known[unbound] = ask(function)
        names, defaults = known[unbound]
        return list(names), list(defaults)

    return arguments


def _remembering_views(make: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    known: dict[tuple[Any, tuple[str, ...]], Any] = {}

    def view_as(self: Any, cls: Any) -> Any:
        if self._flags is None or cls.__init__ is not PipelineOptions.__init__:
            return make(self, cls)
        key = (cls, tuple(self._flags))
        if key not in known:
            known[key] = cls(self._flags)._visible_options
        view = cls.__new__(cls)
        view._flags, view._all_options, view._visible_options = self._flags, self._all_options, known[key]
        for name in view._visible_option_list():
            if name not in self._all_options:
                # Copy: pipelines must not share mutable option values.
                self._all_options[name] = copy.deepcopy(getattr(known[key], name))
        return view

    return view_as
