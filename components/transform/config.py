"""Config section `tokenizer`."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from switchyard.components.config import Names, Section


class TokenizerConfig(Section):
    """The user's tokenizer.

    Attributes:
        code: `file.py` with `build_tokenizer(spec)`, or `file.py:function`.
        columns: columns of text for the tokenizer when `preprocessing` is the default one, which makes features of the others.
            Default: all columns of text. A `preprocessing_fn` of your own passes the texts that it returns.
    """

    code: str
    columns: Names = ()

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"code": value} if isinstance(value, str) else value
