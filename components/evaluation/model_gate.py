"""The model gate: thresholds, and significance tests against the trivial predictor and the champion."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from switchyard.components.evaluation.bootstrap import interval
from switchyard.components.evaluation.config import EvaluationConfig, Improvement, Threshold
from switchyard.components.evaluation.results import Comparison, ModelResult
from switchyard.components.evaluation.trivial import Trivial

# Confidence of the test against the trivial predictor if the config disables the comparison with the champion.
DEFAULT_CONFIDENCE = 0.95
Replicates = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class SameRows:
    """The champion and the candidates on the rows that the champion can judge.

    Attributes:
        champion: result of the champion.
        candidates: name -> result on these rows; equal to the overall result if these are all rows.
        samples: replicates of all these models, see `bootstrap.replicates`.
        on: description of the rows; empty for all rows.
    """

    champion: ModelResult
    candidates: Mapping[str, ModelResult]
    samples: Replicates
    on: str = ""


def judge(
    candidates: Mapping[str, ModelResult],
    settings: EvaluationConfig,
    metric: str,
    samples: Replicates,
    trivial: Trivial | None,
    same: SameRows | None = None,
    not_compared: str = "",
    champion_uri: str = "",
) -> tuple[str, dict[str, ModelResult]]:
    """Returns the name of the best candidate, and all candidates with their verdicts.

    Args:
        candidates: name -> result on all rows.
        settings: `thresholds`, `improvement`, `incomparable_champion`, `min_slice_examples`.
        metric: metric that decides between models.
        samples: replicates of the candidates, see `bootstrap.replicates`.
        trivial: trivial predictor, which a promoted candidate must significantly beat; None in a custom task, where the bound
            on the deciding metric takes its place.
        same: champion and candidates on the same rows; None if there is no champion or it cannot be compared.
        not_compared: reason why an existing champion cannot be compared; empty if it can, or if there is none.
        champion_uri: URI of the artifact that the champion was registered from; a candidate with this URI is the champion.
    """
    judged: dict[str, ModelResult] = {}
    eligible = []
    for name, model in candidates.items():
        failures, notes = check_thresholds(
            model, same.champion if same else None, settings, same.candidates[name] if same else None
        )
        failures = [*model.failures, *failures]
        passed = not failures
        if champion_uri and model.uri == champion_uri:
            notes.append("it is already the champion")
        else:
            failures += _not_promotable(model, settings, metric, samples, trivial, same, not_compared)
        judged[name] = dataclasses.replace(model, passed=passed, failures=failures, notes=[*model.notes, *notes])
        if not failures:
            eligible.append(name)
    best = max(eligible or candidates, key=lambda n: (judged[n].passed, _goodness(judged[n], metric, settings)))
    if eligible:
        judged[best] = dataclasses.replace(judged[best], blessed=True)
        for name in eligible:
            if name != best:
                values = [judged[n].metrics.get(metric, math.nan) for n in (name, best)]
                behind = f"{metric} {values[0]:.4f} ranks below {best}'s {values[1]:.4f}"
                judged[name] = dataclasses.replace(judged[name], notes=[*judged[name].notes, behind])
    return best, judged


def _not_promotable(
    model: ModelResult,
    settings: EvaluationConfig,
    metric: str,
    samples: Replicates,
    trivial: Trivial | None,
    same: SameRows | None,
    not_compared: str,
) -> list[str]:
    """Returns the reasons against promotion other than the candidate's own thresholds, one sentence each."""
    wanted = settings.improvement
    confidence = wanted.confidence if wanted else DEFAULT_CONFIDENCE
    found = []
    if trivial:
        found.append(trivial.not_better(model, samples.get(model.name, {}).get(trivial.metric), confidence))
    compares = wanted or any(t.min_change is not None for t in settings.thresholds.values())
    if not_compared and compares and settings.incomparable_champion == "keep":
        found.append(not_compared)
    if same and wanted:
        mine = same.candidates[model.name]
        comparison = compare(mine, same.champion, metric, same.samples, settings)
        found.append(not_better(mine, same.champion, comparison, wanted, same.samples, same.on))
    return [reason for reason in found if reason]


