"""A request's JSON."""

from __future__ import annotations

import gc
import json
from typing import Any

import orjson

from components.serving.bounds import InputError

_SMALL = 64 << 10


def read_json(body: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Returns a JSON object.

    Raises:
        InputError: it is none.
    """
    collects = gc.isenabled()
    # JSON has no cycles: among millions of new objects the collector finds nothing, in several times the time that reading takes.
    gc.disable()
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        document = _with_infinite_numbers(body) if "infinity" in str(error) else None
        if document is None:
            raise InputError(f"the body is not JSON: {error}") from None
    finally:
        if collects:
            gc.enable()
    if not isinstance(document, dict):
        raise InputError("the body must be a JSON object.")
    return document


def _with_infinite_numbers(body: bytes | bytearray | memoryview) -> Any:
    """Returns a document with numbers beyond float64, so that they are refused by their column; None: large, or no JSON."""
    if len(body) > _SMALL:
        return None
    try:
        return json.loads(
            bytes(body).decode(),
            parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits),
            parse_constant=_no_json,
        )
    except (ValueError, RecursionError):
        return None


def _no_json(name: str) -> None:
    raise ValueError(name)
