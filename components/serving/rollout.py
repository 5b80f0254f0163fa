"""Routes requests to the champion or, for a share of them, the canary, and applies the canary's stop rule."""

from __future__ import annotations

import random
import statistics
from collections import deque
from dataclasses import dataclass, field

from switchyard.components.serving.served_model import ServedModel

_WINDOW = 200


@dataclass(frozen=True)
class StopRule:
    """Limits of failures and latency above which a canary is stopped.

    Attributes:
        requests: minimum requests of canary and champion before their latencies are compared.
        failures: minimum number of failures that stops the canary.
        failure_share: share of its requests that the failures must also exceed.
        latency_ratio: maximum ratio of the canary's median latency to the champion's.
    """

    requests: int = 50
    failures: int = 3
    failure_share: float = 0.01
    latency_ratio: float = 3.0


@dataclass
class _Record:
    requests: int = 0
    failures: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))


class Rollout:
    """The champion and the canary. Used only in the event loop's thread, so that a swap is atomic for requests.

    Args:
        share: share of requests for the canary, 0 to 1.
        rule: stop rule of the canary.
    """

    def __init__(self, share: float = 0.0, rule: StopRule | None = None) -> None:
        self.champion: ServedModel | None = None
        self.canary: ServedModel | None = None
        self.share = share
        self._rule = rule or StopRule()
        self._records: dict[str, _Record] = {}
        self._random = random.Random()

    def choose(self) -> ServedModel | None:
        """Returns the model for the next request; None while no model is ready."""
        if self.canary is not None and self._random.random() < self.share:
            return self.canary
        return self.champion

    def with_version(self, version: str) -> ServedModel | None:
        """Returns the champion or canary with this version; None if neither has it."""
        return next((m for m in self.models() if m.version == version), None)

    def models(self) -> list[ServedModel]:
        """Returns the loaded models: the champion, then the canary."""
        return [m for m in (self.champion, self.canary) if m is not None]

    def set_champion(self, model: ServedModel) -> None:
        """Replaces the champion for new requests; queued requests keep their model. A canary of the same version is removed."""
        self.champion = model
        if self.canary is not None and self.canary.version == model.version:
            self.canary = None
        self._records = {}

    def set_canary(self, model: ServedModel | None) -> None:
        """Starts a canary; None removes it."""
        self.canary = model
        self._records = {}

    def answered(self, model: ServedModel, seconds: float, *, failed: bool) -> str | None:
        """Records an outcome; returns the reason if it stopped the canary, otherwise None."""
        record = self._records.setdefault(model.version, _Record())
        record.requests += 1
        record.failures += failed
        record.seconds.append(seconds)
        return self._stop(model, record)

    def failed(self, model: ServedModel) -> str | None:
        """Counts a request that is recorded already as a failure after all; returns the same as `answered`.

        A model that refuses rows fails only if another model answers them: otherwise the client is at fault.
        """
        record = self._records.get(model.version)
        if record is None:  # the canary was replaced meanwhile
            return None
        record.failures += 1
        return self._stop(model, record)

    def _stop(self, model: ServedModel, record: _Record) -> str | None:
        if self.canary is None or model.version != self.canary.version:
            return None
        why = self._verdict(record)
        if why:
            self.set_canary(None)
        return why

    def _verdict(self, canary: _Record) -> str | None:
        rule = self._rule
        if canary.failures >= rule.failures and canary.failures > rule.failure_share * canary.requests:
            return f"it failed {canary.failures} of {canary.requests} requests"
        champion = self._records.get(self.champion.version) if self.champion else None
        if champion is None or min(canary.requests, champion.requests) < rule.requests or canary.requests % 10:
            return None
        slow, usual = statistics.median(canary.seconds), statistics.median(champion.seconds)
        if slow > rule.latency_ratio * usual:
            return f"its median latency is {slow * 1e3:.1f} ms where the champion's is {usual * 1e3:.1f} ms"
        return None
