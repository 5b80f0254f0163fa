"""CSV dialect: separator, encoding and number format."""

from __future__ import annotations

import codecs
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.ingest.sources import TSV, arrow_stream, check_compression, ending_of, open_file
from switchyard.components.values.cells import is_text
from switchyard.components.values.spelling import NUMBER

_CHUNK = 1 << 20
_SPACES = " \u00a0\u202f"  # typists and programs use any of these between thousands
_PLAIN = rf"^\s*{NUMBER}\s*$"
# The UTF-32 byte order mark begins with that of UTF-16, so it is tested first.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Files without a byte order mark: Latin letters alternate with NUL bytes.
_UNMARKED = {"utf-16-le": re.compile(rb"([^\0]\0){2}"), "utf-16-be": re.compile(rb"(\0[^\0]){2}")}


@dataclass(frozen=True)
class CsvOptions:
    """Parsed `data.csv` section, see docs/configuration.md.

    Attributes:
        separator: character between two fields; None: a tab in files that end in `.tsv`, in others a comma.
        decimal: decimal point.
        thousands: separator between groups of three digits; None for no separator.
        encoding: Python's name of the text encoding.
    """

    separator: str | None = None
    decimal: str = "."
    thousands: str | None = None
    encoding: str = "utf-8"

    @classmethod
    def of(cls, changed: Mapping[str, Any]) -> CsvOptions:
        """Returns the default options with the given overrides."""
        return cls(**changed)

    def changed(self) -> dict[str, Any]:
        """Returns the options that differ from the defaults."""
        return {k: v for k, v in asdict(self).items() if v != getattr(DEFAULTS, k)}

    def separator_of(self, path: str) -> str:
        """Returns the character between two fields of a file."""
        return self.separator or ("\t" if ending_of(path) == TSV else ",")

    @property
    def is_utf8(self) -> bool:
        """True when the bytes need no transcoding."""
        return codecs.lookup(self.encoding).name in ("utf-8", "utf-8-sig")

    @property
    def changes_numbers(self) -> bool:
        """True when the number format differs from the default."""
        return self.decimal != "." or self.thousands is not None

    def numbers(self, column: pa.Array) -> pa.Array:
        """Returns a column with its numbers in the default format: no thousands separators, a decimal point.

        Other values stay unchanged, except that a text that is a number only in the default format is wrapped in quotes, so
        that no parser reads 1.234 as a number with another value.
        """
        if not self.changes_numbers or not is_text(column.type):
            return column
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        digits = pc.replace_substring_regex(text, _class_of(self.thousands), "") if self.thousands else text
        plain = pc.replace_substring(digits, self.decimal, ".")
        other = pc.if_else(pc.match_substring_regex(text, _PLAIN), pc.binary_join_element_wise("'", text, "'", ""), text)
        return pc.if_else(pc.match_substring_regex(text, self._pattern()), plain, other)

    def _pattern(self) -> str:
        point = re.escape(self.decimal)
        grouped = rf"[0-9]{{1,3}}({_class_of(self.thousands)}[0-9]{{3}})+|" if self.thousands else ""
        return rf"^[+-]?(({grouped}[0-9]+)({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?$"


DEFAULTS = CsvOptions()


@contextmanager
def csv_stream(path: str, options: CsvOptions) -> Iterator[Any]:
    """Opens a CSV as a UTF-8 stream for Arrow's reader.

    Other encodings are decoded to a temporary file first: Arrow would call Python's codec from its own thread, see
    `arrow_stream`.

    Raises:
        UserError: the file cannot be read or does not decode.
    """
    if options.is_utf8:
        with arrow_stream(path) as stream:
            yield stream
        return
    with tempfile.NamedTemporaryFile(prefix="switchyard-", suffix=".csv") as copy:
        for text in _decoded(path, options.encoding):
            copy.write(text.encode("utf-8", "surrogatepass"))
        copy.flush()
        yield pa.OSFile(copy.name)


def csv_head(path: str, options: CsvOptions, size: int) -> tuple[str, bool]:
    """Returns the first `size` bytes of a CSV as text, and whether more follows.

    Raises:
        UserError: the first line does not decode.
    """
    with open_file(path) as raw:
        head = raw.read(size)
        is_cut = bool(raw.read(1))
    check_compression(path, head)
    mark = marked(head)
    if mark and options.is_utf8 and mark != "utf-8":
        raise UserError(f"data.path: {path} is {mark.upper()}, not UTF-8. Set data.csv.encoding: {mark}.")
    # A character cut at the end of the head is no error; an undecodable one in the first line is.
    text = head.decode("utf-8-sig" if options.is_utf8 else options.encoding, errors="replace")
    if "\ufffd" in text.partition("\n")[0]:
        raise UserError(f"data.path: {undecodable(path, options)}")
    return text, is_cut


def marked(head: bytes) -> str | None:
    """Returns the encoding implied by a file's first bytes: byte order mark or NUL pattern; None when there is neither."""
    by_mark = [name for mark, name in _MARKS.items() if head.startswith(mark)]
    return next(iter([*by_mark, *(name for name, pattern in _UNMARKED.items() if pattern.match(head))]), None)


def undecodable(path: str, options: CsvOptions) -> str:
    """Returns where a file does not decode, with the config key that sets the encoding."""
    before = 0
    lines = 1
    decoder = codecs.getincrementaldecoder(options.encoding)()
    with open_file(path) as raw:
        while True:
            chunk = raw.read(_CHUNK)
            pending = len(decoder.getstate()[0])
            try:
                lines += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeError as error:
                other = "Set data.csv.encoding to its encoding, for example latin-1 or cp1252."
                if not isinstance(error, UnicodeDecodeError):  # no position: UTF-16 without a byte order mark
                    return f"{path} is not {options.encoding} text: {error}. {other}"
                lines += error.object[: error.start].count(b"\n")
                place = before - pending + error.start
                return (
                    f"{path} is not {options.encoding} text: byte {error.object[error.start]:#04x} at offset {place:,}, "
                    f"line {lines:,}. {other}"
                )
            if not chunk:
                return f"{path} is {options.encoding} text"
            before += len(chunk)


def _decoded(path: str, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    with open_file(path) as raw:
        while True:
            chunk = raw.read(_CHUNK)
            try:
                yield decoder.decode(chunk, final=not chunk)
            except UnicodeError:
                raise UserError(f"data.path: {undecodable(path, CsvOptions(encoding=encoding))}") from None
            if not chunk:
                return


def _class_of(thousands: str | None) -> str:
    separator = thousands or ""
    return f"[{_SPACES}]" if separator in _SPACES else re.escape(separator)
