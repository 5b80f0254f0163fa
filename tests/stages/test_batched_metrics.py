"""Metrics of batches against TFMA's own evaluator, which takes the same rows one at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2

from switchyard.components.evaluation.batched_metrics import Batch, MeasureBatches
from switchyard.components.evaluation.ranking import query_values
from switchyard.components.evaluation.row_values import ROW_VALUES
from switchyard.components.evaluation.slices import slice_column
from switchyard.components.evaluation.tfma_config import eval_config, row_feature
from switchyard.components.evaluation.tfma_results import read_metrics
from switchyard.components.metrics import ROW_ACCURACY, ROW_LOSS, names
from switchyard.components.tasks import TASKS
from tests.training_inputs import TARGETS

ROWS = 150
SLICES = [["city"], ["city", "count"], ["share"], ["absent"]]


def _records(random: np.random.Generator) -> pa.RecordBatch:
    def lists(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array([None if v is None else [v] for v in values], pa.list_(kind))

    cities = [None if c == 3 else ["Ä".encode(), b"b", b""][c] for c in random.integers(0, 4, ROWS)]
    shares = random.choice([0.5, 2.0, np.nan], ROWS)
    counts = [int(c) if c else None for c in random.integers(0, 3, ROWS)]
    columns = {"city": lists(cities, pa.binary()), "share": lists(list(shares), pa.float32()), "count": lists(counts, pa.int64())}
    return pa.RecordBatch.from_pydict(columns)


def _batch(task: str, models: list[str], *, weighted: bool = False) -> Batch:
    random = np.random.default_rng(7)
    slices = {name: slice_column(_records(random), name) for name in ("city", "count", "share", "absent")}
    outputs = len(TARGETS.get(task, ())) or (3 if task == "multiclass" else 1)
    shape = (ROWS, outputs) if TASKS[task].has_labels else ROWS
    if TASKS[task].groups:
        shape = (ROWS, 2)
    if TASKS[task].has_probabilities or TASKS[task].groups:
        labels = random.integers(0, outputs if task == "multiclass" else 2, shape).astype(float)
    else:
        labels = random.normal(3, 2, shape)
    predictions = {}
    for model in models:
        # Some in the middle of a bucket, some on its edge, and ties with the threshold of a half.
        values = np.round(random.uniform(1e-7, 1 - 1e-7, (ROWS, outputs)), int(random.integers(1, 9))).clip(1e-7, 1 - 1e-7)
        scores = values / values.sum(axis=1, keepdims=True) if task == "multiclass" else values
        predictions[model] = (np.sort(scores, axis=1) if TASKS[task].ascending else scores).astype(np.float32)
    weights = random.integers(0, 4, ROWS) / 2 if weighted else None
    return Batch(labels, predictions, slices, weights=weights)


def _row_values(task: str, batch: Batch) -> dict[str, np.ndarray]:
    """What TFMA's means over rows read, of several classes."""
    found = {}
    index = batch.labels.astype(int)
    for model, scores in batch.predictions.items() if task == "multiclass" else ():
        found[row_feature(ROW_ACCURACY, model)] = (scores.argmax(axis=1) == index).astype(float)
        found[row_feature(ROW_LOSS, model)] = -np.log(scores[np.arange(ROWS), index]).astype(float)
    for model, scores in batch.predictions.items() if task in ROW_VALUES else ():
        for metric, values in ROW_VALUES[task](batch.labels, scores, TARGETS[task]).items():
            found[row_feature(f"__{metric}", model)] = values
    return found


def _extracts(task: str, batch: Batch) -> list[dict[str, Any]]:
    """The rows as TFMA's extracts, one each."""
    found, of_rows = [], _row_values(task, batch)
    for i in range(ROWS):
        features = {name: np.asarray([values[i]]) for name, values in of_rows.items()}
        features |= {name: np.asarray([c.values[c.codes[i]]]) for name, c in batch.slices.items()}
        predictions = {m: p[i] for m, p in batch.predictions.items()}
        [one, *others] = predictions.values()
        found.append(
            {
                "labels": np.atleast_1d(batch.labels[i]),
                "predictions": predictions if others else one,
                "example_weights": np.ones(1) if batch.weights is None else batch.weights[i : i + 1],
                "features": features,
            }
        )
    return found


def _by_tfma(folder: str, task: str, batch: Batch, config: config_pb2.EvalConfig) -> None:
    models = [tfma.types.EvalSharedModel(model_name=m, model_path=m, model_type="any") for m in batch.predictions]
    only_slices = config_pb2.EvalConfig(slicing_specs=config.slicing_specs)
    with beam.Pipeline() as pipeline:
        # One element, so that the rows stay in one bundle: merging means of errors, TFMA counts a bundle twice.
        rows = pipeline | beam.Create([0]) | beam.FlatMap(lambda _: _extracts(task, batch))
        _ = rows | tfma.ExtractEvaluateAndWriteResults(
            eval_shared_model=models if len(models) > 1 else models[0],
            eval_config=config,
            extractors=[tfma.extractors.SliceKeyExtractor(eval_config=only_slices)],
            output_path=folder,
        )


