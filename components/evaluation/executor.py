"""The evaluation stage's executor: predictions of all models, TFMA's metrics, the model gate and `metrics.json`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils

from switchyard.components.artifacts import DIVERGED
from switchyard.components.baseline.contents import BaselineContents, champion_folder
from switchyard.components.bundle.model import bundle_path
from switchyard.components.compat.tfx_components import beam_pipeline
from switchyard.components.data.row_keys import load_row_keys
from switchyard.components.data.summary import DatasetSummary, split_files
from switchyard.components.errors import UserError, did_you_mean
from switchyard.components.evaluation.bootstrap import Rows, interval, replicates
from switchyard.components.evaluation.config import EvaluationSettings
from switchyard.components.evaluation.measuring import Measuring
from switchyard.components.evaluation.model_gate import Replicates, SameRows, compare, judge, ranked
from switchyard.components.evaluation.own_metrics import own_metrics, own_names, own_replicates, own_slices
from switchyard.components.evaluation.page import evaluation_html, models_table
from switchyard.components.evaluation.periods import note_on_keys, note_on_periods
from switchyard.components.evaluation.predictions import ChampionError, beside
from switchyard.components.evaluation.results import CANDIDATE, CHAMPION, Evaluation, ModelResult
from switchyard.components.evaluation.row_plots import confusion_metrics, row_plots
from switchyard.components.evaluation.stored_rows import read_rows
from switchyard.components.evaluation.tfma_results import read_metrics, read_plots
from switchyard.components.evaluation.thresholds import check_settings, default_thresholds
from switchyard.components.evaluation.trivial import Trivial
from switchyard.components.metrics import PRIMARY
from switchyard.components.metrics import names as metric_names
from switchyard.components.progress import say, warn
from switchyard.components.tasks import MULTILABEL, RANKING, TASKS
from switchyard.components.text.visible import in_a_line
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.manifest import digest_of


class Executor(base_beam_executor.BaseBeamExecutor):
    """The evaluation executor: reads raw `examples`, one or more `model`s and `baseline`; writes `evaluation` and `blessing`."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class."""
        settings = EvaluationSettings.model_validate_json(exec_properties["settings"])
        examples_uri = artifact_utils.get_single_uri(input_dict["examples"])
        artifacts = {_framework(m): m for m in input_dict["model"]}
        output = artifact_utils.get_single_uri(output_dict["evaluation"])
        summary = DatasetSummary.load(examples_uri)
        check_settings(settings, summary.task, summary.targets)
        check_slices(settings.slices, summary)
        files = split_files(examples_uri, summary.held_out)
        baseline_uri = artifact_utils.get_single_uri(input_dict["baseline"])
        baseline = BaselineContents.load(baseline_uri)
        models = {
            n: ModelResult(n, CANDIDATE, n, a.uri, None, {}, {}, {}, {}, failures=_diverged(a)) for n, a in artifacts.items()
        }
        bundles = {n: (str(bundle_path(a.uri)), digest_of(a)) for n, a in artifacts.items()}
        if baseline.comparable(settings.comparable):
            models[CHAMPION] = ModelResult(
                CHAMPION, CHAMPION, baseline.framework, baseline.model_uri, baseline.version, {}, {}, {}, {}
            )
            bundles[CHAMPION] = (str(champion_folder(baseline_uri)), baseline.digest)
        rows_of_split = f"{summary.rows[summary.held_out]:,} rows of {summary.held_out}"
        say(f"{rows_of_split}, {', '.join(models)}, {len(settings.slices)} slicings")
        measured = _names(models, partly=CHAMPION in models and baseline.judged < baseline.rows)
        try:
            Measuring(files, bundles, settings.slices, summary, measured, output).run(beam_pipeline(self))
        except ChampionError as failure:
            del models[CHAMPION], bundles[CHAMPION]
            baseline = replace(baseline, obstacle=f"it fails: {failure}")
            warn(baseline.why_not(settings.comparable))
            measured = list(models)
            Measuring(files, bundles, settings.slices, summary, measured, output).run(beam_pipeline(self))
        keys = load_row_keys(examples_uri) if summary.split_key else None
        rows = read_rows(output, list(models), summary, settings.slices if settings.metrics else (), keys)
        check_labels(rows.labels[rows.each > 0], summary)
        if not settings.thresholds:
            settings = settings.model_copy(
                update={"thresholds": default_thresholds(summary.task, rows.labels, summary.targets, rows.weights, rows.last)}
            )
        result = _result(output, models, measured, rows, settings, summary, baseline)
        result.save(output)
        _bless(artifact_utils.get_single_instance(output_dict["blessing"]), artifacts[result.best], result)
        _track(result, output, summary)


