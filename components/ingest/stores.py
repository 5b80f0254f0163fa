"""Object stores, by Beam's file systems, and with a bounded wait: Beam retries for an hour where none answers."""

from __future__ import annotations

import glob
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from switchyard.components.errors import UserError
from switchyard.components.text.redaction import mask

_Result = TypeVar("_Result")

SECONDS = 30.0
# Most requests of a process at a time, of a few milliseconds of work and many of waiting each.
_REQUESTS = 16
_RETRIES = "apache_beam.utils.retry"
# Scheme -> what usually is not set if a store does not answer.
_ADVICE = {
    "s3": "Check the connection, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), AWS_DEFAULT_REGION, and "
    "AWS_ENDPOINT_URL for a store other than Amazon's.",
    "gs": "Check the connection, and set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account.",
}
# Stores that have answered in this process: an outage later on is retried.
_answered: set[str] = set()


def file_systems() -> Any:
    """Returns Beam's file systems, with options: without any S3's raises an error, and only a pipeline that runs sets them."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.value_provider import RuntimeValueProvider

    if RuntimeValueProvider.runtime_options is None:
        RuntimeValueProvider.set_runtime_options({})  # as Beam's runners do; a pipeline's options come first
    return FileSystems


def match(pattern: str) -> dict[str, int]:
    """Returns the files that a URI, a folder's URI or a glob of URIs matches, in order, with their sizes in bytes.

    Raises:
        UserError: the pattern cannot be listed, or the store does not answer.
    """
    check_answers(pattern)
    return _match(pattern)


def check_answers(pattern: str, seconds: float = SECONDS) -> None:
    """Waits for a store's first answer in this process, of any content.

    Raises:
        UserError: there is none within `seconds`.
    """
    scheme, _, rest = pattern.partition("://")
    store = f"{scheme}://{rest.partition('/')[0]}"
    if store in _answered:
        return
    literal = re.split(r"[*?\[]", pattern)[0]

    def ask() -> None:
        try:
            file_systems().match([f"{literal}**"], [1])
        except Exception:  # an answer, too: what is asked next raises it
            logging.getLogger(__name__).info("%s", store, exc_info=True)

    within(seconds, pattern, ask)
    _answered.add(store)


def remote_size(patterns: Sequence[str], seconds: float = 20.0) -> int:
    """Returns the total size in bytes of the files that URIs and globs of URIs match; 0 without a match.

    Args:
        patterns: URIs, and globs of URIs.
        seconds: maximum wait for the object store.

    Raises:
        UserError: a pattern cannot be listed, or not in time.
    """
    size: int = within(seconds, patterns[0], lambda: sum(sum(_match(p).values()) for p in patterns))
    return size


def within(seconds: float, pattern: str, ask: Callable[[], Any]) -> Any:
    """Returns what `ask` returns, which runs in a thread of its own.

    Args:
        seconds: maximum wait.
        pattern: what is asked for, for the error.
        ask: the request to an object store.

    Raises:
        UserError: it raises one, there is no answer in time, or there are no credentials.
    """
    file_systems()  # imports take seconds of their own
    found: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def answer() -> None:
        try:
            found.put(("answer", ask()))
        except UserError as error:
            found.put(("error", error))

    thread = threading.Thread(target=answer, daemon=True)

    def retried(record: logging.LogRecord) -> bool:
        """Hides the thread's warnings about retries, which come with traces, and takes the reason from them."""
        if record.thread != thread.ident:
            return True
        if isinstance(record.args, tuple) and len(record.args) > 2:
            found.put(("retry", " ".join(str(record.args[2]).split())))
        return False

    # It stays: the thread retries, to no use, until the process ends.
    logging.getLogger(_RETRIES).addFilter(retried)
    thread.start()
    reason, until = "", time.monotonic() + seconds
    while "credentials" not in reason:
        try:
            kind, value = found.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        if kind == "retry":
            reason = value
            continue
        logging.getLogger(_RETRIES).removeFilter(retried)
        if kind == "error":
            raise value
        return value
    what = f"no answer within {seconds:g} s from" if "credentials" not in reason else "no access to"
    why = f" ({mask(reason)[:300]})" if reason else ""
    advice = _ADVICE.get(pattern.partition("://")[0], "Check the connection and the credentials.")
    raise UserError(f"data.path: {what} the store of {pattern}{why}. {advice}")


def concurrently(request: Callable[[str], _Result], paths: Iterable[str]) -> list[_Result]:
    """Returns the results of a request for each path, in order; several requests wait for the store at a time.

    Raises:
        Exception: what the first failed request raises.
    """
    with ThreadPoolExecutor(_REQUESTS, "store") as pool:
        return list(pool.map(request, paths))


def _match(pattern: str) -> dict[str, int]:
    try:
        found = file_systems().match([pattern])[0].metadata_list
        if not found and not glob.has_magic(pattern):
            found = file_systems().match([f"{pattern.rstrip('/')}/**"])[0].metadata_list
        return {m.path: m.size_in_bytes for m in sorted(found, key=lambda m: str(m.path))}
    except Exception as error:  # Beam raises any exception of the filesystem's client
        raise UserError(f"data.path: cannot search for {pattern}: {error}") from error
