"""A lock for promotions that works with any MLflow store.

MLflow has no transactions over several calls, so a move of an alias holds a registered model `<name>.promotion-lock`:
names are unique in the store, so only one process can create it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from switchyard.components.errors import UserError

_LOCK = "switchyard.lock"
_WAIT_SECONDS, _STALE_SECONDS, _POLL_SECONDS = 60.0, 30.0, 0.1


@contextmanager
def locked(client: Any, name: str) -> Iterator[Callable[[], None]]:
    """Holds the lock of a registered model; yields a function that raises if the lock was lost.

    Raises:
        UserError: another promotion held the lock for a minute.
    """
    from mlflow.exceptions import MlflowException

    lock, token = f"{name}.promotion-lock", uuid.uuid4().hex
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            client.create_registered_model(lock, tags={_LOCK: token}, description="Held briefly during a promotion.")
            break
        except MlflowException as error:
            # MLflow reads the existing model before it raises; if the lock is released in between, the model does not exist.
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                raise
        if time.monotonic() > deadline:
            raise UserError(f"{name}: another promotion has held the lock {lock!r} for {_WAIT_SECONDS:.0f} s. Try again.")
        _break_stale(client, lock)
        time.sleep(_POLL_SECONDS)

    def held() -> bool:
        try:
            return bool(client.get_registered_model(lock).tags.get(_LOCK) == token)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def check() -> None:
        if not held():
            raise UserError(
                f"{name}: the promotion took longer than {_STALE_SECONDS:.0f} s and lost its lock. No alias was moved; try again."
            )

    try:
        yield check
    finally:
        # A lock that cannot be released is broken as stale later.
        with suppress(MlflowException):
            if held():
                client.delete_registered_model(lock)


def _break_stale(client: Any, lock: str) -> None:
    """Deletes the lock of a process that was killed during a move."""
    from mlflow.exceptions import MlflowException

    try:
        made = client.get_registered_model(lock).creation_timestamp / 1000
        if time.time() - made > _STALE_SECONDS:
            client.delete_registered_model(lock)
    except MlflowException:
        pass  # released meanwhile
