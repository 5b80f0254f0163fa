"""Finding and opening input files: globs, formats, compression, any filesystem that Beam knows; and their fingerprint."""

from __future__ import annotations

import bz2
import glob
import gzip
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa

from switchyard.components.errors import UserError
from switchyard.components.ingest.layout import fixed_part, folder_columns
from switchyard.components.text.escaping import pattern_of

ENDINGS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}
_COMPRESSED = (".gz", ".bz2")
_MAGIC = {
    b"\x1f\x8b": ("compressed with gzip", ".gz"),
    b"BZh": ("compressed with bzip2", ".bz2"),
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", ""),
    b"\xfd7zXZ\x00": ("compressed with xz", ""),
    b"PK\x03\x04": ("a ZIP archive, as spreadsheets are", ""),
}
_CHUNK = 1 << 20
# A compressed file without content has a header at most.
_SMALL = 100


def find_files(patterns: Sequence[str], key: str = "data.path") -> list[str]:
    """Expands files, folders and globs, in a fixed order; `key` is the config's, for errors. See `list_files`.

    Raises:
        UserError: a pattern that matches nothing, or cannot be looked at.
    """
    return list_files(patterns, key).files


@dataclass(frozen=True)
class Listing:
    """Files to read, and those of the same folders that hold no rows: markers and empty parts."""

    files: list[str]
    skipped: list[str]


def list_files(patterns: Sequence[str], key: str = "data.path") -> Listing:
    """Expands files, folders (with all below) and globs. A file that is named exactly is never skipped.

    Raises:
        UserError: a pattern that matches nothing, or cannot be looked at.
    """
    files: dict[str, None] = {}
    skipped: dict[str, None] = {}
    for pattern in patterns:
        # A local name that holds glob characters is taken as it stands.
        if os.path.exists(pattern) and not os.path.isdir(pattern):
            files[pattern] = None
            continue
        matched = _local(pattern) if is_local(pattern) else _match_remote(pattern)
        without_rows = [p for p, size in matched.items() if _is_marker(p, pattern) or _is_empty(p, size)]
        good = [p for p in matched if p not in without_rows]
        if not good:
            only = f" but {listed(without_rows)}, without rows" if without_rows else ""
            raise UserError(f"{key}: no file matches {pattern}{only}. Check the path (relative ones are relative to the YAML).")
        files |= dict.fromkeys(good)
        skipped |= dict.fromkeys(without_rows)
    return Listing(list(files), [p for p in skipped if p not in files])


def listed(paths: Iterable[str], most: int = 5) -> str:
    """Returns the names of files in one line."""
    names = [os.path.basename(p) for p in paths]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _local(pattern: str) -> dict[str, int]:
    """Returns the files of a folder or glob, in order, and their sizes."""
    if os.path.isdir(pattern):
        found = _below(pattern)
    else:
        found = []
        for path in sorted(glob.glob(pattern_of(pattern), recursive=True)):
            found += _below(path) if os.path.isdir(path) and "**" not in pattern else [path]
    return {p: os.path.getsize(p) if os.path.exists(p) else 0 for p in found if not os.path.isdir(p)}


def _below(folder: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(folder), "**"), recursive=True, include_hidden=True))


def _is_marker(path: str, pattern: str) -> bool:
    """Spark's and Hive's rule: what begins with '_' or '.' is no data, unless the pattern itself is about such names."""
    parts = path[len(fixed_part(pattern)) :].split("/")
    wanted = pattern.rpartition("/")[2][:1] if glob.has_magic(pattern) else ""
    hidden = [p for p in parts if p.startswith((".", "_")) and "=" not in p and p[0] != wanted]
    return bool(hidden) or path.endswith(".crc")


def _is_empty(path: str, size: int) -> bool:
    """A part without a byte, or one that decompresses to none."""
    if size > _SMALL or not path.lower().endswith(_COMPRESSED):
        return not size
    try:
        with open_file(path) as file:
            return not file.read(1)
    except (EOFError, OSError):
        return False  # whoever reads it says what is wrong with it


def is_local(path: str) -> bool:
    """Whether a path is no URI."""
    return "://" not in path


