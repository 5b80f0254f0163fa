"""Renders the tuning page: best values, history, hyperparameter importance and all trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from switchyard.components.pages.page import COLOURS, INK, axes, legend, number, render, svg, table
from switchyard.components.tuning.results import TrialResult, TuningResult

_BAR = 0.35
# Ratio of the largest to the smallest value above which the axis is logarithmic.
_WIDE = 20


def tuning_page(framework: str, result: TuningResult) -> str:
    """Returns the page as HTML."""
    best = result.best_trial
    values = ", ".join(f"{k} {_shown(v)}" for k, v in result.values.items())
    sections: list[dict[str, Any]] = [
        {"title": "Best", "text": f"Trial {best.number}: {values}; {result.metric} {number(best.value)}."},
        {"title": "Progress", "plots": _plots(result)},
        {"title": "Trials", "table": _table(result)},
    ]
    failed = [f"Trial {t.number}: {t.why}" for t in result.trials if t.why]
    if failed:
        sections.append({"title": "Failed", "lines": failed})
    counts = ", ".join(f"{sum(t.state == s for t in result.trials)} {s}" for s in ("complete", "pruned", "failed"))
    return render(f"Tuning of {framework}", f"{len(result.trials)} trials: {counts}", sections)


def _plots(result: TuningResult) -> list[Any]:
    plots = [_history(result)]
    if result.importance:
        plots.append(_importance(result.importance))
    return [*plots, *(_against(result, name) for name in result.values)]


def _history(result: TuningResult) -> Any:
    figure, ax = axes(title="Trials in order", x="trial", y=result.metric)
    for state, colour in (("complete", COLOURS[0]), ("pruned", INK)):
        found = _with_value(result.trials, state)
        ax.plot([t.number for t in found], [t.value for t in found], "o", color=colour, markersize=3, label=state)
    ax.axhline(result.best_trial.value or 0.0, color=COLOURS[2], linewidth=0.8, label="best")
    legend(ax)
    return svg(figure, f"{result.metric} of each trial")


def _importance(importance: dict[str, float]) -> Any:
    names = list(reversed(importance))
    figure, ax = axes(height=0.9 + _BAR * len(names), title="Importance (fANOVA)", x="share")
    ax.barh(names, [importance[n] for n in names], color=COLOURS[0])
    return svg(figure, "importance of each hyperparameter")


def _against(result: TuningResult, name: str) -> Any:
    figure, ax = axes(width=3.2, height=2.2, x=name, y=result.metric)
    found = [t for t in _with_value(result.trials, "complete") if name in t.values]
    raw = [t.values[name] for t in found]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in raw)
    ax.plot(raw if numeric else [str(v) for v in raw], [t.value for t in found], "o", color=COLOURS[0], markersize=3)
    if numeric and raw and min(raw) > 0 and max(raw) / min(raw) > _WIDE:
        ax.set_xscale("log")
    return svg(figure, f"{result.metric} by {name}")


def _with_value(trials: Sequence[TrialResult], state: str) -> list[TrialResult]:
    return [t for t in trials if t.state == state and t.value is not None]


def _table(result: TuningResult) -> Any:
    names = list(result.values)
    rows = [
        [str(t.number), t.state, number(t.value), *(_shown(t.values.get(n)) for n in names), str(t.epochs), number(t.seconds)]
        for t in result.trials
    ]
    return table(("trial", "", result.metric, *names, "epochs", "seconds"), rows)


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, float) else "" if value is None else str(value)