def check_thresholds(
    model: ModelResult, champion: ModelResult | None, settings: EvaluationConfig, beside: ModelResult | None = None
) -> tuple[list[str], list[str]]:
    """Returns the violated thresholds, and notes on those that could not be checked, one sentence each.

    Args:
        model: a candidate on all rows.
        champion: the champion on the rows that it can judge; None if there is none or it cannot be compared.
        settings: `thresholds` and `min_slice_examples`.
        beside: the candidate on the champion's rows; None if these are all rows.
    """
    beside = beside or model
    failures: list[str] = []
    notes: list[str] = []
    least = settings.min_slice_examples
    small: set[str] = set()
    for name, bounds in settings.thresholds.items():
        places: list[tuple[str, Mapping[str, float]]] = [("", model.metrics)]
        if bounds.per_slice:
            big = {k: v for k, v in model.slices.items() if v.get("example_count", 0) >= least}
            small |= model.slices.keys() - big.keys()
            places += list(big.items())
        for place, metrics in places:
            where = f" where {place}" if place else ""
            value = metrics.get(name, math.nan)
            if reason := out_of_bounds(name + where, value, bounds):
                failures.append(reason)
            change = bounds.min_change
            if change is None:
                continue
            if champion is None:
                notes.append(f"{name}.min_change was not checked: there is no champion")
                break
            before, value = ((m.slices.get(place, {}) if place else m.metrics).get(name, math.nan) for m in (champion, beside))
            difference = settings.direction(name) * (value - before)
            if not difference >= change:
                failures.append(
                    f"{name}{where} is {value:.4f}, the champion's {before:.4f}: an improvement of {difference:+.4f}, at "
                    f"least {change:+.4f} is required"
                )
    if small:
        notes.append(f"{len(small)} slices have fewer than {least} examples and were not checked")
    return failures, notes


def out_of_bounds(name: str, value: float, bounds: Threshold) -> str:
    """Returns the reason why a value violates its bounds, or an empty string."""
    low, high = bounds.lower_bound, bounds.upper_bound
    if math.isnan(value) and (low is not None or high is not None):
        return f"{name} could not be computed"
    if low is not None and not value >= low:
        return f"{name} is {value:.4f}, below its lower bound {low:.4f}"
    if high is not None and not value <= high:
        return f"{name} is {value:.4f}, above its upper bound {high:.4f}"
    return ""


def compare(model: ModelResult, other: ModelResult, metric: str, samples: Replicates, settings: EvaluationConfig) -> Comparison:
    """Returns the comparison of two models by a metric on the same rows."""
    sign = settings.direction(metric)
    difference = sign * (model.metrics.get(metric, math.nan) - other.metrics.get(metric, math.nan))
    drawn = _differences(model.name, other.name, metric, samples, sign)
    if drawn is None:
        return Comparison(model.name, other.name, metric, difference, None, None, None)
    bounds = interval(drawn)
    low, high = bounds or (None, None)
    probability = float(np.mean(drawn > 0) + np.mean(drawn == 0) / 2)
    return Comparison(model.name, other.name, metric, difference, low, high, probability)


def not_better(
    model: ModelResult,
    champion: ModelResult,
    found: Comparison,
    wanted: Improvement,
    samples: Replicates,
    on: str = "",
) -> str:
    """Returns the reason why a model is not significantly better than the champion, or an empty string."""
    least, confidence = wanted.minimum, wanted.confidence
    values = (
        f"{found.metric} is {model.metrics.get(found.metric, math.nan):.4f}, the champion's (version {champion.version}, "
        f"{champion.framework}) {champion.metrics.get(found.metric, math.nan):.4f} on {on or 'the same rows'}"
    )
    if confidence is None:
        return "" if found.difference > least else f"{values}: an improvement of more than {least:g} is required"
    drawn = _differences(model.name, champion.name, found.metric, samples, wanted.direction(found.metric))
    if drawn is None:
        return f"{values}: the confidence of the difference cannot be computed; set evaluation.improvement.confidence to null"
    bound = float(np.quantile(drawn, 1 - confidence)) if len(drawn) else -math.inf
    if bound > least:
        return ""
    kind = "worse" if found.difference < 0 else "not significantly better" if found.difference > 0 else "not better"
    return (
        f"{values}: {kind} (improvement {found.difference:+.4f}; lower bound at {confidence:.0%} confidence {bound:+.4f}, "
        f"which must be above {least:+g})"
    )


def _differences(model: str, other: str, metric: str, samples: Replicates, sign: int) -> np.ndarray | None:
    mine, theirs = samples.get(model, {}).get(metric), samples.get(other, {}).get(metric)
    if mine is None or theirs is None:
        return None
    drawn = sign * (mine - theirs)
    return np.asarray(drawn[np.isfinite(drawn)])


def _goodness(model: ModelResult, metric: str, settings: EvaluationConfig) -> float:
    value = model.metrics.get(metric, math.nan)
    return -math.inf if math.isnan(value) else settings.direction(metric) * value


def ranked(models: Sequence[ModelResult], metric: str, settings: EvaluationConfig) -> list[ModelResult]:
    """Returns the models sorted from best to worst."""
    return sorted(models, key=lambda m: _goodness(m, metric, settings), reverse=True)
