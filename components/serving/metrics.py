"""Defines a server's Prometheus metrics; the model version is a label, so champion and canary are separate series."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Metrics:
    """All metrics of one server, in their own Prometheus registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "switchyard_requests", "Requests by route, status and model version", ["route", "code", "version"], registry=registry
        )
        self.latency = Histogram(
            "switchyard_request_seconds",
            "Seconds from a request's first byte to the answer",
            ["route", "version"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram("switchyard_batch_rows", "Rows of a batch", ["version"], buckets=_ROWS, registry=registry)
        self.waiting = Gauge("switchyard_waiting_requests", "Requests that wait for a model", registry=registry)
        self.refused = Counter("switchyard_queue_full", "Requests refused because too many wait", registry=registry)
        self.model = Gauge(
            "switchyard_model",
            "1 for each version that answers requests",
            ["name", "version", "framework", "role"],
            registry=registry,
        )
        self.loads = Counter("switchyard_model_loads", "Versions loaded and warmed up", registry=registry)
        self.swaps = Counter("switchyard_swaps", "Versions swapped in", registry=registry)
        self.failed_swaps = Counter(
            "switchyard_failed_swaps", "Versions that could not be loaded or warmed up", registry=registry
        )
        self.unlogged = Counter("switchyard_request_log_dropped_rows", "Rows that the request log dropped", registry=registry)
        self.canary_stops = Counter("switchyard_canary_stops", "Canaries stopped by the stop rule", registry=registry)
        self.registry_reachable = Gauge("switchyard_registry_reachable", "0 while MLflow is unreachable", registry=registry)
        self.registry_reachable.set(1)

    def page(self) -> bytes:
        """Returns the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