def _framework(model: Any) -> str:
    return str(model.get_string_custom_property("framework"))


def _diverged(model: Any) -> list[str]:
    why = model.get_string_custom_property(DIVERGED)
    return [why] if why else []


def _names(models: Mapping[str, ModelResult], *, partly: bool) -> list[str]:
    """Returns the names to measure: each candidate also on the champion's rows if the champion cannot judge all rows."""
    return [*models, *(beside(n) for n in models if partly and n != CHAMPION)]


def _result(
    output: str,
    models: Mapping[str, ModelResult],
    measured: Sequence[str],
    rows: Rows,
    settings: EvaluationSettings,
    summary: DatasetSummary,
    baseline: BaselineContents,
) -> Evaluation:
    found = _measured(output, models, measured, rows, summary, settings)
    candidates = {n: m for n, m in found.items() if m.role == CANDIDATE and n in models}
    metric = (settings.improvement.metric if settings.improvement else None) or PRIMARY[summary.task]
    everything = _replicates(rows, metric, settings.metrics) if CHAMPION in found and rows.judged(CHAMPION).all() else None
    of_candidates = rows.of(list(candidates))
    samples = {n: everything[n] for n in candidates} if everything else _replicates(of_candidates, metric, settings.metrics)
    not_compared = baseline.why_not(settings.comparable)
    standing = f"{not_compared}. {_what_to_do(baseline)}" if baseline.version and not_compared else ""
    same = None
    if CHAMPION in found:
        judged = rows.judged(CHAMPION)
        beside_it = {n: replace(found.get(beside(n), m), name=n) for n, m in candidates.items()}
        on = "" if judged.all() else f"{judged.sum():,} of {len(judged):,} rows"
        same = SameRows(found[CHAMPION], beside_it, everything or _replicates(rows.where(judged), metric, settings.metrics), on)
    best, verdicts = judge(
        _with_intervals(candidates, samples),
        settings,
        metric,
        samples,
        None if TASKS[summary.task].own_shape else Trivial.of(rows, metric),
        same,
        standing,
        baseline.model_uri,
    )
    order = ranked(list(verdicts.values()), metric, settings)
    comparisons = [compare(verdicts[best], m, metric, samples, settings) for m in order if m.name != best]
    if same:
        champion = replace(_with_intervals({CHAMPION: same.champion}, same.samples)[CHAMPION], passed=True, blessed=True)
        order.append(champion)
        for name in verdicts:
            against = compare(same.candidates[name], champion, metric, same.samples, settings)
            comparisons.append(replace(against, on=same.on))
    notes = [*_without_trivial(summary.task, metric), *_on_clusters(summary, rows)]
    partly = [f"the champion cannot predict some rows: {reason}" for reason in baseline.reasons()] if same and same.on else []
    return Evaluation(
        task=summary.task,
        metric=metric,
        split=summary.held_out,
        rows=len(rows.labels),
        best=best,
        models={m.name: m for m in order},
        comparisons=comparisons,
        thresholds={name: threshold.model_dump() for name, threshold in settings.thresholds.items()},
        champion=baseline.version if same else None,
        compared_rows=int(rows.judged(CHAMPION).sum()) if same else 0,
        not_compared=not_compared,
        standing_champion=baseline.version,
        notes=[*([baseline.note] if same else []), *partly, *notes],
        positive_class=None if summary.positive_class is None else str(summary.positive_class),
        positive_by=summary.positive_by,
        champion_origin=baseline.origin,
        higher_is_better=settings.direction(metric) > 0,
    )


