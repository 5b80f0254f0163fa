"""Writes the Markdown that MLflow's pages show: the description of a run, and the model card of a registered version."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.evaluation.page import models_table
from switchyard.components.evaluation.results import CHAMPION, Evaluation, ModelResult
from switchyard.components.pages.page import number
from switchyard.components.text.markdown import plain
from switchyard.components.tracking.environment import IMAGE, LOCK
from switchyard.components.tracking.model_registry import CHALLENGER, DEFERRED, Registration
from switchyard.components.tracking.model_registry import CHAMPION as REGISTERED_CHAMPION
from switchyard.components.training.start import STARTED_FROM, STARTED_FROM_DIGEST

# Lengths of MLflow's columns for a version's description and a tag.
_CARD_LENGTH, _DESCRIPTION_LENGTH = 5000, 8000
_MOST_SLICES = 5
# A cell that needs no escapes, and is read more often as it is.
_FIGURES = re.compile(r"[\d.,+\-e]*(?: to [\d.,+\-e]+)?")


def next_step(name: str, found: Registration, evaluation: Evaluation) -> str:
    """Returns the command that changes what the run decided about its best candidate; empty if there is none.

    Args:
        name: name of the registered model.
        found: registration of the best candidate.
        evaluation: evaluation of all models.
    """
    model = shlex.quote(name)
    if found.status == DEFERRED:
        return "To register it when MLflow is reachable: switchyard upload"
    if found.status == CHALLENGER:
        force = "" if evaluation.blessed else " --force"
        return f"To promote it anyway: switchyard models promote {model} {found.version}{force} --why REASON"
    if found.status == REGISTERED_CHAMPION and evaluation.standing_champion:
        return f"To return to version {evaluation.standing_champion}: switchyard models rollback {model} --why REASON"
    return ""


def run_description(
    outcome: str, name: str, evaluation: Evaluation, summary: DatasetSummary, run: tuple[str, str] | None, step: str = ""
) -> str:
    """Returns the description of a pipeline's MLflow run.

    Args:
        outcome: what became of the best candidate, in one sentence.
        name: name of the registered model.
        evaluation: evaluation of all models.
        summary: the data.
        run: ids of the run's experiment and the run, for links; None when MLflow was unreachable.
        step: see `next_step`.
    """
    head, rows = models_table(evaluation)
    parts = [
        f"**{'Blessed' if evaluation.blessed else 'Not blessed'}.** {plain(outcome)}",
        plain(step),
        _table(head, rows),
        _bullets(evaluation.lines()),
        _data(summary),
    ]
    if run:
        files = "#/experiments/{}/runs/{}/artifacts".format(*run)
        parts.append(f"[Report]({files}/report/report.html) · [config]({files}/config/pipeline.yaml) · [model](#/models/{name})")
    parts.append("Run it again with the config: `switchyard run pipeline.yaml`")
    return _joined(parts, _DESCRIPTION_LENGTH)


def model_card(
    result: ModelResult,
    evaluation: Evaluation,
    summary: DatasetSummary,
    why: str,
    digest: str,
    started: Mapping[str, str] | None = None,
    members: str = "",
    environment: Mapping[str, str] | None = None,
) -> str:
    """Returns the model card of a candidate: metrics with intervals, worst slices, gates, data, limits and lineage.

    Args:
        result: evaluation of the candidate.
        evaluation: evaluation of all models.
        summary: the data.
        why: comparison with the champion, or the reason why there is none.
        digest: digest of the bundle's manifest.
        started: of a training that started from a version, that version and its digest, see `Origin.tags`.
        members: of an ensemble, its members and their weights.
        environment: the software that trained it, see `environment_of`.
    """
    passed, because = "passed all gates" if result.passed else "did not pass", f"; {plain(why)}" if why else ""
    parts = [
        f"**{plain(result.framework)}**, {evaluation.task}: {passed}{' and is blessed' if result.blessed else ''}{because}.",
        *([f"Weighted mean of its members' predictions: {plain(members)}"] if members else []),
        "### Metrics\n\n" + _metrics(result, evaluation),
    ]
    if result.slices:
        parts.append(f"### Worst slices by {plain(evaluation.slice_metric)}\n\n" + _worst_slices(result, evaluation))
    if evaluation.thresholds:
        parts.append("### Thresholds\n\n" + _bullets(_threshold(n, bounds) for n, bounds in evaluation.thresholds.items()))
    parts.append("### Data\n\n" + _data(summary))
    limits = [*result.failures, *result.notes, *evaluation.notes]
    own = [line for line in evaluation.lines() if line not in limits]
    parts.append("### Limits\n\n" + _bullets(dict.fromkeys([*limits, *own])))
    if started:
        parts.append(f"Training started from {plain(started[STARTED_FROM])}, digest `{started[STARTED_FROM_DIGEST]}`")
    if environment:
        parts.append(f"Trained with the packages {plain(environment[LOCK])}; image: {plain(environment[IMAGE])}")
    if digest:
        parts.append(f"Digest of the bundle: `{digest}`")
    return _joined(parts, _CARD_LENGTH)


def _joined(parts: Sequence[str], most: int) -> str:
    """Returns the parts that fit: one that is cut in the middle would lose the end of its table."""
    ending = "… More is in the report of the run."
    text, whole = "", True
    for part in filter(None, parts):
        fits = len(text) + len(part) + len(ending) + 4 <= most
        text += f"{part}\n\n" if fits else ""
        whole = whole and fits
    return text.rstrip() if whole else f"{text}{ending}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [plain(h) for h in head]
    lines = [cells, ["---"] * len(cells), *([c if _FIGURES.fullmatch(c) else plain(c) for c in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"* {plain(line)}" for line in lines if line)


def _metrics(result: ModelResult, evaluation: Evaluation) -> str:
    champion = evaluation.models.get(CHAMPION)
    head = ["metric", "value", "95 % interval", *([f"champion, version {champion.version}"] if champion else [])]
    rows = []
    for name, value in result.metrics.items():
        low_high = result.intervals.get(name)
        between = f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else ""
        rows.append([name, number(value), between, *([number(champion.metrics.get(name))] if champion else [])])
    return _table(head, rows)


def _worst_slices(result: ModelResult, evaluation: Evaluation) -> str:
    metric = evaluation.slice_metric
    worst = [(key, values) for key, values in evaluation.worst_first(result) if metric in values][:_MOST_SLICES]
    rows = [[key, number(values[metric]), number(values.get("example_count"))] for key, values in worst]
    return _table(["slice", metric, "rows"], rows)


def _threshold(name: str, bounds: dict[str, object]) -> str:
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in bounds.items() if value not in (None, False))


def _data(summary: DatasetSummary) -> str:
    rows = ", ".join(f"{split} {count:,}" for split, count in summary.rows.items())
    classes = f", classes {plain(', '.join(map(str, summary.classes[:20])))}" if summary.classes else ""
    files = plain(", ".join(summary.files[:3]) + (f" and {len(summary.files) - 3:,} more" if len(summary.files) > 3 else ""))
    return (
        f"Data: {files}; label {plain(str(summary.label or 'none'))}{classes}; {len(summary.columns):,} columns; rows: {rows}; "
        f"SHA-256 `{summary.fingerprint[:16]}`"
    )