def _by_batches(folder: str, task: str, batch: Batch, config: config_pb2.EvalConfig) -> None:
    parts = np.array_split(np.arange(ROWS), [1, 20, 90])
    slices = {n: [type(c)(c.codes[p], c.values) for p in parts] for n, c in batch.slices.items()}
    batches = [
        Batch(b.labels, b.predictions, {n: s[i] for n, s in slices.items()}, b.judged, b.weights)
        for i, b in enumerate(batch.take(p) for p in parts)
    ]
    with beam.Pipeline() as pipeline:
        measured = pipeline | beam.Create(batches) | beam.Reshuffle() | MeasureBatches(task, config, TARGETS.get(task, ()))
        _ = measured | tfma.WriteResults(writers=tfma.default_writers(output_path=folder, eval_config=config))


def _matrix(messages: Any, *fields: str) -> np.ndarray:
    return np.array(sorted(tuple(float(getattr(m, f)) for f in fields) for m in messages))


def _plotted(plot: Any) -> list[np.ndarray]:
    found = [_matrix(plot.confusion_matrix_at_thresholds.matrices, "threshold", *(f"{a}_{b}" for a in _SIGNS for b in _CLASSES))]
    buckets = [b for b in plot.calibration_histogram_buckets.buckets if b.num_weighted_examples.value]
    found.append(np.array([[b.lower_threshold_inclusive, *(getattr(b, f).value for f in _BUCKET)] for b in buckets]))
    entries = [e for m in plot.multi_class_confusion_matrix_at_thresholds.matrices for e in m.entries]
    return [*found, _matrix(entries, "actual_class_id", "predicted_class_id", "num_weighted_examples")]


_SIGNS, _CLASSES = ("true", "false"), ("positives", "negatives")
_BUCKET = ("num_weighted_examples", "total_weighted_label", "total_weighted_refined_prediction")


def _all(folder: str) -> dict[Any, list[np.ndarray]]:
    found = {}
    for record in tfma.load_metrics(folder):
        for metric in record.metric_keys_and_values:
            key = record.slice_key.SerializeToString(), metric.key.SerializeToString()
            assert metric.value.HasField("double_value"), metric
            found[key] = [np.array(metric.value.double_value.value)]
    for record in tfma.load_plots(folder):
        for plot in record.plot_keys_and_values:
            found[record.slice_key.SerializeToString(), plot.key.SerializeToString()] = _plotted(plot.value)
    return found


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize(
    ("task", "models"),
    [
        ("binary", ["a"]),
        pytest.param("binary", ["a", "b"], marks=pytest.mark.core),
        ("multiclass", ["a", "b"]),
        ("regression", ["a", "b"]),
        ("quantile", ["a", "b"]),
        ("multioutput", ["a", "b"]),
        ("multilabel", ["a", "b"]),
    ],
)
def test_every_metric_and_plot_of_every_slice_equals_tfmas(tmp_path: Path, task: str, models: list[str], weighted: bool) -> None:
    batch = _batch(task, models, weighted=weighted)
    config = eval_config(task, SLICES, models, TARGETS.get(task, ()), weighted=weighted)
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    _by_batches(ours, task, batch, config)
    _by_tfma(theirs, task, batch, config)
    mine, stock = _all(ours), _all(theirs)
    assert mine.keys() == stock.keys()
    for key, values in stock.items():
        if task == "multilabel" and _of_each_label(key):
            continue
        for ours_, theirs_ in zip(mine[key], values, strict=True):
            np.testing.assert_allclose(ours_, theirs_, rtol=1e-9, atol=1e-9, err_msg=str(key))
    read = read_metrics(ours, models, names(task, targets=TARGETS.get(task, ())))
    slices = set(read["a"])
    assert {"", "city=Ä", "city=missing", "city=b, count=2", "share=0.5", "share=2", "share=missing", "absent=missing"} <= slices
    assert all(math.isfinite(v) for v in read["a"][""].values())


def _of_each_label(key: Any) -> bool:
    """Whether a metric is an AUC by label: TFMA's, of labels of several columns, is that of all together, our `auc_micro`."""
    name = metrics_for_slice_pb2.MetricKey.FromString(key[1]).name
    return name == "auc" or name.startswith("auc/")


def test_the_auc_of_each_label_is_tfmas_of_its_column_and_auc_is_their_mean(tmp_path: Path) -> None:
    batch, targets = _batch("multilabel", ["m"]), TARGETS["multilabel"]
    _by_batches(str(tmp_path / "ours"), "multilabel", batch, eval_config("multilabel", [["city"]], ["m"], targets))
    read = read_metrics(str(tmp_path / "ours"), ["m"], names("multilabel", targets=targets))["m"]
    binary = eval_config("binary", [["city"]], ["m"])
    of_label = {}
    for i, target in enumerate(targets):
        alone = Batch(batch.labels[:, i], {"m": batch.predictions["m"][:, i : i + 1]}, batch.slices)
        _by_tfma(str(tmp_path / target), "binary", alone, binary)
        of_label[target] = read_metrics(str(tmp_path / target), ["m"], ["auc"])["m"]
    for key, found in read.items():
        each = [of_label[target][key]["auc"] for target in targets]
        assert [found[f"auc/{target}"] for target in targets] == pytest.approx(each, rel=1e-9), key
        assert found["auc"] == pytest.approx(np.mean(each), rel=1e-9), key


