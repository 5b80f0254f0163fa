"""Bytes in JSON, which has no place for them: `{"b64": "..."}`, as TensorFlow Serving's clients write them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

KEY = "b64"


def as_json(value: bytes) -> str | dict[str, str]:
    """Returns bytes as JSON has them: a text where they are UTF-8, else base64."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {KEY: in_base64(value)}


def in_base64(value: bytes) -> str:
    """Returns bytes in base64."""
    return base64.b64encode(value).decode("ascii")


def from_base64(text: str) -> bytes:
    """Returns the bytes; line breaks, which MIME's encoders put in, are left aside.

    Raises:
        ValueError: it is no base64.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"is no base64: {error}") from None


def unwrapped(values: Sequence[Any]) -> list[Any]:
    """Returns values with the bytes that `{"b64": ...}` holds, in lists too; what is no base64 stays as it is."""
    return [_unwrapped(v) for v in values]


def holds_bytes(values: Sequence[Any]) -> bool:
    """Whether there is a `{"b64": ...}` among values or in lists of them."""
    return any(
        (isinstance(v, dict) and v.keys() == {KEY}) or (isinstance(v, list | tuple) and v and holds_bytes(v)) for v in values
    )


def may_hold_bytes(kind: pa.DataType) -> bool:
    """Whether values that Arrow gave this type may be, or be lists of, `{"b64": ...}`."""
    kind = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_struct(kind))


def _unwrapped(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return unwrapped(value)
    if isinstance(value, dict) and value.keys() == {KEY} and isinstance(value[KEY], str):
        try:
            return from_base64(value[KEY])
        except ValueError:
            return value
    return value
