"""A task of the user's own: its settings, its label, its predictions and its metrics."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from switchyard.components.bundle.model import BundleInfo, format_predictions
from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import Rows, replicates
from switchyard.components.evaluation.own_metrics import own_metrics, own_replicates
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.number_lists import vectors
from switchyard.components.ingest.scan import scan
from switchyard.components.serving.client import from_tensors, scores_in
from switchyard.components.values.raw_features import RawFeature
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import input_spec
from switchyard.pipelines.preflight import check_code_loads, check_inputs

pytestmark = pytest.mark.core

FILES = {
    "metrics.py": "def far(labels, scores): return abs(labels - scores).mean()\n",
    "losses.py": "def my(labels, outputs): return ((outputs - labels) ** 2).mean(1)\n",
}
MEASURED = {
    "metrics": "metrics.py",
    "improvement": {"metric": "far", "better": "lower"},
    "thresholds": {"far": {"upper_bound": 2.0}},
}


@pytest.fixture
def config(tmp_path):
    """Returns a function: sections to replace -> the config of 40 rows of two numbers whose label is a list of two."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    x = np.arange(40.0)
    rows = {
        "x": x,
        "z": x % 7,
        "flag": (x % 2).astype(int),
        "other": (x % 3 == 0).astype(int),
        "y": [[float(v), float(-v)] for v in x],
    }
    pyarrow.parquet.write_table(pa.table(rows), tmp_path / "d.parquet")

    def made(rows=None, **sections):
        if rows:
            pyarrow.parquet.write_table(pa.table({"x": x[: len(rows)], "y": rows}), tmp_path / "d.parquet")
        document = {
            "name": "c",
            "data": {"path": "d.parquet"},
            "label": "y",
            "task": "custom",
            "trainer": {"output_shape": [2], "loss": "losses.py:my"},
            "evaluation": MEASURED,
        }
        document = {k: v for k, v in (document | sections).items() if v is not None}
        (tmp_path / "pipeline.yaml").write_text(json.dumps(document))
        return load_config(tmp_path / "pipeline.yaml")

    return made


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"trainer": {"loss": "losses.py:my"}}, r"trainer\.output_shape: a custom task needs the shape of a row's output"),
        ({"task": "regression"}, r"trainer\.output_shape: a model of task regression has none; remove it"),
        ({"trainer": {"output_shape": [0], "loss": "losses.py:my"}}, r"trainer\.output_shape"),
        ({"trainer": {"output_shape": [2048, 2048]}}, r"output_shape: \[2048, 2048\] has more than 1,048,576 numbers"),
        ({"trainer": {"output_shape": [2], "framework": "lightgbm"}}, "task: lightgbm trains no custom task"),
        (
            {"trainer": {"output_shape": [2], "loss": "mse"}},
            "'mse' is not a loss of a custom task; allowed: 'losses.py:my_loss'",
        ),
        ({"trainer": {"output_shape": [2]}}, r"trainer\.loss: a custom task has no loss of its own; give yours"),
        ({"evaluation": {}}, r"evaluation\.metrics: a custom task has no metrics of its own"),
        ({"evaluation": {"metrics": "metrics.py"}}, r"evaluation\.improvement\.metric: a custom task needs the metric of yours"),
        (
            {"evaluation": {**MEASURED, "thresholds": {}}},
            r"thresholds\.far\.upper_bound: is missing; a custom task has",
        ),
        (
            {"evaluation": {**MEASURED, "thresholds": {"far": {"lower_bound": 0}}}},
            r"evaluation\.thresholds\.far\.upper_bound: is missing",
        ),
        ({"label": None, "task": "regression", "trainer": {}}, "label: is missing and has no default"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(config, sections, message, tmp_path):
    with pytest.raises(UserError, match=message):
        check_inputs(config(**sections), tmp_path / "store")


@pytest.mark.parametrize(
    ("rows", "output_shape", "label_shape"),
    [
        ([1.5, 2.5], [2], []),
        ([[1.5], [2.5]], [2], []),
        ([[1, 2, 3], [4, 5, 6]], [2], [3]),
        ([[1, 2, 3, 4], [4, 5, 6, 7]], [2, 2], [2, 2]),
        ([[[1, 2], [3, 4]], [[4, 5], [6, 7]]], [2, 2], [2, 2]),
    ],
)
def test_a_label_of_as_many_numbers_as_the_output_has_its_shape(config, rows, output_shape, label_shape):
    found = scan(input_spec(config(rows, trainer={"output_shape": output_shape})), BadRows(0))
    assert (found.task, found.label_shape) == ("custom", label_shape)


def test_a_label_is_optional(config):
    found = scan(input_spec(config(label=None)), BadRows(0))
    assert (found.task, found.label_shape, list(found.types)) == ("custom", [], ["x", "z", "flag", "other", "y"])


def test_lists_of_several_lengths_are_refused(config):
    with pytest.raises(UserError, match="label: 'y' holds lists of 2 to 3 numbers; the label of a custom task has one length"):
        scan(input_spec(config([[1, 2], [1, 2, 3]])), BadRows(0))


def test_a_label_without_numbers_is_refused(config):
    with pytest.raises(UserError, match=r"'y' holds list<.*>; the label of a custom task is a number or a list of numbers"):
        scan(input_spec(config([["a", "b"], ["a", "c"]])), BadRows(0))
    with pytest.raises(UserError, match="'y' holds values of type string; the label of a custom task is a number"):
        scan(input_spec(config(["a", "b"])), BadRows(0))


def test_rows_without_a_whole_label_are_bad(config):
    bad = BadRows(3)
    found = scan(input_spec(config([[1.0, 2.0], None, [1.0, None], [], [float("inf"), 2.0], [3.0, 4.0]])), BadRows(4))
    assert found.rows == 2
    with pytest.raises(UserError, match="the label 'y' is missing, or a number of it is missing or infinite"):
        scan(input_spec(config([[1.0, 2.0], None, [1.0, None], [], [float("inf"), 2.0]])), bad)


def test_a_gap_in_a_list_of_lists_is_a_bad_row_and_no_other_row_moves(config):
    bad = BadRows(9)
    rows = [[[1, 2], [3, 4]], [[1, 2], None], None, [[5, 6], [7, 8]]]
    kept = vectors(pa.record_batch({"y": pa.array(rows)}), "y", (), "d.parquet", bad)
    assert (kept.column("y").to_pylist(), bad.count) == ([[1, 2, 3, 4], [5, 6, 7, 8]], 2)


@pytest.mark.parametrize(("shape", "columns"), [([1], (3,)), ([2], (3, 2)), ([2, 2], (3, 2, 2)), ([1, 1], (3,))])
def test_the_prediction_is_one_column_of_the_outputs_shape(shape, columns):
    info = BundleInfo("pytorch", "pytorch", "custom", "", [], [RawFeature("x", "float32", 1)], output_shape=shape)
    scores = np.arange(3 * np.prod(shape), dtype=np.float32).reshape(3, -1)
    found = format_predictions(info, scores)
    assert list(found) == ["prediction"]
    assert found["prediction"].shape == columns
    np.testing.assert_array_equal(found["prediction"].ravel(), scores.ravel())
    tensor = {"name": "prediction", "data": found["prediction"].ravel().tolist(), "shape": [3, *columns[1:]]}
    for answer in ({"prediction": found["prediction"].tolist()}, from_tensors([tensor])):
        assert len(answer["prediction"]) == 3
        np.testing.assert_array_equal(scores_in(answer, info), scores)


def test_metrics_receive_labels_and_outputs_in_their_shapes(tmp_path):
    file = tmp_path / "metrics.py"
    file.write_text("def sizes(labels, scores): return labels.shape[1] * 100 + scores.shape[1] * 10 + scores.ndim\n")
    rows = Rows("custom", np.zeros((5, 3)), {"m": np.zeros((5, 4), np.float32)}, output_shape=[2, 2], label_shape=[3])
    assert own_metrics(str(file), rows, "m") == {"sizes": 323.0}
    assert set(own_replicates(str(file), "sizes", rows)["m"]) == {323.0}
    file = tmp_path / "others.py"
    file.write_text("def none(labels, scores): return float(labels is None)\n")
    unlabelled = Rows("custom", np.zeros((5, 0)), rows.scores, output_shape=[2, 2])
    assert own_metrics(str(file), unlabelled, "m") == {"none": 1.0}
    assert set(own_replicates(str(file), "none", unlabelled)["m"]) == {1.0}
    assert replicates(rows) == {"m": {}}


CASES = {
    "custom": {},
    "regression": {"label": "z", "trainer": {}},
    "quantile": {"label": "z", "trainer": {}},
    "binary": {"label": "flag", "trainer": {}},
    "multilabel": {"label": ["flag", "other"], "trainer": {}},
    "multiclass": {"label": "z", "trainer": {}},
    "multioutput": {"label": ["x", "z"], "trainer": {}},
    "ranking": {"label": "z", "group": "x", "trainer": {}},
}


@pytest.mark.parametrize("task", CASES)
def test_a_metric_that_fails_is_found_before_the_run_in_every_task(config, task, tmp_path):
    made = config(task=task, **{"evaluation": {"metrics": "metrics.py"}, **CASES[task]})
    (tmp_path / "metrics.py").write_text("def far(labels, scores): return labels.shape[0] * scores.shape[1] / 1\n")
    check_code_loads(made.model_copy(update={"trainer": made.trainer.model_copy(update={"loss": None})}), tmp_path / "store")
    (tmp_path / "metrics.py").write_text("def far(labels, scores): return labels['y']\n")
    with pytest.raises(UserError, match=r"evaluation\.metrics: far failed on a few rows with the outputs of an untrained model"):
        check_code_loads(made.model_copy(update={"trainer": made.trainer.model_copy(update={"loss": None})}), tmp_path / "store")
    (tmp_path / "metrics.py").write_text("def far(labels, scores): return scores\n")
    with pytest.raises(UserError, match=r"evaluation\.metrics: far must return a number, received ndarray"):
        check_code_loads(made.model_copy(update={"trainer": made.trainer.model_copy(update={"loss": None})}), tmp_path / "store")
