"""Serialized examples in TFRecord files of bounded size."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

SHARD_ROWS = 50_000


class ShardWriter:
    """Writes `<folder>/<name>-<i>`, a new file every `SHARD_ROWS` rows. The files are not final: see `rename`."""

    def __init__(self, folder: str, name: str) -> None:
        import tensorflow as tf

        # TensorFlow's files: the artifact may lie in an object store.
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
        """Finishes the last file and returns all of them."""
        if self._writer:
            self._writer.close()
        return self._parts

    def _next(self) -> None:
        self.close()
        self._parts.append(os.path.join(self._folder, f"{self._name}-{len(self._parts):05d}"))
        self._writer = self._open(self._parts[-1])


def rename(parts: list[str], prefix: str, suffix: str = "") -> list[str]:
    """Gives finished files their final names `<prefix>-<i>-of-<n><suffix>`, and returns these. It may be done again."""
    import tensorflow as tf

    names = [f"{prefix}-{i:05d}-of-{len(parts):05d}{suffix}" for i in range(len(parts))]
    for part, name in zip(parts, names, strict=True):
        # On a second try some have their name already.
        if tf.io.gfile.exists(part):
            tf.io.gfile.rename(part, name, overwrite=True)
    return names
