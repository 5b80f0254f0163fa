"""Polls a registry's aliases and swaps champion and canary without interrupting requests."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack

from switchyard.components.bundle.source import ModelRef, OpenedModel
from switchyard.components.errors import UserError, first_line
from switchyard.components.process.full_disk import full_disk
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.rollout import Rollout
from switchyard.components.serving.served_model import Limits, ServedModel, load_model

_log = logging.getLogger(__name__)
_KEPT = 1
_UNREACHABLE, _NO_ROOM = "registry unreachable", "a new version cannot be copied"
_FREE = "Free some space there, or set TMPDIR to another folder; the copy is tried again at the next poll."
# Seconds until a version is loaded again after an error that may pass; doubled after each further one.
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0


def freeze_gc() -> None:
    """Excludes all current objects from garbage collection.

    With TensorFlow and PyTorch in memory a full collection blocks all requests for tenths of a second (decision 9).
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class _Refusal:
    """A rejected version, which is not loaded again before `pause` seconds have passed or its alias has moved."""

    def __init__(self, version: str, pause: float) -> None:
        self.version, self.pause, self.until = version, pause, time.monotonic() + pause


class ModelReloader:
    """A poller of a registered model's aliases that loads, warms up and swaps versions.

    Args:
        source: the registered model and the selected version or alias.
        rollout: the champion and the canary, which this class swaps.
        limits: limits of every model.
        metrics: metrics of loads and swaps.
        canary_alias: alias of the canary's version; None disables the canary.
        say: prints one line for the user.
    """

    def __init__(
        self,
        source: ModelRef,
        rollout: Rollout,
        limits: Limits,
        metrics: Metrics,
        canary_alias: str | None,
        say: Callable[[str], None],
    ) -> None:
        self._source, self._rollout, self._limits, self._metrics = source, rollout, limits, metrics
        self._canary_alias, self._say = canary_alias, say
        # Alias -> its rejected version.
        self._refused: dict[str, _Refusal] = {}
        self._resting: list[ServedModel] = []
        self._closing: set[asyncio.Task[None]] = set()
        # What kept the last poll from succeeding.
        self._obstacle = ""

    async def start(self, version: str) -> None:
        """Loads the first champion.

        Raises:
            Exception: the version cannot be loaded.
        """
        self._rollout.set_champion(await self._load(*await self._open(version)))
        self._tell_metrics()

    async def follow(self, seconds: float) -> None:
        """Polls the aliases every `seconds`; never returns, and logs errors instead of raising them."""
        while True:
            try:
                await self.look()
            except Exception as error:  # MLflow's stores raise many types
                full = full_disk(error, then=_FREE)
                self._blocked(_NO_ROOM if full else _UNREACHABLE, full or first_line(error))
                self._metrics.registry_reachable.set(1 if full else 0)
            else:
                self._blocked("")
                self._metrics.registry_reachable.set(1)
            await asyncio.sleep(seconds)

    def _blocked(self, by: str, reason: str = "") -> None:
        """Says what keeps polls from succeeding, once; empty if nothing does."""
        if by != self._obstacle:
            if by:
                self._say(f"{by}; still serving the current version: {reason}")
                _log.warning("registry", exc_info=True)
            else:
                self._say("the registry is reachable again" if self._obstacle == _UNREACHABLE else "versions can be copied again")
        self._obstacle = by

    async def look(self) -> None:
        """Polls the registry once and applies alias changes."""
        rollout = self._rollout
        champion = await self._version_of(self._source.selector) if self._source.tracks_alias else None
        if champion is not None and rollout.champion is not None and champion != rollout.champion.version:
            model = await self._try(self._source.selector, champion)
            if model is not None:
                before, was_canary = rollout.champion, rollout.canary
                rollout.set_champion(model)
                self._swapped(f"version {model.version} is served, version {before.version} is swapped out")
                self._keep_standby(before)
                if was_canary is not None and rollout.canary is None and was_canary is not model:
                    self._keep_standby(was_canary)
        if self._canary_alias:
            await self._look_for_canary(await self._version_of(self._canary_alias))

    async def _version_of(self, alias: str) -> str | None:
        version = await asyncio.to_thread(self._source.alias, alias)
        if (refusal := self._refused.get(alias)) and refusal.version != version:
            del self._refused[alias]  # a version that the alias comes back to is tried again
        return version

    async def _look_for_canary(self, version: str | None) -> None:
        rollout = self._rollout
        now = rollout.canary
        if rollout.champion is not None and version == rollout.champion.version:
            version = None
        if now is not None and now.version != version:
            rollout.set_canary(None)
            self._swapped(f"canary version {now.version} is no longer served")
            self._keep_standby(now)
        if version is not None and self._canary_alias and (now is None or now.version != version):
            model = await self._try(self._canary_alias, version)
            if model is not None:
                rollout.set_canary(model)
                self._swapped(f"canary version {version} answers {rollout.share:.0%} of the requests")

    def canary_stopped(self, model: ServedModel, why: str) -> None:
        """Records that the stop rule removed the canary; its version is not loaded again until the alias moves."""
        if self._canary_alias:
            self._refused[self._canary_alias] = _Refusal(model.version, math.inf)
        self._metrics.canary_stops.inc()
        self._swapped(f"canary version {model.version} is stopped: {why}")
        self._keep_standby(model)

    async def close(self) -> None:
        """Answers queued requests and releases all models."""
        for model in (*self._rollout.models(), *self._resting):
            await model.close()
        await asyncio.gather(*self._closing)

    async def _try(self, alias: str, version: str) -> ServedModel | None:
        before = self._refused.get(alias)
        if before and time.monotonic() < before.until:
            return None
        known = self._rollout.with_version(version) or next((m for m in self._resting if m.version == version), None)
        if known is not None:  # the canary that becomes champion, or a rollback
            self._refused.pop(alias, None)
            self._resting = [m for m in self._resting if m is not known]
            return known
        # Errors of the store propagate and are retried at the next poll. Changed files (UserError) reject the version; other
        # errors, such as a full disk or too little memory, may pass.
        try:
            opened, files = await self._open(version)
        except UserError as error:
            self._refuse(alias, version, error, math.inf)
            return None
        try:
            model = await self._load(opened, files)
        except UserError as error:
            self._refuse(alias, version, error, math.inf)
            return None
        except Exception as error:
            self._refuse(alias, version, error, min(2 * before.pause, LONGEST_PAUSE) if before else FIRST_PAUSE)
            return None
        self._refused.pop(alias, None)
        return model

    def _refuse(self, alias: str, version: str, error: Exception, pause: float) -> None:
        _log.error("version %s", version, exc_info=error)
        self._refused[alias] = _Refusal(version, pause)
        self._metrics.failed_swaps.inc()
        again = "" if math.isinf(pause) else f" (tried again in {pause:.0f} s)"
        self._say(
            f"version {version} cannot be served and is not swapped in{again}: {(str(error).splitlines() or [''])[0][:200]}"
        )

    async def _open(self, version: str) -> tuple[OpenedModel, ExitStack]:
        """Returns a version's files and the stack that removes them."""
        files = ExitStack()
        return await asyncio.to_thread(files.enter_context, self._source.open(version)), files

    async def _load(self, opened: OpenedModel, files: ExitStack) -> ServedModel:
        observe = self._metrics.batch_rows.labels(opened.version).observe
        try:
            model = await asyncio.to_thread(load_model, opened, self._limits, observe, files.close)
            self._metrics.loads.inc()
            return model
        except BaseException:
            files.close()
            raise
        finally:
            freeze_gc()

    def _keep_standby(self, model: ServedModel) -> None:
        """Keeps a replaced model in memory, so that a rollback is immediate; closes older ones."""
        self._resting.append(model)
        while len(self._resting) > _KEPT:
            gone = asyncio.create_task(self._resting.pop(0).close())
            self._closing.add(gone)
            gone.add_done_callback(self._closing.discard)

    def _swapped(self, what: str) -> None:
        self._metrics.swaps.inc()
        self._tell_metrics()
        self._say(what)

    def _tell_metrics(self) -> None:
        self._metrics.model.clear()
        for role, model in (("champion", self._rollout.champion), ("canary", self._rollout.canary)):
            if model is not None:
                self._metrics.model.labels(self._source.name, model.version, model.info.framework, role).set(1)
