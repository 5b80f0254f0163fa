"""Makes TFX's cache keys independent of the workspace's location.

TFX 1.21's cache keys contain absolute paths, so the cache of a moved workspace would never hit. With the patch, the metadata
handle's `neutral`, if it has one, normalizes the texts in a key. An artifact that its content identifies counts by that alone: an
uncached stage writes it again in every run. Needed while TFX has no option for cache keys.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from tfx.orchestration.portable import cache_utils

from switchyard.components.compat.patch import Private

PRIVATE = Private(
    "tfx",
    ("1.21",),
    ("tfx.orchestration.portable.cache_utils:get_cache_context",),
    "https://github.com/tensorflow/tfx/blob/v1.21.0/tfx/orchestration/portable/cache_utils.py",
)


def install(content: str) -> None:
    """Patches `cache_utils.get_cache_context`. Idempotent.

    Args:
        content: name of the property with an artifact's content, if it identifies the artifact.
    """
    original: Callable[..., Any] = cache_utils.get_cache_context
    if hasattr(original, "__wrapped__") or not PRIVATE.fits():
        return

    @functools.wraps(original)
    def get_cache_context(metadata_handle: Any, **given: Any) -> Any:
        neutral = getattr(metadata_handle, "neutral", None)
        if neutral:
            artifacts = given.get("input_artifacts") or {}
            given["input_artifacts"] = {k: [_neutral(a, neutral, content) for a in found] for k, found in artifacts.items()}
            parameters = given.get("parameters") or {}
            given["parameters"] = {k: neutral(v) if isinstance(v, str) else v for k, v in parameters.items()}
        return original(metadata_handle=metadata_handle, **given)

    cache_utils.get_cache_context = get_cache_context


def _neutral(artifact: Any, neutral: Callable[[str], str], content: str) -> Any:
    result = copy.deepcopy(artifact)
    message = result.mlmd_artifact
    if identity := artifact.get_string_custom_property(content):
        message.Clear()
        message.uri = identity
    message.uri = neutral(message.uri)
    for properties in (message.properties, message.custom_properties):
        for value in properties.values():
            if value.string_value:
                value.string_value = neutral(value.string_value)
    return result
