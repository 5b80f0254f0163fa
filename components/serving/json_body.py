"""Parses and validates a request's JSON body."""

from __future__ import annotations

import gc
import json
from typing import Any

import numpy as np
import orjson

from switchyard.components.bundle.model import BundleInfo
from switchyard.components.serving.bounds import Bounds, InputError
from switchyard.components.serving.json_pieces import KeyTwiceError, loads_in_pieces, outside_of_texts

_SMALL = 64 << 10
_TWICE = "an object in the body has a duplicate key; send each key once."
_NESTED = (dict, list)
# Allowance per column and per request for everything beside the values: names, parameters, an ignored index.
_BESIDE, _AROUND = 32, 1000


def read_json(body: bytes | bytearray | memoryview, info: BundleInfo, bounds: Bounds) -> dict[str, Any]:
    """Returns the JSON object in a body.

    Raises:
        InputError: the body is not a JSON object, has a duplicate key, or is large and has more objects, lists, names or
            values than the allowed rows of the model can have.
    """
    if len(body) > _SMALL:
        _check_counts(body, info, bounds)
    collects = gc.isenabled()
    # JSON has no cycles: with millions of new objects the garbage collector takes several times the parsing time for nothing.
    gc.disable()
    try:
        document = _small(body) if len(body) <= _SMALL else loads_in_pieces(bytes(body))
    except KeyTwiceError:
        raise InputError(_TWICE) from None
    except ValueError as error:
        raise InputError(f"the body is not JSON: {error}") from None
    finally:
        if collects:
            gc.enable()
    if not isinstance(document, dict):
        raise InputError("the body must be a JSON object.")
    if not _all_read(body, document) and _pairs(document) != _colons(body):
        raise InputError(_TWICE)
    return document


def _all_read(body: bytes | bytearray | memoryview, document: dict[str, Any]) -> bool:
    """Whether a small body certainly has no duplicate keys: serialized again, the document has as many colons."""
    content = bytes(body) if len(body) <= _SMALL else b"\\u"
    try:
        return b"\\u" not in content and orjson.dumps(document).count(b":") == content.count(b":")
    except orjson.JSONEncodeError:  # nested deeper than orjson serializes
        return False


def _pairs(document: dict[str, Any]) -> int:
    """Returns the total number of keys in all objects of a document."""
    found = 0
    todo: list[Any] = [document]
    while todo:
        each = todo.pop()
        if type(each) is dict:
            found += len(each)
            each = each.values()
        todo += [v for v in each if type(v) in _NESTED]
    return found


def _colons(body: bytes | bytearray | memoryview) -> int:
    """Returns the number of keys in a JSON text, duplicates included."""
    return sum(int(np.count_nonzero((part == ord(":")) & outside)) for _, part, outside in outside_of_texts(bytes(body)))


def _check_counts(body: bytes | bytearray | memoryview, info: BundleInfo, bounds: Bounds) -> None:
    """Raises InputError for a body with too many elements, before parsing allocates millions of Python objects."""
    columns = len(info.features)
    cells = bounds.rows * sum((f.width or 1) + 1 for f in info.features)
    most = {
        "{": bounds.rows + _BESIDE * columns + _AROUND,
        "[": bounds.rows * (columns + 2) + _BESIDE * columns + _AROUND,
        ":": bounds.rows * columns + _BESIDE * (bounds.rows + columns) + _AROUND,
        ",": cells + _BESIDE * (bounds.rows + columns) + _AROUND,
    }
    if any(f.is_list for f in info.features):
        del most[","]
    found = dict.fromkeys(most, 0)
    for _, part, outside in outside_of_texts(bytes(body)):
        signs = part[outside]
        for sign in found:
            found[sign] += int(np.count_nonzero(signs == ord(sign)))
    for sign, what in (("{", "objects"), ("[", "lists"), (":", "names"), (",", "values")):
        if found.get(sign, 0) > most.get(sign, 0):
            raise InputError(
                f"the body holds {found[sign]} {what}, more than {bounds.rows} rows of this model need. Send several requests.",
                413,
            )


def _small(body: bytes | bytearray | memoryview) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        document = _with_infinite_numbers(body) if "infinity" in str(error) else None
        if document is None:
            raise
        return document


def _with_infinite_numbers(body: bytes | bytearray | memoryview) -> Any:
    """Returns a document that has numbers beyond float64, so that the error can name their column; None if it is not JSON."""
    try:
        document = json.loads(
            bytes(body).decode(),
            parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits),
            parse_constant=_no_json,
        )
        json.dumps(document, ensure_ascii=False).encode()  # fails for lone surrogates
    except (ValueError, RecursionError):
        return None
    return document


def _no_json(name: str) -> None:
    raise ValueError(name)
