"""Which model answers a request: the champion, or for a share of them the canary; and when the canary is stopped."""

from __future__ import annotations

import random
import statistics
from collections import deque
from dataclasses import dataclass, field

from switchyard.components.serving.served_model import ServedModel

_WINDOW = 200


@dataclass(frozen=True)
class StopRule:
    """When a canary is taken out.

    Attributes:
        requests: that it answers before it is judged by its latency.
        failures: that are one too many, when they are also more than `failure_share` of its requests.
        failure_share: see `failures`.
        latency_ratio: its median latency against the champion's.
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
    """The models that answer. Changed and asked in the event loop's thread alone: a request sees one model, whole.

    Args:
        share: of requests that the canary answers, 0 to 1.
        rule: when the canary is stopped.
    """

    def __init__(self, share: float = 0.0, rule: StopRule | None = None) -> None:
        self.champion: ServedModel | None = None
        self.canary: ServedModel | None = None
        self.share = share
        self._rule = rule or StopRule()
        self._records: dict[str, _Record] = {}
        self._random = random.Random()

    def choose(self) -> ServedModel | None:
        """Returns the model for the next request; None: none is ready."""
        if self.canary is not None and self._random.random() < self.share:
            return self.canary
        return self.champion

    def with_version(self, version: str) -> ServedModel | None:
        """Returns the model with a version, if it answers now."""
        return next((m for m in self.models() if m.version == version), None)

    def models(self) -> list[ServedModel]:
        """Returns the champion and the canary, as far as there are such."""
        return [m for m in (self.champion, self.canary) if m is not None]

    def set_champion(self, model: ServedModel) -> None:
        """Requests from now on are answered by `model`; those that wait, by the model that they were given."""
        self.champion = model
        if self.canary is not None and self.canary.version == model.version:
            self.canary = None
        self._records = {}

    def set_canary(self, model: ServedModel | None) -> None:
        """Starts a canary, or ends it."""
        self.canary = model
        self._records = {}

    def answered(self, model: ServedModel, seconds: float, *, failed: bool) -> str | None:
        """Notes an answer; returns why the canary was stopped, if it was just now."""
        record = self._records.setdefault(model.version, _Record())
        record.requests += 1
        record.failures += failed
        record.seconds.append(seconds)
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
