"""Renders the report of one run: verdicts, evaluation, training, data, schema and anomalies, lineage, how to reproduce it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from switchyard.components.data_gate.page import DataPart, data_sections, subtitle
from switchyard.components.ensemble.weights import described
from switchyard.components.evaluation.page import evaluation_sections, verdict_section
from switchyard.components.evaluation.results import Evaluation
from switchyard.components.evaluation.servability import Servability
from switchyard.components.metrics import TRAINED
from switchyard.components.pages.page import COLOURS, axes, legend, number, render, svg, table


@dataclass(frozen=True)
class ModelPart:
    """The report's content about the models.

    Attributes:
        histories: model -> metrics of each epoch.
        tuned: model -> tuned hyperparameters and their best values; empty without a search.
        weights: ensemble -> weights of its members; empty without one.
        evaluation: evaluation of all models.
        lineage: (item, identity, location) rows from the data to the registry.
        reproduce: commands that reproduce the run.
        config: resolved config as YAML.
        servability: candidate -> result of infra validation; empty without that stage.
        outcome: what became of the best candidate, in one sentence.
        next_step: the command that changes this; empty if there is none.
    """

    histories: Mapping[str, Sequence[Mapping[str, float]]]
    tuned: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, Mapping[str, float]]
    evaluation: Evaluation
    lineage: Sequence[tuple[str, str, str]]
    reproduce: str
    config: str
    servability: Mapping[str, Servability]
    outcome: str
    next_step: str


def run_report(name: str, data: DataPart, models: ModelPart) -> str:
    """Returns the HTML report of a run."""
    same_rows, *rest = evaluation_sections(models.evaluation, data.summary)
    sections = [
        _decision_section(data, models),
        same_rows,
        verdict_section(models.evaluation),
        *rest,
        *_serving_sections(models.servability),
        *_training_sections(models.histories, models.tuned, models.weights),
        *data_sections(data),
        {"title": "Lineage", "table": table(("", "identity", "where"), models.lineage)},
        {"title": "Run it again", "code": models.reproduce},
        {"title": "The resolved config", "code": models.config, "folded": True},
    ]
    return render(f"{name}: {models.evaluation.best}", subtitle(data.summary), sections)


def _decision_section(data: DataPart, models: ModelPart) -> dict[str, Any]:
    """Returns the summary: what was decided and why, by the three checks, and what to do next."""
    found, number_of_warnings = models.evaluation, len(data.verdict.findings)
    warnings = f" with {number_of_warnings} warning{'s' * (number_of_warnings > 1)}" if number_of_warnings else ""
    bad = [name for name, each in models.servability.items() if not each.servable]
    served = f"{', '.join(bad)} cannot be served" if bad else "served predictions equal the evaluated ones"
    verdict = "blessed" if found.blessed else "not blessed"
    lines = [
        models.outcome,
        f"Data gate: passed{warnings}. Model gate: {found.best} is {verdict}.",
        *([f"Infra validation: {served}."] if models.servability else []),
        models.next_step,
    ]
    return {"title": "Decision", "good": found.blessed, "verdict": verdict, "lines": [line for line in lines if line]}


def _serving_sections(found: Mapping[str, Servability]) -> list[dict[str, Any]]:
    if not found:
        return []
    latencies = list(dict.fromkeys(name for each in found.values() for name in each.latency_ms))
    head = ("", "rows sent", "largest difference", "startup, s", *(f"{n.replace('_', ' ')}, ms" for n in latencies))
    rows = [
        [
            name,
            number(each.rows),
            "" if each.difference is None else f"{each.difference:.1e}",
            number(each.startup_seconds),
            *(number(each.latency_ms.get(n)) for n in latencies),
        ]
        for name, each in found.items()
    ]
    good = all(each.servable for each in found.values())
    lines = [f"{name} cannot be served: {each.reason}." for name, each in found.items() if not each.servable]
    verdict = "can be served" if good else "cannot be served"
    return [{"title": "Infra validation", "good": good, "verdict": verdict, "lines": lines, "table": table(head, rows)}]


def _training_sections(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    tuned: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    plots = []
    for metric in TRAINED:
        if not any(f"val_{metric}" in epoch for history in histories.values() for epoch in history):
            continue
        figure, ax = axes(title=metric, x="epoch")
        for i, (name, history) in enumerate(histories.items()):
            epochs = range(1, len(history) + 1)
            colour = COLOURS[i % len(COLOURS)]
            ax.plot(epochs, [e.get(f"val_{metric}") for e in history], color=colour, label=f"{name}, eval")
            if any(metric in e for e in history):
                ax.plot(epochs, [e.get(metric) for e in history], color=colour, linestyle=":", label=f"{name}, train")
        legend(ax)
        plots.append(svg(figure, f"{metric} by epoch"))
    lines = [f"{name}, tuned: {', '.join(f'{k} {v}' for k, v in values.items())}" for name, values in tuned.items()]
    lines += [f"{name}: {described(of)}" for name, of in weights.items()]
    return [{"title": "Training", "lines": lines, "plots": plots}] if plots or lines else []