def _without_trivial(task: str, metric: str) -> list[str]:
    if not TASKS[task].own_shape:
        return []
    return [f"a {task} task has no trivial predictor: the bound on {metric} in evaluation.thresholds takes its place"]


def _on_clusters(summary: DatasetSummary, rows: Rows) -> list[str]:
    note = ""
    if summary.windows is not None:
        note = note_on_periods(summary.windows, summary.held_out)
    elif rows.clusters is not None:
        note = note_on_keys(len(np.unique(rows.clusters)), summary.split_key, f"the split {summary.held_out!r}")
    return [note] if note else []


def _replicates(rows: Rows, metric: str, own: str | None) -> dict[str, dict[str, np.ndarray]]:
    """Returns `bootstrap.replicates`, with those of the deciding metric if it is the user's."""
    found = replicates(rows)
    if own and metric in own_names(own):
        for model, values in own_replicates(own, metric, rows).items():
            found[model][metric] = values
    return found


def _measured(
    output: str,
    models: Mapping[str, ModelResult],
    names: Sequence[str],
    rows: Rows,
    summary: DatasetSummary,
    settings: EvaluationSettings,
) -> dict[str, ModelResult]:
    """Returns the models, and the candidates on the champion's rows, with TFMA's metrics and plots, and the user's metrics."""
    metrics, plots = read_metrics(output, names, metric_names(summary.task, targets=summary.targets)), read_plots(output, names)
    found, own = {}, settings.metrics
    for name in names:
        slices = dict(metrics[name])
        overall = slices.pop("") | confusion_metrics(plots[name], len(summary.classes))
        if name not in models:
            candidate = next(n for n in models if beside(n) == name)
            its = rows.where(rows.judged(CHAMPION))
            overall |= own_metrics(own, its, candidate)
            _add(slices, own_slices(own, its, candidate, settings.min_slice_examples))
            found[name] = ModelResult(name, CANDIDATE, "", "", None, overall, {}, slices, {})
            continue
        its = rows.where(rows.judged(name)) if name == CHAMPION else rows
        if len(its.labels) < len(rows.labels):
            overall["example_count"] = float(len(its.labels))
        overall |= own_metrics(own, its, name)
        _add(slices, own_slices(own, its, name, settings.min_slice_examples))
        bad = int((~np.isfinite(its.scores[name])).any(axis=1).sum())
        failures = [
            *models[name].failures,
            *([f"{bad:,} of its {len(its.labels):,} predictions are not finite numbers"] if bad else []),
        ]
        its_plots = plots[name] | row_plots(its, name, len(summary.classes))
        found[name] = replace(models[name], metrics=overall, slices=slices, failures=failures, plots=its_plots)
    return found


def _add(slices: dict[str, dict[str, float]], own: Mapping[str, Mapping[str, float]]) -> None:
    for key, values in own.items():
        slices.setdefault(key, {}).update(values)


def _with_intervals(models: Mapping[str, ModelResult], samples: Replicates) -> dict[str, ModelResult]:
    found = {}
    for name, model in models.items():
        drawn = {metric: interval(values) for metric, values in samples[name].items()}
        found[name] = replace(model, intervals={m: list(i) for m, i in drawn.items() if i})
    return found


def _what_to_do(baseline: BaselineContents) -> str:
    return (
        "The champion stays and the candidate is kept as challenger. Review it, then: switchyard models promote "
        f"{baseline.name} challenger --force --why '...'; or set evaluation.incomparable_champion: replace"
    )


