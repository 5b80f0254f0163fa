"""Classifies MLflow's errors: a refused operation, denied access, or an unreachable server."""

from __future__ import annotations

import json
import re

from switchyard.components.errors import UserError, first_line
from switchyard.components.text.redaction import mask

# Error codes of requests that fail permanently; other codes may be caused by the server or the network.
_REFUSALS = frozenset(
    {
        "BAD_REQUEST",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_CONFLICT",
        "RESOURCE_DOES_NOT_EXIST",
    }
)
_UNKNOWN = frozenset({"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"})
_NO_ROOM = frozenset({"RESOURCE_EXHAUSTED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_LIMIT_EXCEEDED", "QUOTA_EXCEEDED"})
# HTTP status codes of a server or proxy: access denied, no room, retry later.
_UNKNOWN_STATUS, _NO_ROOM_STATUS, _LATER_STATUS = (401, 403, 407), (402, 429, 507), (408, 425)
# SQLite's, PostgreSQL's and MySQL's texts.
_READ_ONLY = re.compile(r"read-?only (database|transaction|option)", re.IGNORECASE)
_IN_TEXT = re.compile(r"(?:failed with error code|too many) (\d{3})")


def is_refusal(error: Exception) -> bool:
    """Whether the operation is at fault (a name, a missing file), not the server or the network."""
    gone = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
    damaged = (json.JSONDecodeError, KeyError)
    if isinstance(error, (UserError, *gone, *damaged)):
        return True
    code, status = getattr(error, "error_code", None), _status(error)
    others = (*_UNKNOWN_STATUS, *_NO_ROOM_STATUS, *_LATER_STATUS)
    return code in _REFUSALS or (status is not None and 400 <= status < 500 and status not in others)


def is_denial(error: Exception) -> bool:
    """Whether the server or database is reachable but denies access, is read-only or has no room left."""
    code, status = getattr(error, "error_code", None), _status(error)
    return (
        _READ_ONLY.search(str(error)) is not None or code in _UNKNOWN | _NO_ROOM or status in (*_UNKNOWN_STATUS, *_NO_ROOM_STATUS)
    )


def refusal(uri: str, error: Exception) -> str:
    """Returns the user's message for a refusal or a denial: the reason and the fix."""
    why = first_line(error).rstrip(".")
    place = f"MLflow at {mask(uri)}" if uri else "MLflow"
    if _READ_ONLY.search(str(error)):
        return f"{place}: its database is read-only. Make it writable, copy its workspace elsewhere, or use another one."
    if getattr(error, "error_code", None) in _NO_ROOM or _status(error) in _NO_ROOM_STATUS:
        return f"{place} accepts no more data: {why}. Free space on the server or raise its limits, or try again later."
    if is_denial(error):
        return (
            f"{place} denies access: {why}. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN, of an account that may write to the experiment and the registry."
        )
    if "'active' state" in why:
        restore = "Restore it (mlflow experiments restore, or runs), or set another tracking.experiment."
        return f"{place} refuses: {why}. {restore}"
    return f"{place} refuses: {why}."


def _status(error: Exception) -> int | None:
    """Returns the HTTP status of an error, if any; for artifacts MLflow raises the errors of `requests`."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None and (found := _IN_TEXT.search(str(error))):
        status = found[1]
    return None if status is None else int(status)
