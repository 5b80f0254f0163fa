"""Sample weights outside of the frameworks: settings and columns that cannot be weights; a row of weight 2 is two rows."""

import numpy as np
import pytest

from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import Rows, replicates, weighted_metrics
from switchyard.components.evaluation.own_metrics import own_metrics
from switchyard.components.evaluation.row_plots import row_plots
from switchyard.components.evaluation.thresholds import default_thresholds
from switchyard.components.evaluation.trivial import Trivial
from switchyard.components.metrics import PRIMARY
from switchyard.components.progress import set_sink
from switchyard.components.training.epoch_metrics import epoch_metrics
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.preflight import check_inputs
from tests.bad_input import Case, config
from tests.training_inputs import TARGETS, TASKS, examples

pytestmark = pytest.mark.core

DATA = "x,word,count,w,y\n" + "".join(f"{i * 37 % 50},{'ab'[i % 3 % 2]},,{i % 4},{int(i * 37 % 50 > 25)}\n" for i in range(200))
OUTPUTS = {task: outputs for task, outputs in TASKS.items() if task != "ranking"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("y", {}, r"trainer\.sample_weight: the column 'y' is the label; name a column of its own"),
        ("w", {"exclude": ["w"]}, r"trainer\.sample_weight: the column 'w' is listed in data\.exclude"),
        ("w", {"columns": {"w": {"type": "text"}}}, r"trainer\.sample_weight: data\.columns declares 'w' as text"),
        ("", {}, r"trainer\.sample_weight: is empty; name a column, or remove it"),
        ("weight", {}, r"trainer\.sample_weight: unknown column 'weight'\..*Columns: "),
        ("word", {}, r"trainer\.sample_weight: 'word' holds values of type string, a weight is a number; name another column"),
        ("count", {}, r"trainer\.sample_weight: 'count' holds no values, a weight is a number; name another column"),
    ],
)
def test_a_column_that_cannot_be_a_weight_is_refused_before_anything_runs(name, data, message, tmp_path):
    given = config(trainer={"sample_weight": name}, data={"path": "d.csv", **data})
    case = Case("weight", message, files={"d.csv": DATA}, config=given)
    with pytest.raises(UserError, match=message):
        check_inputs(load_config(case.write(tmp_path)), tmp_path / "code")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "multioutput", "label": ["y", "w"]}, r"trainer\.sample_weight: the column 'w' is the label; name a column of"),
        ({"task": "ranking", "group": "word"}, r"trainer\.sample_weight: a ranking is trained and measured by query, not by row"),
    ],
)
def test_a_weight_that_is_one_of_several_labels_or_of_a_ranking_is_refused(given, message, tmp_path):
    case = Case("weight", message, files={"d.csv": DATA}, config=config(**given, trainer={"sample_weight": "w"}))
    with pytest.raises(UserError, match=message):
        load_config(case.write(tmp_path))


def test_the_examples_of_a_ranking_have_no_weights():
    with pytest.raises(UserError, match=r"trainer\.sample_weight: a ranking is trained and measured by query"):
        examples("ranking", 80, 0, weighted=True)


def weighted_rows(task):
    """Returns rows with whole weights, and the same rows as often as they weigh."""
    rng, targets = np.random.default_rng(3), TARGETS.get(task, ())
    classes = {"binary": 2, "multiclass": 3, "multilabel": 2}.get(task)
    shape = (300, OUTPUTS[task]) if task.startswith("multi") and targets else 300
    labels = rng.integers(0, classes, shape) if classes else rng.normal(size=shape)
    scores = rng.uniform(0.01, 0.99, (300, OUTPUTS[task]))
    scores = scores / scores.sum(axis=1, keepdims=True) if task == "multiclass" else scores
    scores = np.sort(scores, axis=1) if task == "quantile" else scores
    weights, scores = rng.integers(0, 4, 300), scores.astype(np.float32)
    rows = Rows(task, labels.astype(float), {"m": scores}, targets=targets, weights=weights.astype(float))
    often = Rows(task, labels.astype(float).repeat(weights, axis=0), {"m": scores.repeat(weights, axis=0)}, targets=targets)
    return rows, often


@pytest.mark.parametrize("task", OUTPUTS)
def test_a_row_of_weight_2_is_two_rows_in_metrics_plots_thresholds_and_the_trivial_predictor(task):
    rows, often = weighted_rows(task)
    values = []
    for r in (rows, often):
        functions = weighted_metrics(task, r.labels, r.scores["m"], r.targets)
        values.append({name: float(function(r.each)) for name, function in functions.items()})
    assert values[0] == pytest.approx(values[1])
    plots, expected = (row_plots(r, "m", 3) for r in (rows, often))
    for name in set(plots) - {"fit"}:  # a sample of the rows
        for found, other in zip(plots[name], expected[name], strict=True):
            assert found == pytest.approx(other)
    thresholds = [default_thresholds(task, r.labels, r.targets, r.weights) for r in (rows, often)]
    assert thresholds[0][PRIMARY[task]].model_dump() == pytest.approx(thresholds[1][PRIMARY[task]].model_dump())
    for metric in values[0].keys() & {"loss", "mae", "mae/a"}:
        assert Trivial.of(rows, metric).value == pytest.approx(Trivial.of(often, metric).value)


def test_the_bootstrap_weighs_rows_by_their_weights():
    rows, _ = weighted_rows("regression")
    found = replicates(rows)["m"]["mae"]
    value = float(weighted_metrics("regression", rows.labels, rows.scores["m"])["mae"](rows.each))
    assert found.mean() == pytest.approx(value, rel=0.01)
    same = replicates(Rows(rows.task, rows.labels, rows.scores, weights=rows.weights * 1000))["m"]["mae"]
    np.testing.assert_allclose(same, found)


def test_metrics_of_the_users_own_receive_the_weights_that_they_ask_for(tmp_path):
    rows, often = weighted_rows("regression")
    (tmp_path / "metrics.py").write_text(
        "import numpy as np\n"
        "def worst(labels, scores):\n    return np.abs(labels - scores[:, 0]).max()\n"
        "def error(labels, scores, weights):\n    return np.average(np.abs(labels - scores[:, 0]), weights=weights)\n"
    )
    heard = []
    set_sink(heard.append)
    try:
        found, expected = (own_metrics(str(tmp_path / "metrics.py"), r, "m") for r in (rows, often))
    finally:
        set_sink(None)
    assert found["error"] == pytest.approx(expected["error"])
    [warning] = heard
    assert "worst has no parameter `weights`, so it weighs all rows the same" in warning


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_metrics_of_an_epoch_weigh_rows_by_sample_weights(task):
    rows, often = weighted_rows(task)
    labels, again = (r.labels if task == "regression" else r.labels.astype(int) for r in (rows, often))
    weights = rows.weights / rows.weights.mean()
    found = epoch_metrics(task, rows.scores["m"], labels, weights=weights, weighted=True)
    assert found == pytest.approx(epoch_metrics(task, often.scores["m"], again))
