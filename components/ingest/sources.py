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
from typing import Any, BinaryIO, cast

import pyarrow as pa

from components.errors import UserError
from components.escaping import pattern_of

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
_CHUNK = 1 << 20


def find_files(patterns: Sequence[str], key: str = "data.path") -> list[str]:
    """Expands files and globs, in a fixed order; `key` is the config's, for errors.

    Raises:
        UserError: a pattern that matches nothing, or cannot be looked at.
    """
    found: list[str] = []
    for pattern in patterns:
        if os.path.isdir(pattern):
            raise UserError(f"{key}: {pattern} is a folder; give its files, for example {pattern.rstrip('/')}/*.csv")
        # A local name that holds glob characters is taken as it stands.
        if os.path.exists(pattern):
            matched = [pattern]
        else:
            matched = sorted(glob.glob(pattern_of(pattern), recursive=True)) if is_local(pattern) else _match_remote(pattern)
        if not matched:
            raise UserError(f"{key}: no file matches {pattern}. Check the path (relative ones are relative to the YAML).")
        found += matched
    return list(dict.fromkeys(found))


def is_local(path: str) -> bool:
    """Whether a path is no URI."""
    return "://" not in path


def _match_remote(pattern: str) -> list[str]:
    from apache_beam.io.filesystems import FileSystems

    try:
        return sorted(m.path for m in FileSystems.match([pattern])[0].metadata_list)
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