def _match_remote(pattern: str) -> dict[str, int]:
    from apache_beam.io.filesystems import FileSystems

    try:
        found = FileSystems.match([pattern])[0].metadata_list
        if not found and not glob.has_magic(pattern):
            found = FileSystems.match([f"{pattern.rstrip('/')}/**"])[0].metadata_list
        return {m.path: m.size_in_bytes for m in sorted(found, key=lambda m: str(m.path))}
    except Exception as error:  # Beam raises whatever the filesystem's own client raises.
        raise UserError(f"data.path: cannot look for {pattern}: {error}") from error


def format_of(path: str, declared: str) -> str:
    """Returns csv, parquet, jsonl or tfrecord: what was declared, else by the name's ending.

    Raises:
        UserError: the ending says nothing.
    """
    if declared != "auto":
        return declared
    name = path.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    for ending, kind in ENDINGS.items():
        if name.endswith(ending):
            return kind
    raise UserError(
        f"data.format: cannot tell the format of {path} by its name; allowed endings: {', '.join(ENDINGS)} (also .gz). "
        "Set data.format to csv, parquet, jsonl or tfrecord."
    )


def open_file(path: str) -> BinaryIO:
    """Opens for reading, decompressed by its ending.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if is_local(path):
            openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
            return cast(BinaryIO, openers.get(os.path.splitext(path.lower())[1], open)(path, "rb"))
        from apache_beam.io.filesystems import FileSystems

        file = FileSystems.open(path)
    except PermissionError:
        raise UserError(f"data.path: not allowed to read {path}. Check its permissions.") from None
    except Exception as error:  # see find_files
        raise UserError(f"data.path: cannot open {path}: {error}") from error
    return cast(BinaryIO, file if isinstance(file, io.IOBase) else io.BufferedReader(_Raw(file), _CHUNK))


def check_compression(path: str, head: bytes) -> None:
    """Refuses a file whose first bytes are those of a compressed one: its name did not say so, and it is read as it is.

    Raises:
        UserError: see above.
    """
    for begin, (what, ending) in _MAGIC.items():
        if head.startswith(begin):
            advice = f"give it the ending {ending}" if ending in _COMPRESSED else "unpack it, or compress it with gzip (.gz)"
            raise UserError(f"data.path: {path} is {what}, and its name does not say so. To have it read, {advice}.")


@contextmanager
def arrow_stream(path: str) -> Iterator[Any]:
    """Opens for Arrow's CSV reader, which reads ahead in a thread of its own.

    That thread must hold nothing of Python's when the interpreter ends: it would abort the process. So Arrow reads local
    files alone, by itself; any other one is copied to a temporary file first.

    Raises:
        UserError: it cannot be read.
    """
    file = open_file(path)
    if is_local(path):
        file.close()
        kind = {".gz": "gzip", ".bz2": "bz2"}.get(os.path.splitext(path.lower())[1])
        native = pa.OSFile(path)
        yield pa.CompressedInputStream(native, kind) if kind else native
        return
    with tempfile.NamedTemporaryFile(prefix="switchyard-", suffix=".csv") as copy:
        with file:
            shutil.copyfileobj(file, copy, _CHUNK)
        copy.flush()
        yield pa.OSFile(copy.name)


class _Raw(io.RawIOBase):
    """Beam's decompressing file is no `io` object (its `closed` is a method): give it the interface that Arrow takes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def fingerprint(paths: Iterable[str]) -> str:
    """Returns a SHA-256 over names and contents (local) or names, sizes and the store's checksums (elsewhere)."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.path.basename(path).encode())
        # A file that moves to another of these folders has other values in a column.
        digest.update("".join(f"{k}={v}/" for k, v in folder_columns(path).items()).encode())
        if os.path.exists(path):
            _hash_local(path, digest)
        else:
            from apache_beam.io.filesystems import FileSystems

            digest.update(str(FileSystems.checksum(path)).encode())
    return digest.hexdigest()


def _hash_local(path: str, digest: Any) -> None:
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except PermissionError:
        raise UserError(f"data.path: not allowed to read {path}. Check its permissions.") from None
