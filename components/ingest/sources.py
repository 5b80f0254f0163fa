"""Finds, opens and fingerprints input files: globs, formats, compression and all Beam filesystems."""

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

from switchyard.components.errors import CHECK_PATH, UserError
from switchyard.components.ingest.layout import fixed_part, folder_columns
from switchyard.components.ingest.stores import concurrently, file_systems, match
from switchyard.components.text.escaping import pattern_of

# A CSV whose separator is a tab unless `data.csv.separator` names another.
TSV = ".tsv"
ENDINGS = {
    ".csv": "csv",
    TSV: "csv",
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
# Upper bound in bytes of a compressed file without content, which holds a header only.
_SMALL = 100


def find_files(patterns: Sequence[str], key: str = "data.path") -> list[str]:
    """Returns the files that files, folders and globs expand to, in a fixed order, see `list_files`.

    Args:
        patterns: files, folders and globs.
        key: config key for errors.

    Raises:
        UserError: a pattern matches nothing or cannot be listed.
    """
    return list_files(patterns, key).files


@dataclass(frozen=True)
class Listing:
    """Files to read, and skipped files without rows in the same folders: markers and empty parts."""

    files: list[str]
    skipped: list[str]


def list_files(patterns: Sequence[str], key: str = "data.path") -> Listing:
    """Returns the files that files, folders (recursively) and globs expand to. An exactly named file is never skipped.

    Raises:
        UserError: a pattern matches nothing or cannot be listed.
    """
    files: dict[str, None] = {}
    skipped: dict[str, None] = {}
    for pattern in patterns:
        # An existing local file is taken literally, even with glob characters in its name.
        if os.path.exists(pattern) and not os.path.isdir(pattern):
            files[pattern] = None
            continue
        matched = _local(pattern) if is_local(pattern) else match(pattern)
        without_rows = [p for p, size in matched.items() if _is_marker(p, pattern) or _is_empty(p, size)]
        good = [p for p in matched if p not in without_rows]
        if not good:
            only = f" but {listed(without_rows)}, without rows" if without_rows else ""
            # Keys of the config have a dot, arguments none.
            advice = CHECK_PATH if "." in key else "Check the path (relative ones are relative to the working directory)."
            raise UserError(f"{key}: no file matches {pattern}{only}. {advice}")
        files |= dict.fromkeys(good)
        skipped |= dict.fromkeys(without_rows)
    return Listing(list(files), [p for p in skipped if p not in files])


def listed(paths: Iterable[str], most: int = 5) -> str:
    """Returns the names of the first `most` files in one line."""
    names = [os.path.basename(p) for p in paths]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _local(pattern: str) -> dict[str, int]:
    """Returns the files of a folder or glob, in order, with their sizes in bytes."""
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
    """Returns whether a file is a marker by Spark's and Hive's rule: a leading '_' or '.', unless the glob starts with it."""
    parts = path[len(fixed_part(pattern)) :].split("/")
    wanted = pattern.rpartition("/")[2][:1] if glob.has_magic(pattern) else ""
    hidden = [p for p in parts if p.startswith((".", "_")) and "=" not in p and p[0] != wanted]
    return bool(hidden) or path.endswith(".crc")


def _is_empty(path: str, size: int) -> bool:
    """Returns whether a part has no bytes or decompresses to none."""
    if size > _SMALL or not path.lower().endswith(_COMPRESSED):
        return not size
    try:
        with open_file(path) as file:
            return not file.read(1)
    except (EOFError, OSError):
        return False  # the reader reports the error


def is_local(path: str) -> bool:
    """Returns whether a path is not a URI."""
    return "://" not in path


def format_of(path: str, declared: str) -> str:
    """Returns csv, parquet, jsonl or tfrecord: the declared format, or the one inferred from the file name's ending.

    Raises:
        UserError: the ending is unknown.
    """
    if declared != "auto":
        return declared
    if ending := ending_of(path):
        return ENDINGS[ending]
    if path.lower().endswith((".png", ".jpg", ".jpeg")):
        raise UserError(
            f"data.path: {path} is a picture, and rows are read from {', '.join(ENDINGS)}; name the pictures in a column of such "
            "a file (docs/text.md), or run: switchyard run --data FOLDER --label NAME, with a folder per class in FOLDER"
        )
    raise UserError(
        f"data.format: cannot infer the format of {path} from its name; allowed endings: {', '.join(ENDINGS)} (also .gz). "
        "Set data.format to csv, parquet, jsonl or tfrecord."
    )


def ending_of(path: str) -> str:
    """Returns the ending of `ENDINGS` that a file's name has, before that of a compression; empty for none."""
    name = path.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return next((ending for ending in ENDINGS if name.endswith(ending)), "")


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading in binary; a .gz or .bz2 ending decompresses it.

    Raises:
        UserError: the file cannot be opened.
    """
    try:
        if is_local(path):
            openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
            return cast(BinaryIO, openers.get(os.path.splitext(path.lower())[1], open)(path, "rb"))
        file = file_systems().open(path)
    except PermissionError:
        raise UserError(f"data.path: not allowed to read {path}. Check its permissions.") from None
    except Exception as error:  # Beam raises any exception of the filesystem's client
        raise UserError(f"data.path: cannot open {path}: {error}") from error
    return cast(BinaryIO, file if isinstance(file, io.IOBase) else io.BufferedReader(_Raw(file), _CHUNK))


def check_compression(path: str, head: bytes) -> None:
    """Checks that a file's first bytes are not those of a compressed file that its name does not declare.

    Raises:
        UserError: the file is compressed.
    """
    for begin, (what, ending) in _MAGIC.items():
        if head.startswith(begin):
            advice = (
                f"rename it with the ending {ending}" if ending in _COMPRESSED else "unpack it, or compress it with gzip (.gz)"
            )
            raise UserError(f"data.path: {path} is {what}, but its name has another ending; {advice}.")


@contextmanager
def arrow_stream(path: str) -> Iterator[Any]:
    """Opens a file for Arrow's CSV reader, which reads ahead in its own thread.

    That thread must hold no Python object at interpreter shutdown, which would abort the process. Arrow therefore opens local
    files itself; any other file is copied to a temporary file first.

    Raises:
        UserError: the file cannot be opened.
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
    """Adapter from Beam's decompressing file, which is no `io` object (its `closed` is a method), to the raw `io` interface."""

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
    """Returns a SHA-256 of names and contents (local files) or names and the store's checksums (remote files).

    Raises:
        UserError: a file cannot be read.
    """
    digest, paths = hashlib.sha256(), list(paths)
    remote = [p for p in paths if not os.path.exists(p)]
    checksums = dict(zip(remote, concurrently(_checksum, remote), strict=True)) if remote else {}
    for path in paths:
        digest.update(os.path.basename(path).encode())
        # Folder names are values of folder columns, so moving a file between such folders changes the data.
        digest.update("".join(f"{k}={v}/" for k, v in folder_columns(path).items()).encode())
        if path in checksums:
            digest.update(checksums[path].encode())
        else:
            _hash_local(path, digest)
    return digest.hexdigest()


def _checksum(path: str) -> str:
    try:
        return str(file_systems().checksum(path))
    except Exception as error:  # Beam raises any exception of the filesystem's client
        raise UserError(
            f"data.path: cannot look up the checksum of {path}: {error}. Check that the file exists, and that it may be read."
        ) from error


def _hash_local(path: str, digest: Any) -> None:
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except PermissionError:
        raise UserError(f"data.path: not allowed to read {path}. Check its permissions.") from None
