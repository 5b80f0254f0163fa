"""Metrics of the user's own: NumPy functions over all rows, with thresholds on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from switchyard.components import progress
from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import Rows, replicates
from switchyard.components.evaluation.own_metrics import coded_slices, own_metrics, own_names, own_replicates, own_slices
from switchyard.components.tasks import TASKS
from switchyard.pipelines.api.compare_own import custom_labels, measure_own
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import evaluation_settings
from switchyard.pipelines.preflight import check_inputs
from tests.bad_input import Case, config

pytestmark = pytest.mark.core

METRICS = """import numpy as np
from helper import weight


def gain(labels, scores):
    return _of(labels) * weight * scores[:, 0].mean()


def kind(labels, scores):
    return np.float32(labels.dtype.kind == "i")


def _of(labels):
    return labels.sum()
"""
FILES = {"metrics.py": METRICS, "helper.py": "weight = 2.0\n"}
ROWS = Rows("binary", np.array([0.0, 1.0, 1.0]), {"m": np.array([[0.25], [0.5], [0.75]], np.float32)})


@pytest.fixture
def file(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return str(tmp_path / "metrics.py")


def test_every_function_is_a_metric_of_labels_and_scores(file):
    assert own_names(file) == ["gain", "kind"]
    assert own_metrics(file, ROWS, "m") == {"gain": 2.0, "kind": 1.0}
    quantiles = replace(ROWS, task="quantile", labels=np.array([0.4, 0.4, 0.2]), targets=["0.5"])
    assert own_metrics(file, quantiles, "m") == {"gain": 1.0, "kind": 0.0}
    assert own_metrics(None, ROWS, "m") == {}


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if not task.own_shape])
def test_labels_are_integers_where_they_are_classes_or_0_and_1(task, file):
    is_integer = task in ("binary", "multiclass", "multilabel")
    assert own_metrics(file, replace(ROWS, task=task), "m")["kind"] == is_integer


@pytest.mark.parametrize("value", ["float('nan')", "float('-inf')"])
def test_a_metric_that_is_undefined_is_absent_with_a_warning(value, tmp_path):
    (tmp_path / "metrics.py").write_text(f"def lift(labels, scores): return {value}\n")
    heard: list[str] = []
    progress.set_sink(heard.append)
    try:
        assert own_metrics(str(tmp_path / "metrics.py"), ROWS, "m") == {}
    finally:
        progress.set_sink(None)
    assert [line.partition(" the function")[0] for line in heard] == ["warning: evaluation.metrics: lift of m is undefined:"]


def test_a_model_with_predictions_that_are_not_finite_has_no_custom_metrics(tmp_path):
    (tmp_path / "metrics.py").write_text("def gain(labels, scores): raise ValueError('Input contains NaN')\n")
    diverged = replace(ROWS, scores={"m": np.array([[0.25], [np.nan], [0.75]], np.float32)})
    assert own_metrics(str(tmp_path / "metrics.py"), diverged, "m") == {}


def test_a_champion_with_other_classes_has_as_many_scores_as_the_candidates(tmp_path):
    (tmp_path / "metrics.py").write_text("def outputs(labels, scores): return scores.shape[1]\n")
    scores = {"m": np.full((3, 3), 1 / 3, np.float32), "champion": np.full((3, 4), 0.25, np.float32)}
    rows = replace(ROWS, task="multiclass", scores=scores)
    assert own_metrics(str(tmp_path / "metrics.py"), rows, "champion") == {"outputs": 3.0}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def gain(labels, scores): return labels['a']", r"evaluation.metrics: gain failed: metrics.py, line 1: IndexError"),
        ("def gain(labels, scores): return scores", "evaluation.metrics: gain must return a number, received ndarray"),
        ("def gain(labels, scores): return 'much'", "evaluation.metrics: gain must return a number, received str"),
        ("def auc(labels, scores): return 1.0", "'auc' is a built-in metric; rename the function"),
        ("gain = 3", "metrics.py has no function; define"),
    ],
)
def test_a_function_that_is_no_metric_is_refused(code, why, tmp_path):
    (tmp_path / "metrics.py").write_text(code + "\n")
    with pytest.raises(UserError, match=why):
        own_metrics(str(tmp_path / "metrics.py"), ROWS, "m")


@pytest.mark.parametrize(
    ("evaluation", "why"),
    [
        ({"thresholds": {"gian": {"lower_bound": 1}}}, "'gian' is not a metric of a binary task. Did you mean 'gain'"),
        ({"thresholds": {"gain": {"min_change": 1}}}, "gain.min_change: 'gain' has no direction"),
        ({"improvement": {"metric": "gain"}}, "evaluation.improvement.better: is missing, and 'gain' is"),
        ({"improvement": {"metric": "auc", "better": "higher"}}, "evaluation.improvement.better: only a metric of your own"),
        ({"improvement": {"better": "lower"}}, "evaluation.improvement.better: only a metric of your own"),
        (
            {"improvement": {"metric": "gian", "better": "lower"}},
            "'gian' cannot decide between two models of a binary task. Did you mean 'gain'",
        ),
    ],
)
def test_a_threshold_of_an_unknown_custom_metric_is_refused_before_a_run(evaluation, why, tmp_path):
    case = Case("", "", config(evaluation={"metrics": "metrics.py", **evaluation}), FILES)
    with pytest.raises(UserError, match=why):
        check_inputs(load_config(case.write(tmp_path)), tmp_path / "code")


@pytest.mark.parametrize(
    "code",
    [
        "def error(labels, scores): return ((labels - scores[:, 0]) ** 2).mean()",
        "import numpy as np\n\ndef error(labels, scores, weights):\n"
        "    return np.average((labels - scores[:, 0]) ** 2, weights=weights)",
    ],
)
def test_the_bootstrap_of_a_custom_metric_draws_the_rows_of_the_built_in_metrics(code, tmp_path):
    (tmp_path / "metrics.py").write_text(code + "\n")
    random = np.random.default_rng(0)
    labels, scores = random.normal(size=300), {m: random.normal(size=(300, 1)) for m in ("a", "b")}
    rows = Rows("regression", labels, scores)
    found = own_replicates(str(tmp_path / "metrics.py"), "error", rows)
    for model, metrics in replicates(rows).items():
        assert found[model] == pytest.approx(metrics["loss"])


def test_a_custom_metric_with_weights_has_the_sample_weights_in_its_bootstrap(tmp_path):
    (tmp_path / "metrics.py").write_text("def mass(labels, scores, weights): return (weights * labels).sum() / weights.sum()\n")
    random = np.random.default_rng(0)
    labels, weights = random.normal(size=300), random.random(300)
    rows = Rows("regression", labels, {"m": labels[:, None] * 0}, weights=weights)
    found = own_replicates(str(tmp_path / "metrics.py"), "mass", rows)["m"]
    assert found.mean() == pytest.approx(np.average(labels, weights=weights), abs=0.02)


def test_the_bootstrap_of_a_ranking_draws_whole_queries_each_time_as_one_of_its_own(tmp_path):
    code = "from switchyard.components.evaluation.ranking import query_values\n\n"
    (tmp_path / "metrics.py").write_text(
        f"{code}def mine(labels, scores): return query_values(labels, scores)['ndcg_10'].mean()\n"
    )
    random = np.random.default_rng(0)
    relevance = np.concatenate([np.ones(40), random.integers(0, 4, 260)])  # each query has a relevant row
    queries = np.concatenate([np.arange(40), random.integers(0, 40, 260)])
    labels = np.stack([relevance, 40 * queries], axis=1)  # a copy of one is no other one
    rows = Rows("ranking", labels, {"m": random.normal(size=(300, 1))})
    found = own_replicates(str(tmp_path / "metrics.py"), "mine", rows)["m"]
    assert found == pytest.approx(replicates(rows)["m"]["ndcg_10"][: len(found)])


def test_slices_of_enough_rows_are_measured_by_the_users_metrics_too(tmp_path):
    (tmp_path / "metrics.py").write_text(
        "def mean(labels, scores): return labels.mean()\n"
        "def heavy(labels, scores, weights): return weights.sum()\n"
        "def one_class(labels, scores): return float('nan') if len(set(labels)) > 1 else 1 / labels[0]\n"
    )
    table = pa.table({"slice:city": ["b", "a", "b", "a", "c"], "slice:n": ["1", "1", "1", "2", "1"]})
    slices = list(coded_slices(table, [["n", "city"], ["city"]]))
    labels = np.array([0.0, 1.0, 1.0, 1.0, 1.0])
    rows = Rows("binary", labels, {"m": np.full((5, 1), 0.5)}, weights=np.arange(5.0), slices=slices)
    file = str(tmp_path / "metrics.py")
    assert own_slices(file, rows, "m", 2) == {
        "city=a": {"mean": 1.0, "heavy": 4.0, "one_class": 1.0},
        "city=b": {"mean": 0.5, "heavy": 2.0},
        "city=b, n=1": {"mean": 0.5, "heavy": 2.0},
    }
    assert own_slices(file, rows.where(labels == 1), "m", 1)["city=b"] == {"mean": 1.0, "heavy": 2.0, "one_class": 1.0}
    assert own_slices(None, rows, "m", 1) == {}
    assert own_slices(file, replace(rows, scores={"m": np.full((5, 1), np.nan)}), "m", 1) == {}


def test_two_models_are_compared_by_the_users_metrics_on_the_same_rows(tmp_path):
    (tmp_path / "metrics.py").write_text("def error(labels, scores): return ((labels - scores[:, 0]) ** 2).mean()\n")
    random = np.random.default_rng(0)
    labels = random.normal(size=300)
    scores = {"1": random.normal(size=(300, 1)), "2": labels[:, np.newaxis] * 0.9}
    rows = Rows("regression", labels, scores)
    measured, changes = measure_own(tmp_path / "metrics.py", rows)
    errors = {m: ((labels - s[:, 0]) ** 2).mean() for m, s in scores.items()}
    assert measured == {m: {"error": pytest.approx(error)} for m, error in errors.items()}
    change, (low, high) = changes["error"]
    assert change == pytest.approx(errors["2"] - errors["1"])
    assert low < change < high < 0
    assert measure_own(None, rows) == ({"1": {}, "2": {}}, {})


@pytest.mark.parametrize(
    ("values", "shape", "expected"),
    [
        ([[[1, 2], [3, 4]], np.array([[5, 6], [7, 8]])], [2, 2], [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ([1, "2.5"], [], [[1], [2.5]]),
        ([[1, 2], [3]], [2], "y of row 3 is not 2 finite numbers"),
        ([[1, 2], [3, None]], [2], "y of row 3 is not 2 finite numbers"),
        ([[1, float("inf")]], [2], "y of row 2 is not 2 finite numbers"),
    ],
)
def test_labels_of_a_custom_task_are_read_for_a_comparison(values, shape, expected):
    frame = pd.DataFrame({"y": values}, index=range(2, 2 + len(values)))  # the rows before have no label
    assert custom_labels(frame, [], shape, Path("d.jsonl")).shape == (len(values), 0)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            custom_labels(frame, ["y"], shape, Path("d.jsonl"))
    else:
        np.testing.assert_array_equal(custom_labels(frame, ["y"], shape, Path("d.jsonl")), expected)


def test_a_replicate_on_which_a_custom_metric_fails_is_undefined(tmp_path):
    (tmp_path / "metrics.py").write_text("def gain(labels, scores): return 1 / (len(set(labels)) - 1)\n")
    rows = replace(ROWS, scores={**ROWS.scores, "bad": np.full((3, 1), np.nan, np.float32)})
    found = own_replicates(str(tmp_path / "metrics.py"), "gain", rows)
    assert found.keys() == {"m"}
    assert 0 < np.isnan(found["m"]).mean() < 1


def test_a_threshold_of_a_custom_metric_is_accepted_and_its_file_is_carried(tmp_path):
    given = {"metrics": "metrics.py", "thresholds": {"gain": {"lower_bound": 1}}}
    loaded = load_config(Case("", "", config(evaluation=given), FILES).write(tmp_path))
    check_inputs(loaded, tmp_path / "code")
    taken = evaluation_settings(loaded, tmp_path / "code")
    assert own_names(taken.metrics) == ["gain", "kind"]
    (tmp_path / "helper.py").write_text("weight = 3.0\n")
    assert evaluation_settings(loaded, tmp_path / "code").metrics != taken.metrics


def test_a_file_that_is_not_python_is_refused():
    with pytest.raises(UserError, match=r"metrics: 'metrics\.txt' is not a Python file"):
        load_config(None, document=config(evaluation={"metrics": "metrics.txt"}))
