"""Secrets stay out of what is written: credentials leave a tracking server's address, and one filter masks every text.

MLflow's own errors repeat the address that they were given, with its password. A server's credentials therefore go to the
variables that MLflow reads; a database's cannot, and are masked wherever a text is written (logs, errors, JSON, journal, MLflow).
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
_IN_QUERY = r"(?:ssl)?(?:password|passwd|pwd|token|access_token|secret|api_key)"
_QUERY = re.compile(rf"([?&;]{_IN_QUERY}=)[^&;\s'\"]+", re.IGNORECASE)
_SECRET_NAME = re.compile(r"(password|passwd|_pwd|(^|_)(token|cookie|secret|secret_key|access_key|api_key))$", re.IGNORECASE)
# A shorter secret is masked in addresses alone, one of fewer than `_SURE` characters as a word of its own alone: it may be
# any word or a part of it.
_SHORTEST, _SURE = 4, 8

_secrets: set[str] = set()
_compiled: list[re.Pattern[str] | None] = []


def mask(text: str) -> str:
    """Returns a text without the secrets that are known, and without the credentials of any address in it."""
    if not _compiled:
        _compile()
    if _compiled[0] is not None:
        text = _compiled[0].sub(MASK, text)
    return _QUERY.sub(rf"\g<1>{MASK}", _USERINFO.sub(f"{MASK}@", text))


def remember(secret: str | None) -> None:
    """Has `mask` know a secret from now on (a token that was read from a file, say)."""
    if secret and secret not in _secrets:
        _secrets.add(secret)
        _compiled.clear()


def names_a_secret(name: str) -> bool:
    """Whether a variable or an option of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def take_credentials(uri: str) -> str:
    """Returns a tracking server's address without its credentials, which go to the variables that MLflow reads.

    The address of a database stays as it is, since its driver takes them from nowhere else; its password is remembered.
    """
    _remember_parts(uri)
    parts = urlsplit(uri)
    userinfo, at, host = parts.netloc.rpartition("@")
    user, colon, password = userinfo.partition(":")
    # MLflow sends either both or none.
    if not at or not (user and colon and password) or not parts.scheme.startswith("http"):
        return uri
    for name, value in zip(TRACKING_VARIABLES, (user, password), strict=True):
        os.environ[name] = unquote(value)
    _compiled.clear()
    return urlunsplit(parts._replace(netloc=host))


def take_from_environment() -> None:
    """Does the same for MLFLOW_TRACKING_URI."""
    if uri := os.environ.get(TRACKING_URI):
        os.environ[TRACKING_URI] = take_credentials(uri)


def tracking_variables() -> dict[str, str]:
    """Returns those of this process's variables by which another one is let in by the tracking server."""
    return {name: os.environ[name] for name in TRACKING_VARIABLES if name in os.environ}


def install() -> None:
    """Masks what this process writes to standard error and logs from now on, and looks at its variables again."""
    take_from_environment()
    _compiled.clear()
    if not isinstance(sys.stderr, MaskedStream):
        sys.stderr = masked(sys.stderr)
    if not isinstance(logging.getLogRecordFactory(), _MaskedRecords):
        # Not a filter: libraries make handlers of their own, on streams that they have taken before.
        logging.setLogRecordFactory(_MaskedRecords(logging.getLogRecordFactory()))


class MaskedStream:
    """A text stream that masks what is written to it, and is the stream in all else."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Returns the length of what was given, as callers expect."""
        self._stream.write(mask(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """See `write`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def masked(stream: Any) -> Any:
    """Returns a stream that masks what is written to it; typed as its caller needs."""
    return MaskedStream(stream)


class _MaskedRecords:
    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **named: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*arguments, **named)
        try:
            text = record.getMessage()
        except Exception:  # a call with wrong arguments, which logging reports
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
        rest = uri  # its scheme was forgotten
    if scheme.startswith("sqlite"):  # a file's name, which nothing keeps from holding an @
        rest = f"?{rest.partition('?')[2]}"
    # Up to the last @: a password may hold what it should not, and its address then fails with a text that repeats it.
    user, _, password = rest.rpartition("@")[0].partition(":")
    remember(password or user)
    remember(_basic(unquote(user), unquote(password)))
    for key, value in parse_qsl(rest.partition("?")[2]):
        if re.fullmatch(_IN_QUERY, key, re.IGNORECASE):
            remember(value)
        for inner in re.findall(rf"(?:^|;){_IN_QUERY}=([^;]+)", value, re.IGNORECASE):  # ODBC's
            remember(inner)


def _of_variables() -> Iterator[str]:
    for name, value in os.environ.items():
        # `X_TOKEN=auto` of something else must not take that word out of every text.
        if names_a_secret(name) and (len(value) >= _SURE or name in TRACKING_VARIABLES):
            yield value
            if name.endswith("COOKIE"):
                yield from (part.partition("=")[2] for part in value.split(";"))
    yield _basic(*(os.environ.get(name, "") for name in TRACKING_VARIABLES))


def _basic(user: str, password: str) -> str:
    """What HTTP makes of a name and a password."""
    return base64.b64encode(f"{user}:{password}".encode()).decode() if user and password else ""


def _compile() -> None:
    known = {form for secret in (*_secrets, *_of_variables()) for form in _forms(secret.strip()) if len(form) >= _SHORTEST}
    # The longest first: one may be a part of another.
    found = [_pattern(form) for form in sorted(known, key=lambda form: (-len(form), form))]
    _compiled[:] = [re.compile("|".join(found)) if found else None]


def _pattern(form: str) -> str:
    return re.escape(form) if len(form) >= _SURE else rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])"


def _forms(secret: str) -> set[str]:
    """A secret as it stands in addresses, JSON, Python's messages and HTML."""
    plain = {secret, unquote(secret)}
    return plain | {form for text in plain for form in (quote(text, safe=""), quote(text), quote_plus(text), *_escaped(text))}


def _escaped(text: str) -> tuple[str, ...]:
    return json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1], html.escape(text)
