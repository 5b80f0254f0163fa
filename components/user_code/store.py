"""Copies files into a folder of snapshots, to places named by their contents."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from switchyard.components.errors import CHECK_PATH, UserError

# Bytes from which a file is hashed once per process and state, such as a model's weights.
_LARGE = 4 << 20


def stored(contents: Mapping[str, Path | bytes], store: Path, key: str) -> Path:
    """Writes files to `store/<hash of their contents>/`, unless it exists, and returns this folder.

    Args:
        contents: relative path -> file to copy, or content.
        store: folder of snapshots.
        key: config key for the error.

    Raises:
        UserError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(name.encode() + b"\0" + (content if isinstance(content, bytes) else _hashable(content, key)))
    target = store / digest.hexdigest()[:16]
    if not target.exists():
        store.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=store))
        for name, content in contents.items():
            copy = temporary / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                copy.write_bytes(content)
            else:
                shutil.copyfile(content, copy)
        try:
            os.replace(temporary, target)
        except OSError:  # a concurrent run created it: same hash, same content
            shutil.rmtree(temporary)
    return target


def _hashable(path: Path, key: str) -> bytes:
    """Returns a file's content; of a large one a digest, which a run needs several times and computes once."""
    try:
        status = path.stat()
    except OSError:
        return read(path, key)  # raises the error
    return _digest(path, status.st_mtime_ns) if status.st_size > _LARGE else read(path, key)


@lru_cache
def _digest(path: Path, changed: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read(path: Path, key: str) -> bytes:
    """Returns a file's content. Raises UserError, which names the config key, if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{key}: {path}: no such file. {CHECK_PATH}") from None
    except IsADirectoryError:
        raise UserError(f"{key}: {path} is a folder; give a file.") from None
    except PermissionError:
        raise UserError(f"{key}: not allowed to read {path}. Check its permissions.") from None
    except OSError as error:
        raise UserError(f"{key}: {path}: cannot be read: {error.strerror}. Check the path.") from None
