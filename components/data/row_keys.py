"""The split key of each held-out row, which the evaluation draws together: a file that ingest writes beside the summary."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np

FILE = "held_out_keys.npy"


def save_row_keys(examples_uri: str, keys: np.ndarray) -> None:
    """Writes the hash of the key of each held-out row, uint64 (n,), in the order of the split's files."""
    content = io.BytesIO()
    np.save(content, keys.astype(np.uint64), allow_pickle=False)
    with _files(examples_uri)(os.path.join(examples_uri, FILE), "wb") as file:
        file.write(content.getvalue())


def load_row_keys(examples_uri: str) -> np.ndarray:
    """Returns what `save_row_keys` wrote. Raises OSError or ValueError if it cannot be read."""
    with _files(examples_uri)(os.path.join(examples_uri, FILE), "rb") as file:
        found: np.ndarray = np.load(io.BytesIO(file.read()), allow_pickle=False)
    return found


def _files(uri: str) -> Any:
    if "://" not in uri:
        return open
    import tensorflow as tf

    return tf.io.gfile.GFile
