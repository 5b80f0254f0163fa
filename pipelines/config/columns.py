"""The config's `data.csv` and `data.columns`: how a CSV is written, and which types columns have."""

from __future__ import annotations

import codecs
from typing import Literal

from pydantic import field_validator, model_validator

from switchyard.components.config import Section


class ColumnConfig(Section):
    """The declared type of a column, in every data format.

    Attributes:
        type: `number` or `text`. A value that is no number makes its row a bad row (`data.max_bad_rows`); in a text column
            every value is kept as text, including the words that mean "missing" elsewhere.
    """

    type: Literal["number", "text"]


class CsvConfig(Section):
    """How CSV files are written.

    Stored with the model: `predict`, `drift` and `models compare` read CSVs in the same way. Refused when no file is a CSV.

    Attributes:
        separator: character between two fields.
        decimal: decimal point of numbers.
        thousands: separator between groups of three digits.
        encoding: Python's name of the text encoding, for example `latin-1`, `cp1252` or `utf-16`.
    """

    separator: str = ","
    decimal: Literal[".", ","] = "."
    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    encoding: str = "utf-8"

    @field_validator("separator")
    @classmethod
    def _one_character(cls, separator: str) -> str:
        if len(separator) != 1 or not separator.isascii() or separator in '"\r\n' or separator.isalnum():
            raise ValueError(f"{separator!r} is no separator; give one character, for example ';', '|' or \"\\t\"")
        return separator

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
            return codecs.lookup(encoding).name
        except (LookupError, ValueError):
            raise ValueError(f"{encoding!r} is no encoding of text; for example utf-8, latin-1, cp1252 or utf-16") from None

    @model_validator(mode="after")
    def _check(self) -> CsvConfig:
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}; a number could be read in two ways")
        return self
