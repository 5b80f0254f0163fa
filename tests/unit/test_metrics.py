"""The table of metrics agrees with the code that computes, draws and describes them."""

from typing import get_args

import numpy as np
import pytest

from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import Rows, weighted_metrics
from switchyard.components.evaluation.results import CANDIDATE, Evaluation, ModelResult
from switchyard.components.evaluation.row_plots import row_plots
from switchyard.components.metrics import DIRECTION, HEADLINE, METRICS, PRIMARY, direction, names, trained_names
from switchyard.components.tasks import TASKS
from switchyard.components.training.epoch_metrics import epoch_metrics
from switchyard.components.tuning.config import TuneMetric
from tests.command import REPOSITORY

pytestmark = pytest.mark.core
BETTER = {1: "higher", -1: "lower", 0: "neither"}


def test_each_metric_has_one_row_in_the_table_and_each_task_has_a_primary_one():
    assert len({m.name for m in METRICS}) == len(METRICS)
    assert sorted(PRIMARY) == sorted(name for name, task in TASKS.items() if not task.own_shape)
    assert sum(len(m.primary) for m in METRICS) == len(PRIMARY)
    for task, name in PRIMARY.items():
        assert name in names(task, lambda m: m.direction and m.interval and m.headline)
    assert HEADLINE == ["auc", "accuracy", "mae", "loss", "coverage", "ndcg_10"]


@pytest.mark.parametrize("task", TASKS)
def test_the_bootstrap_resamples_the_metrics_with_an_interval_in_the_table(task):
    targets = {"quantile": ["0.1", "0.5", "0.9"], "label": ["a", "b"]}.get(TASKS[task].targets, [])
    outputs = len(TASKS[task].score_names([0, 1, 2] if TASKS[task].has_classes else [], targets))
    labels = np.array([0.0, 1.0, 1.0, 0.0])
    labels = np.stack([labels] * 2, axis=1) if TASKS[task].wide_labels else labels
    drawn = weighted_metrics(task, labels, np.full((4, outputs), 0.3, dtype=np.float32), targets)
    assert set(drawn) == set(names(task, lambda m: m.interval, targets))


def test_epoch_metrics_of_another_task_are_refused():
    with pytest.raises(UserError, match="epoch_metrics has no metrics of a custom task"):
        epoch_metrics("custom", np.zeros((3, 2)), np.zeros(3))


@pytest.mark.parametrize(("task", "targets"), [("regression", []), ("quantile", ["0.1", "0.9"]), ("multiclass", [])])
@pytest.mark.parametrize("diverged", [1, 4])
def test_predictions_that_are_not_finite_leave_an_evaluation_that_can_be_stored(task, targets, diverged, tmp_path):
    scores = np.full((4, 3 if task == "multiclass" else max(1, len(targets))), 0.25, np.float32)
    scores[:diverged] = np.nan
    plots = row_plots(Rows(task, np.array([0.0, 1.0, 2.0, 2.0]), {"m": scores}, targets=targets), "m", 3)
    model = ModelResult("m", CANDIDATE, "m", "", None, {}, {}, {}, plots)
    Evaluation(task, "loss", "test", 4, "m", {"m": model}, [], {}, None, 0, "", None, []).save(str(tmp_path))
    assert Evaluation.load(str(tmp_path)).models["m"].plots == plots
    assert bool(plots) is (diverged < 4)


def test_a_search_may_optimize_what_trainers_measure_and_knows_its_direction():
    assert list(get_args(TuneMetric)) == trained_names() == ["val_loss", "val_accuracy", "val_auc", "val_mae"]
    assert trained_names("regression") == ["val_loss", "val_mae"]
    assert [direction(name) for name in trained_names()] == [-1, 1, 1, -1]
    assert "example_count" not in DIRECTION


def row(metric):
    """A metric's row in the docs; a threshold may be set on what TFMA measures in slices, too."""
    meanings = {}
    for task, formula in metric.formulas.items():
        meanings.setdefault(formula.meaning, []).append(task)
    every = [f"{meaning} ({', '.join(tasks)})" if set(tasks) < set(TASKS) else meaning for meaning, tasks in meanings.items()]
    marks = ["yes" if yes else "no" for yes in (any(map(metric.has_threshold, TASKS)), metric.interval, metric.trained)]
    return f"| {' | '.join([f'`{metric.name}`', '; '.join(every), BETTER[metric.direction], *marks])} |"


def test_the_docs_have_the_table():
    text = "\n".join(path.read_text() for path in (REPOSITORY / "docs").rglob("*.md"))
    missing = [line for line in map(row, METRICS) if line not in text]
    assert not missing, "\n".join(["add to docs:", *missing])
