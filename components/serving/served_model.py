"""Loads a model into a server's memory, warms it up and puts it behind a batcher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from switchyard.components.bundle.model import BundleInfo, BundleModel, example_rows, load_bundle
from switchyard.components.bundle.source import OpenedModel
from switchyard.components.serving.batcher import Batcher
from switchyard.components.serving.bounds import Bounds

_WARM_UP_ROWS = (1, 2, 16)


@dataclass(frozen=True)
class Limits:
    """Limits of a server's requests.

    Attributes:
        body: maximum bytes of a request's body.
        rows: maximum rows of a request.
        batch_rows: maximum rows of a batch.
        waiting: maximum queued requests per model.
        seconds: maximum seconds to process a request.
    """

    body: int = 16 << 20
    rows: int = Bounds.rows
    batch_rows: int = 2048
    waiting: int = 256
    seconds: float = 30.0


@dataclass(frozen=True)
class ServedModel:
    """A loaded model.

    Attributes:
        version: version in the registry; for a plain folder its name.
        info: metadata of the bundle.
        batcher: queue of its requests.
        release: removes the local copy, if the files were downloaded.
    """

    version: str
    info: BundleInfo
    batcher: Batcher
    release: Callable[[], None]

    async def close(self) -> None:
        """Answers queued requests, then releases the model."""
        await self.batcher.close()
        self.release()


def load_model(
    opened: OpenedModel, limits: Limits, observe: Callable[[int], None], release: Callable[[], None] = lambda: None
) -> ServedModel:
    """Returns a loaded bundle, warmed up so that no request pays for first-call costs.

    Takes seconds: do not call it in the event loop.

    Args:
        opened: the bundle.
        limits: limits of the server.
        observe: called with the number of rows of every batch.
        release: called when the model is closed.

    Raises:
        Exception: the bundle cannot be loaded or its predictions are invalid; it must not be served.
    """
    bundle = load_bundle(opened.folder, opened.digest)
    rows = example_rows(opened.folder)
    if rows is not None:
        _warm_up(bundle, rows)
    batcher = Batcher(bundle.score_columns, max_rows=limits.batch_rows, max_waiting=limits.waiting, observe=observe)
    return ServedModel(opened.version, bundle.info, batcher, release)


def _warm_up(bundle: BundleModel, rows: pd.DataFrame) -> None:
    """Runs the model on rows of its own data, in batches of several sizes, and validates the scores."""
    outputs = bundle.info.outputs
    for count in _WARM_UP_ROWS:
        scores = bundle.scores(rows.iloc[np.arange(count) % len(rows)].reset_index(drop=True))
        if scores.shape != (count, outputs):
            raise RuntimeError(f"the model's output has the shape {list(scores.shape)} where {[count, outputs]} is required")
        if not np.isfinite(scores).all():
            raise RuntimeError("the model's output for its own data is not finite")
