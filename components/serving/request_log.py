"""Logs a sample of requests and predictions as Parquet for `switchyard drift`, off by default, without delaying requests."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from switchyard.components.bundle.model import BundleInfo, Columns, Ragged, format_predictions
from switchyard.components.errors import UserError
from switchyard.components.serving.served_model import ServedModel

_ROWS, _SECONDS, _MOST_ROWS = 5_000, 30.0, 100_000
# Of columns of bytes, such as images.
_BYTES, _MOST_BYTES = 64 << 20, 512 << 20
TIME, VERSION = "switchyard_time", "switchyard_version"
_log = logging.getLogger(__name__)


class RequestLog:
    """A buffer of sampled requests that a thread writes as Parquet files, each under a temporary name first.

    Args:
        folder: folder of the files; created if missing.
        share: share of requests to log, 0 to 1.
        redacted: raw features that are never written.
        dropped: called with the number of rows that were lost because the disk is too slow or full.

    Raises:
        UserError: the folder is not writable.
    """

    def __init__(self, folder: Path, share: float, redacted: Collection[str], dropped: Callable[[int], None]) -> None:
        self._folder, self._share, self._redacted, self._dropped = folder, share, frozenset(redacted), dropped
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = folder / f".{os.getpid()}.probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"--request-log: cannot write to {folder}: {error.strerror}.") from None
        self._random = random.Random()
        self._kept: list[tuple[ServedModel, Columns, np.ndarray, float]] = []
        self._rows = self._bytes = 0
        self._lock = threading.Lock()
        self._wake, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="request-log", daemon=True)
        self._thread.start()

    def add(self, model: ServedModel, columns: Columns, scores: np.ndarray) -> None:
        """Buffers a random sample of requests."""
        if self._random.random() >= self._share:
            return
        columns = {name: column for name, column in columns.items() if name not in self._redacted}
        size = sum(_size(columns[f.name]) for f in model.info.features if f.is_bytes and f.name in columns)
        with self._lock:
            if self._rows + len(scores) > _MOST_ROWS or self._bytes + size > _MOST_BYTES:
                self._dropped(len(scores))
                return
            self._kept.append((model, columns, scores, time.time()))
            self._rows, self._bytes = self._rows + len(scores), self._bytes + size
            if self._rows >= _ROWS or self._bytes >= _BYTES:
                self._wake.set()

    def close(self) -> None:
        """Writes the buffered requests and stops the thread."""
        self._over = True
        self._wake.set()
        self._thread.join(30)

    def _work(self) -> None:
        while not self._over:
            self._wake.wait(_SECONDS)
            self._wake.clear()
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, []
            self._rows = self._bytes = 0
        for version in dict.fromkeys(model.version for model, *_ in kept):
            mine = [k for k in kept if k[0].version == version]
            name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}.parquet"
            draft = self._folder / f".{name}.tmp"
            try:
                table = pa.concat_tables([_table(m.info, version, c, s, at, self._redacted) for m, c, s, at in mine])
                pa.parquet.write_table(table, draft)
                os.replace(draft, self._folder / name)
            except (OSError, pa.ArrowException):
                self._dropped(sum(len(s) for _, _, s, _ in mine))
                _log.exception("the request log could not be written")
                draft.unlink(missing_ok=True)


def _table(
    info: BundleInfo, version: str, columns: Columns, scores: np.ndarray, at: float, redacted: Collection[str]
) -> pa.Table:
    found: dict[str, Any] = {TIME: pa.array([at] * len(scores), pa.float64()), VERSION: pa.array([version] * len(scores))}
    for feature in info.features:
        if feature.name not in redacted:
            text = pa.binary() if feature.is_bytes else pa.string()
            kind = {"string": text, "int64": pa.int64(), "float32": pa.float32()}[feature.dtype]
            found[feature.name] = _array(columns[feature.name], kind, is_list=feature.is_list)
    # A feature can have the name of a prediction's column. The feature then takes precedence.
    found |= {k: pa.array(v.tolist() if v.ndim > 1 else v) for k, v in format_predictions(info, scores).items() if k not in found}
    return pa.table(found)


def _size(column: np.ndarray | Ragged) -> int:
    """Returns the number of bytes of a column of bytes."""
    values: Any = column.values if isinstance(column, Ragged) else column.ravel()
    return sum(map(len, values))


def _array(column: np.ndarray | Ragged, kind: pa.DataType, *, is_list: bool) -> pa.Array:
    values: Any = column.values if isinstance(column, Ragged) else column.ravel()
    if pa.types.is_string(kind):
        values = [v.decode("utf-8", "replace") for v in values]
    cells = pa.array(values, kind)
    if isinstance(column, Ragged):
        offsets = np.concatenate([[0], np.cumsum(column.lengths)]).astype(np.int32)
        if is_list:
            return pa.ListArray.from_arrays(offsets, cells, mask=pa.array(column.lengths == 0))
        places = np.where(column.lengths > 0, offsets[:-1], -1)
        return cells.take(pa.array(places, pa.int32(), mask=places < 0))
    if column.shape[1] == 1:
        return cells
    return pa.ListArray.from_arrays(np.arange(0, len(cells) + 1, column.shape[1], dtype=np.int32), cells)
