"""Batches requests dynamically: all that have arrived when the model is idle form the next batch; it never waits for others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from switchyard.components.bundle.model import Columns, concatenate

_log = logging.getLogger(__name__)


class QueueFullError(Exception):
    """The queue of requests, or the memory for their bodies, is full."""


@dataclass(frozen=True)
class _Waiting:
    columns: Columns
    rows: int
    answer: asyncio.Future[np.ndarray]


class Batcher:
    """A queue in front of one model, which runs in one thread on batches of validated requests.

    Args:
        scores: maps columns to scores (B, outputs); called in the thread.
        max_rows: maximum rows of a batch; a request with more rows is a batch of its own.
        max_waiting: maximum queued requests; further ones raise `QueueFullError`.
        observe: called with the number of rows of every batch.
    """

    def __init__(
        self, scores: Callable[[Columns], np.ndarray], *, max_rows: int, max_waiting: int, observe: Callable[[int], None]
    ) -> None:
        self._scores, self._observe = scores, observe
        self._max_rows, self._max_waiting = max_rows, max_waiting
        self._waiting: list[_Waiting] = []
        self._thread = ThreadPoolExecutor(1, "model")
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Number of queued requests."""
        return len(self._waiting)

    async def submit(self, columns: Columns, rows: int) -> np.ndarray:
        """Returns the scores of one request's rows (rows, outputs).

        Raises:
            QueueFullError: the queue is full.
            Exception: the model raised it for these rows alone.
        """
        if len(self._waiting) >= self._max_waiting:
            raise QueueFullError
        waiting = _Waiting(columns, rows, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await waiting.answer

    async def close(self) -> None:
        """Answers queued requests, then shuts the thread down."""
        if self._worker is not None:
            await self._worker
        self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._read_arrived()
                batch = self._next()
                if batch:
                    await self._answer(batch)
        finally:
            self._worker = None

    async def _read_arrived(self) -> None:
        """Lets the event loop read the requests that have arrived; Python would decode them beside a smaller batch, no sooner."""
        before = 0
        while before < len(self._waiting):
            before = len(self._waiting)
            await asyncio.sleep(0)

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting and (not batch or rows + self._waiting[0].rows <= self._max_rows):
            first = self._waiting.pop(0)
            if not first.answer.done():  # done: the client disconnected or the request timed out
                batch.append(first)
                rows += first.rows
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        self._observe(sum(w.rows for w in batch))
        try:
            scores = await loop.run_in_executor(self._thread, self._run, batch)
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].answer.done():
                    batch[0].answer.set_exception(error)
                return
            # One bad request must not fail the rest of its batch.
            _log.exception("a batch of %d requests failed; each is run alone", len(batch))
            for waiting in batch:
                await self._answer([waiting])
            return
        at = 0
        for waiting in batch:
            if not waiting.answer.done():
                waiting.answer.set_result(scores[at : at + waiting.rows])
            at += waiting.rows

    def _run(self, batch: list[_Waiting]) -> np.ndarray:
        scores = self._scores(concatenate([w.columns for w in batch]))
        rows = sum(w.rows for w in batch)
        if len(scores) != rows:
            raise RuntimeError(f"the model answered {len(scores)} rows for {rows}")
        return scores