def check_labels(labels: np.ndarray, summary: DatasetSummary) -> None:
    """Raises UserError for rows whose labels are so alike that no model can be evaluated on them.

    Args:
        labels: see `Rows`; of the rows of a weight above 0.
        summary: summary of the examples.
    """
    weighed = " of a weight above 0" if summary.sample_weight else ""
    if summary.task == "binary" and len(np.unique(labels)) < 2:
        only = summary.classes[int(labels[0])]
        raise UserError(
            f"data.splits: all {len(labels)} examples{weighed} of the split {summary.held_out!r} have the label {only!r}: the "
            f"other class cannot be evaluated. Use more rows, a larger {summary.held_out} split, or another data.split_key."
        )
    if summary.task == RANKING and not (labels[:, 0] > 0).any():
        raise UserError(
            f"data.splits: no row of the split {summary.held_out!r} has a {summary.label} above 0: no query has an order "
            f"that can be evaluated. Use more rows, or a larger {summary.held_out} split."
        )
    if summary.task == MULTILABEL:
        alike = [name for name, of in zip(summary.labels, labels.T, strict=True) if len(np.unique(of)) < 2]
        of = f"the label{'s' * (len(alike) > 1)} {in_a_line(alike)}"
        where = f"the rows{weighed} of the split {summary.held_out!r} have one value only of {of}"
        if len(alike) == len(summary.labels):
            raise UserError(
                f"data.splits: {where}: nothing can be evaluated. Use more rows, a larger {summary.held_out} split, or another "
                "data.split_key."
            )
        if alike:
            warn(f"{where}: no AUC is measured of it, and auc is the mean of the other labels'")


def check_slices(slices: Sequence[Sequence[str]], summary: DatasetSummary) -> None:
    """Raises UserError for a slice by an unknown column."""
    for name in {f for group in slices for f in group}:
        if name not in summary.columns:
            raise UserError(
                f"evaluation.slices: unknown column {name!r}.{did_you_mean(name, summary.columns)} "
                f"Columns: {in_a_line(summary.columns)}."
            )


def _bless(blessing: Any, model: Any, result: Evaluation) -> None:
    # The files and properties of TFX's Evaluator, for compatibility with TFX's Pusher and resolvers.
    os.makedirs(blessing.uri, exist_ok=True)
    name = "BLESSED" if result.blessed else "NOT_BLESSED"
    with open(os.path.join(blessing.uri, name), "w", encoding="utf-8"):
        pass
    blessing.set_int_custom_property("blessed", int(result.blessed))
    blessing.set_string_custom_property("current_model", model.uri)
    blessing.set_int_custom_property("current_model_id", model.id)
    for name, judged in result.models.items():
        for reason in judged.failures:
            warn(f"{name}: {reason}" if len(result.models) > 1 else reason)


def _track(result: Evaluation, output: str, summary: DatasetSummary) -> None:
    run, parent = tracking.current_run(), tracking.current_run(parent=True)
    run.metrics(result.metrics)
    several = {f"{n}.{k}": v for n, m in result.models.items() for k, v in m.metrics.items()} if len(result.models) > 1 else {}
    run.metrics(several)
    run.tags({"blessed": str(result.blessed).lower(), "best": result.best})
    compared = {
        "evaluated_on": result.split,
        "compared_with_champion": result.champion or "none",
        "compared_rows": f"{result.compared_rows} of {result.rows}",
        "not_compared": result.not_compared or "none",
    }
    for target in (run, parent):
        target.tags(compared)
    page = os.path.join(output, "evaluation.html")
    Path(page).write_text(evaluation_html(result, summary), encoding="utf-8")
    run.file(page, "evaluation")
    run.file(os.path.join(output, "metrics.json"), "evaluation")
    head, table = models_table(result)
    columns = {h or "model": [row[i] for row in table] for i, h in enumerate(head)}
    for target in (run, parent):
        target.table(columns, "evaluation/models.json")
    for line in result.lines():
        say(line)
