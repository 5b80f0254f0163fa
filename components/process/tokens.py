"""Reads tokens for HTTP headers: rejects texts that a header cannot carry, and never writes a token to output."""

from __future__ import annotations

import re
from pathlib import Path

from switchyard.components.errors import UserError
from switchyard.components.text.redaction import remember

_TOKEN = re.compile(r"[\x21-\x7e]+")


def token_in(text: str, where: str) -> str:
    """Returns the token in the text of a file or variable, without surrounding white space.

    Raises:
        UserError: there is no token, several, or one that no header can carry; the message does not contain it.
    """
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        held = "is empty" if not token else "holds something else"
        raise UserError(f"{where} {held}: it must hold one token, printable ASCII without spaces.")
    remember(token)
    return token


def read_token(file: Path, option: str) -> str:
    """Returns the token in a file.

    Raises:
        UserError: the file cannot be read, or see `token_in`.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{option}: cannot read {file}: {error.strerror}.") from None
    except UnicodeDecodeError:
        text = "not UTF-8"
    return token_in(text, f"{option}: {file}")
