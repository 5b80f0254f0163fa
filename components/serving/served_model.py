"""One model in a server's memory: loaded, warmed up, behind its batcher."""

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
    """What a server takes.

    Attributes:
        body: bytes of a request.
        rows: rows of a request.
        batch_rows: rows of a batch.
        waiting: requests that wait for a model.
        seconds: from a request's first byte to its answer.
    """

    body: int = 16 << 20
    rows: int = Bounds.rows
    batch_rows: int = 1024
    waiting: int = 256
    seconds: float = 30.0


@dataclass(frozen=True)
class ServedModel:
    """A model that answers.

    Attributes:
        version: in the registry; of a plain folder its name.
        info: of its bundle.
        batcher: takes its requests.
        release: removes the copy on this disk, if it is one.
    """

    version: str
    info: BundleInfo
    batcher: Batcher
    release: Callable[[], None]

    async def close(self) -> None:
        """Answers what waits and forgets the model."""
        await self.batcher.close()
        self.release()


def load_model(
    opened: OpenedModel, limits: Limits, observe: Callable[[int], None], release: Callable[[], None] = lambda: None
) -> ServedModel:
    """Loads a bundle and has it predict, so that no request pays for what happens once. Takes seconds: not in the loop.

    Args:
        opened: the bundle.
        limits: of the server.
        observe: called with the rows of every batch.
        release: called when the model is closed.

    Raises:
        Exception: whatever is wrong with the bundle; it must not be served.
    """
    bundle = load_bundle(opened.folder, opened.digest)
    rows = example_rows(opened.folder)
    if rows is not None:
        _warm_up(bundle, rows)
    batcher = Batcher(bundle.score_columns, max_rows=limits.batch_rows, max_waiting=limits.waiting, observe=observe)
    return ServedModel(opened.version, bundle.info, batcher, release)


def _warm_up(bundle: BundleModel, rows: pd.DataFrame) -> None:
    """Has the model answer rows of its own data, in several sizes."""
    outputs = len(bundle.info.classes) if bundle.info.task == "multiclass" else 1
    for count in _WARM_UP_ROWS:
        scores = bundle.scores(rows.iloc[np.arange(count) % len(rows)].reset_index(drop=True))
        if scores.shape != (count, outputs):
            raise RuntimeError(f"the model answers with the shape {list(scores.shape)} where {[count, outputs]} is right")
        if not np.isfinite(scores).all():
            raise RuntimeError("the model answers rows of its own data with a number that is not finite")
