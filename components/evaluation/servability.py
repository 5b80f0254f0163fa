"""The results of infra validation, and their effect on an evaluation's verdicts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from switchyard.components.evaluation.results import CANDIDATE, Evaluation, ModelResult

FILE = "infra_validation.json"


@dataclass(frozen=True)
class Servability:
    """The infra-validation result of a model in a separate server process.

    Attributes:
        reason: reason why the model cannot be served; empty if it can.
        rows: number of rows of the held-out split that were sent.
        difference: largest difference between a served and an offline score; None without any response.
        startup_seconds: seconds from the start of the process until it was ready; None if it never was.
        latency_ms: `p50_batch_1`, `p99_batch_1` and the like: milliseconds from request to response over one connection.
        own_difference: largest change of an offline score between batch sizes; None if not measured.
    """

    reason: str
    rows: int = 0
    difference: float | None = None
    startup_seconds: float | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    own_difference: float | None = None

    @property
    def servable(self) -> bool:
        """Whether the model can be served."""
        return not self.reason


def save(found: Mapping[str, Servability], folder: Path) -> None:
    """Writes model -> result to a folder."""
    (folder / FILE).write_text(json.dumps({n: asdict(s) for n, s in found.items()}, indent=1), encoding="utf-8")


def load(folder: str | Path) -> dict[str, Servability]:
    """Returns model -> result from a folder."""
    loaded = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
    return {name: Servability(**each) for name, each in loaded.items()}


def with_servability(evaluation: Evaluation, found: Mapping[str, Servability]) -> Evaluation:
    """Returns the evaluation with unservable candidates marked as not passed; the best of the others is blessed."""
    models = {name: _judged(model, found.get(name)) for name, model in evaluation.models.items()}
    eligible = [n for n, m in models.items() if m.role == CANDIDATE and m.passed and not m.failures]
    if not eligible or eligible[0] == evaluation.best:
        return dataclasses.replace(evaluation, models=models)
    [best, *_] = eligible
    models[best] = dataclasses.replace(models[best], blessed=True)
    note = f"{evaluation.best} comes before {best} and cannot be served"
    its = [c for c in evaluation.comparisons if c.model == best]
    return dataclasses.replace(evaluation, models=models, best=best, comparisons=its, notes=[*evaluation.notes, note])


def verdicts(evaluation: str, infra_validation: str | None) -> Evaluation:
    """Returns an evaluation updated by infra validation.

    Args:
        evaluation: folder of the evaluation artifact.
        infra_validation: folder of the infra-validation artifact; None if the stage is disabled.
    """
    loaded = Evaluation.load(evaluation)
    return with_servability(loaded, load(infra_validation)) if infra_validation else loaded


def _judged(model: ModelResult, found: Servability | None) -> ModelResult:
    if model.role != CANDIDATE or found is None or found.servable:
        return model
    failures = [*model.failures, f"cannot be served: {found.reason}"]
    return dataclasses.replace(model, passed=False, blessed=False, failures=failures)
