"""Explains the failure of a task whose pipeline another version of Switchyard compiled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from pydantic import ValidationError

from switchyard.components.errors import UserError, first_line
from switchyard.components.user_code.loading import users_error


def compiled_by(properties: Mapping[str, Any]) -> str | None:
    """Returns the version of Switchyard in a node's settings; None if they hold none, as those of TFX's own nodes."""
    if isinstance(own := properties.get("version"), str):
        return own
    for value in properties.values():
        try:
            found = json.loads(value)["version"]
        except (TypeError, ValueError, KeyError):
            continue
        if isinstance(found, str):
            return found
    return None


@contextmanager
def explained(properties: Mapping[str, Any]) -> Iterator[None]:
    """Names both versions when the installed one lacks what the compiled settings name, or has other keys in them.

    Raises:
        UserError: the pipeline was compiled by another version, which this one cannot run.
    """
    try:
        yield
    except (ValidationError, ImportError, AttributeError) as error:
        here, there = metadata.version("switchyard"), compiled_by(properties)
        if there in (None, here) or users_error(error):
            raise
        raise UserError(
            f"kubeflow.image: the pipeline was compiled by Switchyard {there}, and the image has {here}, which cannot run it "
            f"({first_line(error)}); use an image of {there}, or compile the pipeline again with {here}"
        ) from error
