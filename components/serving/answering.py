"""Answers decoded requests of either protocol: chooses the model, checks the columns, scores them, keeps the canary's account."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from switchyard.components.bundle.model import Columns
from switchyard.components.serving.batcher import QueueFullError
from switchyard.components.serving.bodies import LARGE, Bodies, Body
from switchyard.components.serving.bounds import Bounds, InputError
from switchyard.components.serving.inputs import columns_of
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.rollout import Rollout
from switchyard.components.serving.served_model import Limits, ServedModel
from switchyard.components.user_code.tokenizer import RefusedRowsError

# Size of a score in JSON.
ANSWER_BYTES = 20
_log = logging.getLogger(__name__)


class _RefusedError(InputError):
    """A model has no score for some rows, which may be the rows' fault or the model's."""


@dataclass
class ServerState:
    """State shared by the routes.

    Attributes:
        name: name of the model in URLs.
        rollout: the champion and the canary.
        limits: limits of a request.
        metrics: the server's Prometheus metrics.
        version: version of Switchyard.
        draining: whether the server is shutting down and reports not-ready.
        canary_stopped: called with the canary and the reason when the stop rule removes it.
        log_request: called with the model, the columns and the scores of an answered request; None disables the log.
        bodies: the memory of unfinished requests, of both protocols.
    """

    name: str
    rollout: Rollout
    limits: Limits
    metrics: Metrics
    version: str
    draining: bool = False
    canary_stopped: Callable[[ServedModel, str], None] | None = None
    log_request: Callable[[ServedModel, Columns, np.ndarray], None] | None = None
    bodies: Bodies = field(init=False)

    def __post_init__(self) -> None:
        self.bodies = Bodies(self.limits.body)

    @property
    def ready(self) -> bool:
        """Whether a champion is loaded and the server is not shutting down."""
        return self.rollout.champion is not None and not self.draining


@dataclass(frozen=True)
class Asked:
    """A decoded request: raw feature -> values, its body and its bounds."""

    given: dict[str, Any]
    body: Body
    bounds: Bounds


class Answering:
    """Answers decoded requests; see the module."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def choose(self, name: str) -> ServedModel | None:
        """Returns the champion or the canary; None while the champion is loading.

        Raises:
            InputError: there is no model of this name (status 404).
        """
        self._check_name(name)
        return self._state.rollout.choose()

    def find(self, name: str, version: str | None) -> ServedModel | None:
        """Returns the model of a version, by default the champion; None while it is loading.

        Raises:
            InputError: there is no model of this name, or no such version (status 404).
        """
        self._check_name(name)
        rollout = self._state.rollout
        if version is None or rollout.champion is None:
            return rollout.champion
        found = rollout.with_version(version)
        if found is None:
            known = ", ".join(m.version for m in rollout.models())
            raise InputError(f"model {self._state.name!r} has no version {version!r} here. Versions: {known}.", 404)
        return found

    async def answer(
        self, model: ServedModel, asked: Asked, notes: dict[str, Any], *, fall_back: bool
    ) -> tuple[np.ndarray, ServedModel]:
        """Returns the scores and the model that computed them: the champion if the canary failed and `fall_back` is set.

        Args:
            model: a model that `choose` or `find` returned.
            asked: the request.
            notes: gets `version` and `rows`.
            fall_back: see above.

        Raises:
            InputError: the rows do not fit the model, or it has no score for them.
            QueueFullError: too many requests wait.
        """
        state = self._state
        champion = state.rollout.champion
        found, refusing = None, None
        if fall_back and champion is not None and model is not champion:
            try:
                found = await self._scores(model, asked, notes)
            except Exception as error:
                _log.warning("canary version %s", model.version, exc_info=True)
                refusing = model if isinstance(error, _RefusedError) else None
                # Clients never receive a canary's failure. The champion may have been swapped meanwhile.
                model = state.rollout.champion or champion
        scores, columns = found or await self._scores(model, asked, notes)
        if refusing is not None:
            self._stop_if(state.rollout.failed(refusing), refusing)  # not the rows' fault: the champion answers them
        if state.log_request is not None:
            state.log_request(model, columns, scores)
        return scores, model

    async def _scores(self, model: ServedModel, asked: Asked, notes: dict[str, Any]) -> tuple[np.ndarray, Columns]:
        """Returns a model's finite scores, and the columns. Raises _RefusedError if the model has no score for some rows."""
        first = next(iter(asked.given.values()), ())
        # Omitted values take memory as well.
        cells = len(model.info.features) * (len(first) if isinstance(first, list) else 0)
        size = max(len(asked.body.data), min(cells, asked.bounds.cells))
        self._state.bodies.hold(asked.body, size)
        # A few bytes of an image take as long to decode as a large body.
        work = max(size, LARGE + 1) if any(f.image for f in model.info.features) else size
        columns, rows = await self._state.bodies.work(work, columns_of, model.info, asked.given, asked.bounds)
        notes.update(version=model.version, rows=rows)
        begin = time.perf_counter()
        try:
            scores = await model.batcher.submit(columns, rows)
        except QueueFullError:
            self._state.metrics.refused.inc()
            raise
        except RefusedRowsError as error:
            self._answered(model, begin, failed=False)
            _log.warning("version %s: %s", model.version, error, exc_info=True)
            reason = f"the model's tokenizer fails for row {_first_of(error.rows)}; see the server's log."
            raise _RefusedError(reason, rows=error.rows) from error
        except Exception:
            self._answered(model, begin, failed=True)
            raise
        self._answered(model, begin, failed=False)
        bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        if len(bad):
            reason = f"the model's output is not finite for row {_first_of(bad)}: the values are too far from the training data."
            raise _RefusedError(reason, rows=bad)
        return scores, columns

    def _answered(self, model: ServedModel, begin: float, *, failed: bool) -> None:
        self._stop_if(self._state.rollout.answered(model, time.perf_counter() - begin, failed=failed), model)

    def _stop_if(self, why: str | None, model: ServedModel) -> None:
        if why and self._state.canary_stopped:
            self._state.canary_stopped(model, why)

    def _check_name(self, name: str) -> None:
        if name != self._state.name:
            raise InputError(f"unknown model {name!r}. Model: {self._state.name!r}.", 404)


def _first_of(rows: Sequence[int] | np.ndarray) -> str:
    return f"{rows[0]}{f' and {len(rows) - 1} more' if len(rows) > 1 else ''}"
