"""Writes serialized examples to TFRecord files of bounded size."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

SHARD_ROWS = 50_000


class ShardWriter:
    """A writer of `<folder>/<name>-<i>`, with a new file every `SHARD_ROWS` rows. The names are temporary, see `rename`."""

    def __init__(self, folder: str, name: str) -> None:
        import tensorflow as tf

        # TensorFlow's file API, because the artifact may be in an object store.
        self._open, self._files = tf.io.TFRecordWriter, tf.io.gfile
        self._folder, self._name = folder, name
        self._files.makedirs(folder)
        self.rows = 0
        self._writer: Any = None
        self._parts: list[str] = []

    def write(self, records: Iterable[bytes]) -> None:
        """Appends records."""
        for record in records:
            if self.rows % SHARD_ROWS == 0:
                self._next()
            self._writer.write(record)
            self.rows += 1

    def close(self) -> list[str]:
        """Closes the last file and returns the paths of all files."""
        if self._writer:
            self._writer.close()
        return self._parts

    def _next(self) -> None:
        self.close()
        self._parts.append(os.path.join(self._folder, f"{self._name}-{len(self._parts):05d}"))
        self._writer = self._open(self._parts[-1])


def rename(parts: list[str], prefix: str, suffix: str = "") -> list[str]:
    """Renames finished files to `<prefix>-<i>-of-<n><suffix>` and returns the new paths. Safe to repeat."""
    import tensorflow as tf

    names = [f"{prefix}-{i:05d}-of-{len(parts):05d}{suffix}" for i in range(len(parts))]
    for part, name in zip(parts, names, strict=True):
        # On a retry, some files have already been renamed.
        if tf.io.gfile.exists(part):
            tf.io.gfile.rename(part, name, overwrite=True)
    return names
