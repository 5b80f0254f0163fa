"""Keeps secrets out of output: removes credentials from the tracking server's URI and masks known secrets in all text.

MLflow's errors repeat the URI with its password. A server's credentials therefore move to the variables that MLflow reads.
A database's cannot, and are masked wherever text is written (logs, errors, JSON, journal, MLflow).
"""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit, urlunsplit

from switchyard.components.text.visible import visible

MASK = "***"
TRACKING_VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
TRACKING_URI = "MLFLOW_TRACKING_URI"
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
_KEY = r"(?:secret|access|api|account|shared|storage|private)[-_]?key"
# Parameters of URIs, also of signed ones (S3, Google, Azure), and parts of connection strings.
_IN_QUERY = rf"(?:[\w-]{{0,40}}(?:password|passwd|pwd|token|secret|signature|{_KEY})|sig)"
_QUERY = re.compile(rf"([?&;]{_IN_QUERY}=)[^&;\s'\"]+", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^/@\s:]*:[^/@\s]+@")
_SECRET_NAME = re.compile(rf"(password|passwd|_pwd|token|cookie|secret|{_KEY}|connection[-_]?string)$", re.IGNORECASE)
# Shorter secrets are masked in URIs only; those below `_SURE` characters as whole words only, because they may be ordinary
# words or parts of them.
_SHORTEST, _SURE = 4, 8

_secrets: set[str] = set()
_compiled: list[re.Pattern[str] | None] = []


def mask(text: str) -> str:
    """Returns a text with known secrets and the credentials of all URIs in it masked."""
    if not _compiled:
        _compile()
    spans = [(found.start(), found.end() - 1) for found in _USERINFO.finditer(text)]
    spans += [(found.end(1), found.end()) for found in _QUERY.finditer(text)]
    if _compiled[0] is not None:
        spans += [found.span() for found in _compiled[0].finditer(text)]
    # All are found in the original text: a known secret such as "secret" would else hide the key of `client_secret=...`.
    parts, end = [], 0
    for start, stop in sorted(spans):
        if start >= end:
            parts += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def remember(secret: str | None) -> None:
    """Registers a secret for `mask`, for example a token read from a file."""
    if secret and secret not in _secrets:
        _secrets.add(secret)
        _compiled.clear()


def names_a_secret(name: str) -> bool:
    """Returns whether a variable or option of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def holds_credentials(text: str) -> bool:
    """Returns whether a text holds a URI with a password, a token or a signature."""
    return _PASSWORD.search(text) is not None or _QUERY.search(text) is not None


def take_credentials(uri: str) -> str:
    """Returns a tracking server's URI without its credentials, which move to the variables that MLflow reads.

    A database's URI stays unchanged, because its driver reads credentials from nowhere else; its password is registered.
    """
    _remember_parts(uri)
    parts = urlsplit(uri)
    userinfo, at, host = parts.netloc.rpartition("@")
    user, colon, password = userinfo.partition(":")
    # MLflow sends both or neither.
    if not at or not (user and colon and password) or not parts.scheme.startswith("http"):
        return uri
    for name, value in zip(TRACKING_VARIABLES, (user, password), strict=True):
        os.environ[name] = unquote(value)
    _compiled.clear()
    return urlunsplit(parts._replace(netloc=host))


def take_from_environment() -> None:
    """Applies `take_credentials` to MLFLOW_TRACKING_URI."""
    if uri := os.environ.get(TRACKING_URI):
        os.environ[TRACKING_URI] = take_credentials(uri)


def tracking_variables() -> dict[str, str]:
    """Returns the variables that authenticate another process with the tracking server."""
    return {name: os.environ[name] for name in TRACKING_VARIABLES if name in os.environ}


def install() -> None:
    """Masks standard error and logs of this process from now on, and re-reads its environment variables."""
    take_from_environment()
    _compiled.clear()
    if not isinstance(sys.stderr, MaskedStream):
        sys.stderr = masked(sys.stderr)
    if not isinstance(logging.getLogRecordFactory(), _MaskedRecords):
        # Not a logging filter: libraries install their own handlers on streams that they captured earlier.
        logging.setLogRecordFactory(_MaskedRecords(logging.getLogRecordFactory()))


class MaskedStream:
    """A text stream that masks written text and delegates everything else."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the masked text and returns the length of the original, as callers expect."""
        self._stream.write(mask(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """See `write`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def masked(stream: Any) -> Any:
    """Returns a stream that masks written text; typed Any for the caller."""
    return MaskedStream(stream)


class _MaskedRecords:
    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **named: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*arguments, **named)
        try:
            text = record.getMessage()
        except Exception:  # wrong arguments, which logging reports itself
            return record
        if visible(mask(text)) != text:
            record.msg, record.args = visible(mask(text)), None
        if record.exc_info and record.exc_info[0] is not None:
            trace = logging.Formatter().formatException(record.exc_info)
            if mask(trace) != trace:
                record.exc_text = mask(trace)
        return record


def _remember_parts(uri: str) -> None:
    scheme, separator, rest = uri.partition("://")
    if not separator and re.fullmatch(r"[^/\s:]+:[^@]+@.+", uri):
        rest = uri  # the scheme is missing
    if scheme.startswith("sqlite"):  # a file name, which may contain an @
        rest = f"?{rest.partition('?')[2]}"
    # Up to the last @: a password may hold characters that are invalid in a URI, and the error for such a URI repeats it.
    user, _, password = rest.rpartition("@")[0].partition(":")
    remember(password or user)
    remember(_basic(unquote(user), unquote(password)))
    for key, value in parse_qsl(rest.partition("?")[2]):
        if re.fullmatch(_IN_QUERY, key, re.IGNORECASE):
            remember(value)
        for inner in re.findall(rf"(?:^|;){_IN_QUERY}=([^;]+)", value, re.IGNORECASE):  # ODBC connection string
            remember(inner)


def _of_variables() -> Iterator[str]:
    for name, value in os.environ.items():
        # `X_TOKEN=auto` of an unrelated program must not mask that word in every text.
        if names_a_secret(name) and (len(value) >= _SURE or name in TRACKING_VARIABLES):
            yield value
            if name.endswith("COOKIE"):
                yield from (part.partition("=")[2] for part in value.split(";"))
    yield _basic(*(os.environ.get(name, "") for name in TRACKING_VARIABLES))


def _basic(user: str, password: str) -> str:
    """Returns the HTTP basic authentication value of a name and a password."""
    return base64.b64encode(f"{user}:{password}".encode()).decode() if user and password else ""


def _compile() -> None:
    known = {form for secret in (*_secrets, *_of_variables()) for form in _forms(secret.strip()) if len(form) >= _SHORTEST}
    # Longest first, because one secret may be part of another.
    found = [_pattern(form) for form in sorted(known, key=lambda form: (-len(form), form))]
    _compiled[:] = [re.compile("|".join(found)) if found else None]


def _pattern(form: str) -> str:
    return re.escape(form) if len(form) >= _SURE else rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])"


def _forms(secret: str) -> set[str]:
    """Returns the forms of a secret in URIs, JSON, Python's messages and HTML."""
    plain = {secret, unquote(secret)}
    return plain | {form for text in plain for form in (quote(text, safe=""), quote(text), quote_plus(text), *_escaped(text))}


def _escaped(text: str) -> tuple[str, ...]:
    return json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1], html.escape(text)
