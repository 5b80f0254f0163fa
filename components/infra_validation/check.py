"""Serves one bundle and compares its responses with offline predictions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from switchyard.components.bundle.model import BundleInfo, BundleModel, RawFeature, format_predictions, load_bundle
from switchyard.components.bundle.rows import to_frame
from switchyard.components.errors import StageError
from switchyard.components.evaluation.servability import Servability
from switchyard.components.infra_validation.server_process import ServerProcess, server_process
from switchyard.components.serving.client import Rows, from_records, from_tensors, records, scores_in, tensors
from switchyard.components.tasks import TASKS
from switchyard.components.training.workers.predicting import predictor_class
from switchyard.components.values.conversion import fit_frame
from switchyard.components.values.raw_features import Columns, between

# Rounding of float32 when the order of summation changes. The limit is twice the model's own difference if that is larger.
TOLERANCE = 1e-5
# Maximum difference of a row's score between batches of different rows. Above it, a row has no well-defined score.
_BOUND = 1e-4
_BATCH, _ODD_BATCH = 50, 7
_Ask = Callable[[Rows], dict[str, list[Any]]]


def check(bundle: str, digest: str | None, serialized: Sequence[bytes], log: Path, patience_seconds: float) -> Servability:
    """Starts a bundle's server, sends rows one by one and in batches, and compares the responses with offline scores.

    Args:
        bundle: folder of the MLflow Model.
        digest: required digest of its manifest; None if the run recorded none.
        serialized: raw `tf.Example`s.
        log: file for the server's output.
        patience_seconds: seconds until the server must be ready.
    """
    rows, started = 0, None
    try:
        with server_process(bundle, digest, log, patience_seconds) as server:
            started = round(server.startup_seconds, 2)
            offline = load_bundle(bundle, digest, predictor_class=predictor_class)
            frame = _sendable(to_frame(serialized, offline.info.features), offline.info.features)
            rows = len(frame)
            requests = _requests(server, offline.info)
            answered: list[dict[str, list[Any]]] = []
            latency: dict[str, float] = {}
            for size, ask in requests:
                found, milliseconds = _ask_all(frame, size, ask)
                answered.append(found)
                latency |= {f"p{p}_batch_{size}": round(float(np.percentile(milliseconds, p)), 2) for p in (50, 99) if rows}
        columns = fit_frame(frame, offline.info.features)  # once: of many columns it takes longer than the model
        scores = offline.score_columns(columns) if rows else np.empty((0, 1))
        own = _own_difference(offline, columns, scores)
        difference = max((_compare(a, scores, offline.info) for a in answered if rows), default=0.0)
    except StageError as error:
        return Servability(str(error), rows, None, started)
    return Servability(_reason(difference, own), rows, difference, started, latency, own)


def _own_difference(bundle: BundleModel, columns: Columns, scores: np.ndarray) -> float:
    """Returns the largest difference between the bundle's offline scores, on this device, for two batch sizes."""
    starts = range(0, len(scores), _ODD_BATCH)
    parts = [bundle.score_columns(between(columns, start, start + _ODD_BATCH)) for start in starts]
    return _distance(np.concatenate(parts), scores, bundle.info) if parts else 0.0


def _reason(difference: float, own: float) -> str:
    """Returns the reason why these differences fail validation; empty if they pass."""
    if own > _BOUND:
        return (
            f"its score of a row changes by up to {own:.3g} with the other rows of its batch, allowed: {_BOUND:g}; avoid "
            "layers that compute over the batch at inference"
        )
    allowed = max(TOLERANCE, 2 * own)
    if difference > allowed:
        return f"its served scores differ from the offline ones by up to {difference:.3g}, allowed: {allowed:.3g}"
    return ""


def _requests(server: ServerProcess, info: BundleInfo) -> list[tuple[int, _Ask]]:
    """Returns (batch size, request function) pairs: both protocols, or MLflow's alone if a feature holds ragged lists."""

    def invoke(rows: Rows) -> dict[str, list[Any]]:
        return from_records(server.invoke(records(rows, info.features)))

    def infer(rows: Rows) -> dict[str, list[Any]]:
        return from_tensors(server.infer(tensors(rows, info.features)))

    ragged = any(f.is_list and f.width is None for f in info.features)
    return [(1, invoke if ragged else infer), (_BATCH, invoke)]


def _ask_all(frame: pd.DataFrame, size: int, ask: _Ask) -> tuple[dict[str, list[Any]], list[float]]:
    """Returns the responses for all rows and the latency of each request in milliseconds."""
    answered: dict[str, list[Any]] = {}
    milliseconds = []
    columns = {str(name): list(column) for name, column in frame.items()}
    for start in range(0, len(frame), size):
        part = {name: values[start : start + size] for name, values in columns.items()}
        before = time.perf_counter()
        for name, values in ask(part).items():
            answered.setdefault(name, []).extend(values)
        milliseconds.append((time.perf_counter() - before) * 1000)
    return answered, milliseconds


def _compare(answered: dict[str, list[Any]], offline: np.ndarray, info: BundleInfo) -> float:
    """Returns the largest difference between scores; for a regression relative to the offline score if that is above 1.

    Raises:
        StageError: columns are missing, scores are not finite, or the number of rows or the predicted classes are wrong.
    """
    try:
        served = scores_in(answered, info)
    except (KeyError, ValueError) as error:
        raise StageError(f"its answer cannot be read: {error!r}") from error
    if not np.isfinite(served).all():
        raise StageError("its answer contains a score that is not a finite number")
    if served.shape != offline.shape:
        raise StageError(f"it returned {len(served)} rows for {len(offline)}")
    expected = format_predictions(info, served.astype(np.float32))
    if any(list(expected[name]) != answered.get(name) for name in expected.keys() - set(info.score_names)):
        raise StageError("its predictions do not match its probabilities")
    return _distance(served, offline, info)


def _distance(scores: np.ndarray, others: np.ndarray, info: BundleInfo) -> float:
    scale = 1.0 if TASKS[info.task].has_probabilities else np.maximum(1.0, np.abs(others))
    return float(np.max(np.abs(scores - others) / scale))


def _sendable(frame: pd.DataFrame, features: Sequence[RawFeature]) -> pd.DataFrame:
    """Returns the rows without infinite numbers, which JSON cannot represent."""
    kept = np.ones(len(frame), dtype=bool)
    for feature in features:
        column = frame[feature.name]
        if feature.dtype != "string":
            kept &= [v is None or not np.isinf(np.asarray(v, dtype=np.float64)).any() for v in column]
    return frame[kept].reset_index(drop=True)
