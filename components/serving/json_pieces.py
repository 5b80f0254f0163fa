"""Parses large JSON in pieces: a C parser holds the GIL, and so blocks all other requests, until it returns."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

PIECE = 256 << 10
_DEEPEST = 1024  # orjson's own limit
_IS_BRACKET = np.isin(np.arange(256), [ord(sign) for sign in "[]{}"])
_OPENS = np.isin(np.arange(256), [ord(sign) for sign in "[{"])
_SPACE = b" \t\r\n"


class PieceError(ValueError):
    """The text is not JSON."""


class KeyTwiceError(ValueError):
    """An object of the text has a duplicate key."""


def loads_in_pieces(content: bytes, piece: int = PIECE) -> Any:
    """Returns a JSON document as `orjson.loads` does; other threads can run between the pieces.

    A piece ends at a comma, at any depth. Prefixed with the brackets that are open at its start and suffixed with the matching
    closing ones, it is a JSON document.

    Args:
        content: the JSON text.
        piece: bytes parsed at once; more if a single string is longer.

    Raises:
        PieceError: the text is not JSON.
        KeyTwiceError: an object has a duplicate key; not all duplicates are detected here.
    """
    key = secrets.token_hex(16)  # stands for an object opened in an earlier piece; random, so that no key of the text collides
    document: Any = None
    stack: list[int] = []
    begin = 0
    for end, is_last in _ends(content, piece):
        part = content[begin:end]
        _check_edges(part, first=begin == 0, last=is_last)
        opened = _still_open(part, stack)
        if len(opened) > _DEEPEST:
            raise PieceError(f"nested deeper than {_DEEPEST} levels")
        if not (opened or is_last):
            raise PieceError("more than one value")
        found = _read(_before(stack, key), part, b"" if is_last else _after(opened), begin)
        document = found if begin == 0 else _joined(document, found, stack)
        stack, begin = opened, end + 1
    return document


def outside_of_texts(content: bytes, piece: int = 1 << 20) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields the offset, the bytes and a mask of the bytes outside strings for each part; NumPy releases the GIL."""
    inside, at = np.uint8(0), 0
    while at < len(content):
        text = content[at : at + piece]
        if (len(text) - len(text.rstrip(b"\\"))) % 2 and len(text) > 1:
            text = text[:-1]  # never split an escape sequence
        if b"\\" in text:
            text = text.replace(b"\\\\", b"..").replace(b'\\"', b"..")
        part = np.frombuffer(text, np.uint8)
        within = np.bitwise_xor.accumulate((part == ord('"')).view(np.uint8)) ^ inside
        inside = within[-1]
        yield at, part, within == 0
        at += len(text)


def _ends(content: bytes, piece: int) -> Iterator[tuple[int, bool]]:
    """Yields the offset of each piece's end, a comma or the end of the text, and whether it is the last."""
    for at, part, outside in outside_of_texts(content, piece):
        commas = np.flatnonzero((part == ord(",")) & outside)
        if len(commas) and at + len(part) < len(content):
            yield at + int(commas[-1]), False
    yield len(content), True


def _check_edges(part: bytes, *, first: bool, last: bool) -> None:
    """Raises PieceError for a comma beside a bracket, which would go unnoticed: each piece alone would be valid."""
    if not part:
        raise PieceError("a value is missing")
    if not first and part.lstrip(_SPACE)[:1] in (b"", b"]", b"}", b","):
        raise PieceError("a comma without a value after it")
    if not last and part.rstrip(_SPACE)[-1:] in (b"", b"[", b"{", b","):
        raise PieceError("a comma without a value before it")


def _still_open(part: bytes, stack: list[int]) -> list[int]:
    """Returns the brackets open at the end of a piece; `stack` holds those open at its start."""
    found = [(p[o & _IS_BRACKET[p]], np.count_nonzero(p == ord(","))) for _, p, o in outside_of_texts(part)]
    signs = np.concatenate([brackets for brackets, _ in found])
    if not len(signs):
        return stack
    if len(signs) > 2 * _DEEPEST * (1 + sum(commas for _, commas in found)):
        raise PieceError(f"nested deeper than {_DEEPEST} levels")
    opening = _OPENS[signs]
    depth = np.cumsum(np.where(opening, 1, -1))
    lowest = np.minimum.accumulate(depth[::-1])[::-1]
    closed = max(0, -int(depth.min()))
    if closed > len(stack):
        raise PieceError("an unmatched closing bracket")
    return [*stack[: len(stack) - closed], *signs[opening & (lowest >= depth)].tolist()]


def _before(stack: list[int], key: str) -> bytes:
    named = b'{"%s":' % key.encode()
    outer = [b"[" if sign == ord("[") else named for sign in stack[:-1]]
    return b"".join([*outer, *(bytes([sign]) for sign in stack[-1:])])


def _after(stack: list[int]) -> bytes:
    return b"".join(b"]" if sign == ord("[") else b"}" for sign in reversed(stack))


def _read(before: bytes, part: bytes, after: bytes, begin: int) -> Any:
    try:
        return orjson.loads(b"".join([before, part, after]))
    except orjson.JSONDecodeError as error:
        raise PieceError(f"{error.msg}: between the characters {begin} and {begin + len(part)}") from None


def _joined(document: Any, found: Any, stack: list[int]) -> Any:
    """Merges a piece into the open lists and objects of the document."""
    whole = document
    for level, sign in enumerate(stack):
        inner = level + 1 < len(stack)
        if type(whole) is not type(found) or type(whole) is not (list if sign == ord("[") else dict):
            # The most recent value is not the last one of its object: its key is a duplicate.
            raise KeyTwiceError
        if isinstance(whole, list):
            last, beginning = whole[-1] if inner else None, found[0] if inner else None
            whole += found[1:] if inner else found
        else:
            last = next(reversed(whole.values())) if inner else None
            beginning = found.pop(next(iter(found))) if inner else None
            whole.update(found)
        whole, found = last, beginning
    return document