def test_a_query_whose_rows_come_in_several_batches_is_measured_whole(tmp_path: Path) -> None:
    batch, config = _batch("ranking", ["a", "b"]), eval_config("ranking", [["city"]], ["a", "b"])
    batch.labels[:, 1] = np.arange(ROWS) % 20
    _by_batches(str(tmp_path), "ranking", batch, config)
    read = read_metrics(str(tmp_path), ["a", "b"], names("ranking"))
    for model, slices in read.items():
        in_city = batch.slices["city"].text().to_numpy(zero_copy_only=False) == "Ä"
        for key, rows in {"": np.ones(ROWS, bool), "city=Ä": in_city}.items():
            expected = query_values(batch.labels[rows], batch.predictions[model][rows])
            for name, values in expected.items():
                assert slices[key][name] == pytest.approx(values.mean())
            assert slices[key]["example_count"] == rows.sum()


def test_a_label_of_one_value_has_no_auc_and_does_not_count_in_the_mean(tmp_path: Path) -> None:
    batch, targets = _batch("multilabel", ["m"]), TARGETS["multilabel"]
    batch.labels[:, 0] = 0
    _by_batches(str(tmp_path), "multilabel", batch, eval_config("multilabel", [], ["m"], targets))
    found = read_metrics(str(tmp_path), ["m"], names("multilabel", targets=targets))["m"][""]
    first, *others = targets
    assert f"auc/{first}" not in found
    assert found["auc"] == pytest.approx(np.mean([found[f"auc/{label}"] for label in others]))


@pytest.mark.core
def test_a_loss_of_many_batches_is_the_mean_over_their_rows(tmp_path: Path) -> None:
    batch, config = _batch("regression", ["a"]), eval_config("regression", [], ["a"])
    _by_batches(str(tmp_path), "regression", batch, config)
    found = read_metrics(str(tmp_path), ["a"], ["loss", "mae"])["a"][""]
    errors = batch.labels - batch.predictions["a"][:, 0]
    assert found == pytest.approx({"loss": (errors**2).mean(), "mae": np.abs(errors).mean()}, rel=1e-12)


# `make test` runs a task whose metrics are of rows, and the one whose metrics are of queries.
@pytest.mark.parametrize("task", [pytest.param(t, marks=[pytest.mark.core] if t in ("binary", "ranking") else []) for t in TASKS])
def test_a_model_that_scores_some_rows_is_measured_on_these_rows(tmp_path: Path, task: str) -> None:
    batch = _batch(task, ["a", "b"])
    judged = np.random.default_rng(1).random(ROWS) < 0.7
    # What it has no answer to may be anything.
    batch.predictions["b"][~judged] = np.nan
    partly = Batch(batch.labels, batch.predictions, batch.slices, {"b": judged})
    alone = Batch(batch.labels, {"b": batch.predictions["b"]}, batch.slices).take(np.flatnonzero(judged))
    targets = TARGETS.get(task, ())
    config = eval_config(task, [], ["a", "b"], targets)
    _by_batches(str(tmp_path / "partly"), task, partly, config)
    with beam.Pipeline() as pipeline:
        measured = pipeline | beam.Create([alone]) | MeasureBatches(task, eval_config(task, [], ["b"], targets), targets)
        writers = tfma.default_writers(output_path=str(tmp_path / "alone"), eval_config=config)
        _ = measured | tfma.WriteResults(writers=writers)
    wanted = names(task, targets=targets)
    found = read_metrics(str(tmp_path / "partly"), ["a", "b"], wanted)["b"][""]
    expected = read_metrics(str(tmp_path / "alone"), ["b"], wanted)["b"][""]
    # Rows have no model: whoever knows which were judged counts them.
    assert found.pop("example_count") == ROWS
    assert expected.pop("example_count") == judged.sum()
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.core
def test_undefined_metrics_are_omitted_where_tfma_reports_0(tmp_path: Path) -> None:
    whole = _batch("binary", ["a"])
    labels = np.where(whole.slices["share"].codes == 0, 1.0, 0.0)
    sure = np.where(labels == 1, 0.1, 0.2).astype(np.float32)[:, np.newaxis]
    batch = Batch(labels, {"a": sure}, whole.slices)
    _by_batches(str(tmp_path), "binary", batch, eval_config("binary", [["share"]], ["a"]))
    slices = read_metrics(str(tmp_path), ["a"], names("binary"))["a"]
    assert {"auc", "recall", "f1"} <= slices[""].keys(), "there are both classes"
    assert "precision" not in slices[""], "it never says yes"
    of_one_class = [s for key, s in slices.items() if key]
    assert all("auc" not in s for s in of_one_class)
    only_positive = [s for s in of_one_class if "recall" in s]
    assert len(only_positive) == 1
    assert only_positive[0]["recall"] == 0
