"""One bundle, served and asked: does it answer what it answers offline?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from switchyard.components.bundle.model import BundleInfo, RawFeature, format_predictions, load_bundle
from switchyard.components.bundle.rows import to_frame
from switchyard.components.errors import StageError
from switchyard.components.evaluation.servability import Servability
from switchyard.components.infra_validation.server_process import ServerProcess, server_process
from switchyard.components.serving.client import from_records, from_tensors, records, scores_in, tensors

TOLERANCE = 1e-5
_BATCH = 50
_Ask = Callable[[pd.DataFrame], dict[str, list[Any]]]


def check(bundle: str, digest: str | None, serialized: Sequence[bytes], log: Path, patience_seconds: float) -> Servability:
    """Starts a bundle's server, sends it rows one by one and in batches, and compares with the bundle's own scores.

    Args:
        bundle: folder of the MLflow Model.
        digest: that its manifest must have; None: the run did not note one.
        serialized: raw `tf.Example`s.
        log: file for what the server prints.
        patience_seconds: until the server must be ready.
    """
    rows, started = 0, None
    try:
        with server_process(bundle, digest, log, patience_seconds) as server:
            started = round(server.startup_seconds, 2)
            offline = load_bundle(bundle, digest)
            frame = _sendable(to_frame(serialized, offline.info.features), offline.info.features)
            rows = len(frame)
            asked = _requests(server, offline.info)
            answered: list[dict[str, list[Any]]] = []
            latency: dict[str, float] = {}
            for size, ask in asked:
                found, milliseconds = _ask_all(frame, size, ask)
                answered.append(found)
                latency |= {f"p{p}_batch_{size}": round(float(np.percentile(milliseconds, p)), 2) for p in (50, 99) if rows}
        difference = max((_compare(a, offline.scores(frame), offline.info) for a in answered if rows), default=0.0)
    except StageError as error:
        return Servability(str(error), rows, None, started)
    reason = "" if difference <= TOLERANCE else f"its served scores differ from the offline ones by up to {difference:.3g}"
    return Servability(reason, rows, difference, started, latency)


def _requests(server: ServerProcess, info: BundleInfo) -> list[tuple[int, _Ask]]:
    """Returns batch size and how to ask: both protocols where the model's features fit into both."""

    def invoke(rows: pd.DataFrame) -> dict[str, list[Any]]:
        return from_records(server.invoke(records(rows, info.features)))

    def infer(rows: pd.DataFrame) -> dict[str, list[Any]]:
        return from_tensors(server.infer(tensors(rows, info.features)))

    ragged = any(f.is_list and f.width is None for f in info.features)
    return [(1, invoke if ragged else infer), (_BATCH, invoke)]


def _ask_all(frame: pd.DataFrame, size: int, ask: _Ask) -> tuple[dict[str, list[Any]], list[float]]:
    """Returns the answers to all rows, and how long each request took, milliseconds."""
    answered: dict[str, list[Any]] = {}
    milliseconds = []
    for start in range(0, len(frame), size):
        part = frame.iloc[start : start + size]
        before = time.perf_counter()
        for name, values in ask(part).items():
            answered.setdefault(name, []).extend(values)
        milliseconds.append((time.perf_counter() - before) * 1000)
    return answered, milliseconds


def _compare(answered: dict[str, list[Any]], offline: np.ndarray, info: BundleInfo) -> float:
    """Returns the largest difference between scores; of a regression relative to the label's size where that is above 1.

    Raises:
        StageError: columns, rows or classes are not what they should be.
    """
    try:
        served = scores_in(answered, info)
    except (KeyError, ValueError) as error:
        raise StageError(f"its answer cannot be read: {error!r}") from error
    if not np.isfinite(served).all():
        raise StageError("it answered with what is no number")
    if served.shape != offline.shape:
        raise StageError(f"it answered {len(served)} rows for {len(offline)}")
    if info.classes and list(format_predictions(info, served.astype(np.float32))["prediction"]) != answered["prediction"]:
        raise StageError("its predictions are not those of the probabilities beside them")
    scale = 1.0 if info.classes else np.maximum(1.0, np.abs(offline))
    return float(np.max(np.abs(served - offline) / scale))


def _sendable(frame: pd.DataFrame, features: Sequence[RawFeature]) -> pd.DataFrame:
    """Returns the rows that JSON can carry: those with infinite numbers are left out."""
    kept = np.ones(len(frame), dtype=bool)
    for feature in features:
        column = frame[feature.name]
        if feature.dtype != "string":
            kept &= [v is None or not np.isinf(np.asarray(v, dtype=np.float64)).any() for v in column]
    return frame[kept].reset_index(drop=True)
