"""Bytes in JSON, which has no type for them: `{"b64": "..."}`, the form of TensorFlow Serving's clients."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

KEY = "b64"
# Deeper lists fit no column and are refused later; without a limit they would exhaust the stack.
_DEPTH = 32


def as_json(value: bytes) -> str | dict[str, str]:
    """Returns bytes as a JSON value: a text when they are UTF-8, else base64."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {KEY: in_base64(value)}


def in_base64(value: bytes) -> str:
    """Returns bytes in base64."""
    return base64.b64encode(value).decode("ascii")


def from_base64(text: str) -> bytes:
    """Returns the decoded bytes; line breaks, which MIME encoders insert, are ignored.

    Raises:
        ValueError: the text is no base64.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"is not valid base64: {error}") from None


def unwrapped(values: Sequence[Any], depth: int = _DEPTH) -> list[Any]:
    """Returns values with each `{"b64": ...}` decoded to bytes, in lists of up to `depth` levels too; invalid base64 stays."""
    return [_unwrapped(v, depth) for v in values]


def holds_bytes(values: Sequence[Any], depth: int = _DEPTH) -> bool:
    """Returns whether values, or lists in them of up to `depth` levels, contain a `{"b64": ...}`."""
    return any(
        (isinstance(v, dict) and v.keys() == {KEY}) or (isinstance(v, list | tuple) and depth > 0 and holds_bytes(v, depth - 1))
        for v in values
    )


def may_hold_bytes(kind: pa.DataType) -> bool:
    """Returns whether values of this Arrow type may be `{"b64": ...}`, or lists of it."""
    kind = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_struct(kind))


def _unwrapped(value: Any, depth: int) -> Any:
    if isinstance(value, list | tuple):
        return unwrapped(value, depth - 1) if depth > 0 else value
    if isinstance(value, dict) and value.keys() == {KEY} and isinstance(value[KEY], str):
        try:
            return from_base64(value[KEY])
        except ValueError:
            return value
    return value
