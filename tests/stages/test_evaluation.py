"""Evaluation's rows: what is predicted for them, kept and read again, and measured where a champion can judge some only."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from switchyard.components.bundle.model import BundleInfo, Columns
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import Rows
from switchyard.components.evaluation.executor import check_labels
from switchyard.components.evaluation.predictions import ROWS, Predict, beside, rows_schema
from switchyard.components.evaluation.results import CHAMPION
from switchyard.components.evaluation.row_plots import confusion_metrics
from switchyard.components.evaluation.stored_rows import read_rows
from switchyard.components.values.conversion import fit_rows
from switchyard.components.values.raw_features import RawFeature

pytestmark = pytest.mark.core


class LinearModel:
    """A bundle's scores without a file: the probability is a column's value."""

    def __init__(self, info: BundleInfo, outputs: int) -> None:
        self.info, self._outputs = info, outputs

    def score_columns(self, columns: Columns) -> np.ndarray:
        return np.asarray(columns["x"], dtype=np.float32)[:, : self._outputs] / 10

    def score_batch(self, batch: pa.RecordBatch) -> np.ndarray:
        return self.score_columns(fit_rows(batch, self.info.features).columns)


def predicted(task, classes, champions_classes, batch, width=1):
    kinds = {"x": "float", "y": "integer"}
    summary = DatasetSummary("f", [], kinds, {}, {"train": 1, "test": 4}, 0, [], [], "y", task, classes, {})
    info = BundleInfo("pytorch", "pytorch", task, "y", classes, [RawFeature("x", "float32", width)])
    old = BundleInfo("pytorch", "pytorch", task, "y", champions_classes, [RawFeature("x", "int64", width)])
    predict = Predict({}, [], summary, partly=True)
    predict._bundles = {"new": LinearModel(info, width), CHAMPION: LinearModel(old, width)}
    kept, measured = predict.process(batch)
    assert kept.tag == ROWS
    return kept.value, measured, summary


def test_rows_that_the_champion_cannot_score_have_no_scores_and_are_read_as_written(tmp_path):
    batch = pa.RecordBatch.from_pydict({"x": [[1.0], [2.5], [9.0]], "y": [[0], [1], [1]]})
    table, measured, summary = predicted("binary", [0, 1], [0, 1], batch)
    assert table[CHAMPION].to_pylist() == [pytest.approx([0.1]), None, pytest.approx([0.9])]
    (tmp_path / "predictions").mkdir()
    pyarrow.parquet.write_table(table.cast(rows_schema(["new", CHAMPION], [])), tmp_path / "predictions" / "rows.parquet")
    rows = read_rows(str(tmp_path), ["new", CHAMPION], summary)
    assert rows.judged(CHAMPION).tolist() == [True, False, True]
    assert rows.judged("new").all()
    np.testing.assert_allclose(rows.where(rows.judged(CHAMPION)).scores[CHAMPION], [[0.1], [0.9]], rtol=1e-6)
    # TFMA is given the candidate twice: on all rows, and beside the champion.
    labels, scores, _ = measured.of("new")
    assert len(labels) == len(scores) == 3
    for name in (CHAMPION, beside("new")):
        labels, scores, _ = measured.of(name)
        assert labels.tolist() == [0, 1]
        np.testing.assert_allclose(scores, [[0.1], [0.9]], rtol=1e-6)


def test_several_labels_and_weights_are_read_as_they_were_written(tmp_path):
    kinds, targets = {"w": "integer", "x": "float", "a": "integer", "b": "float"}, ["b", "a"]
    given = {"targets": targets, "sample_weight": "w"}
    facts = DatasetSummary("f", [], kinds, {}, {"train": 1, "test": 3}, 0, [], [], "b, a", "multilabel", [], {}, **given)
    info = BundleInfo("pytorch", "pytorch", "multilabel", "b, a", [], [RawFeature("x", "float32", 2)], targets=targets)
    predict = Predict({}, [], facts)
    predict._bundles = {"new": LinearModel(info, 2)}
    rows = {"x": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "a": [[0], [1], [1]], "b": [[1.0], [0.0], [1.0]], "w": [[2], [0], [1]]}
    kept, measured = predict.process(pa.RecordBatch.from_pydict(rows))
    assert measured.labels.tolist() == [[1, 0], [0, 1], [1, 1]]
    (tmp_path / "predictions").mkdir()
    schema = rows_schema(["new"], [], several=True, weighted=True)
    pyarrow.parquet.write_table(kept.value.cast(schema), tmp_path / "predictions" / "rows.parquet")
    read = read_rows(str(tmp_path), ["new"], facts)
    assert read.labels.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert measured.weights.tolist() == read.weights.tolist() == [2, 0, 1]
    assert read.targets == targets
    np.testing.assert_allclose(read.scores["new"], [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], rtol=1e-6)


def test_a_ranking_without_a_relevant_row_is_refused_with_what_to_do():
    facts = DatasetSummary("f", [], {}, {}, {"train": 1, "test": 3}, 0, [], [], "y", "ranking", [], {}, group="query")
    check_labels(np.array([[0.0, 1.0], [1.0, 1.0]]), facts)
    with pytest.raises(UserError, match=r"no row of the split 'test' has a y above 0.*larger test split"):
        check_labels(np.array([[0.0, 1.0], [0.0, 2.0]]), facts)


def test_a_class_whose_rows_all_have_the_weight_0_cannot_be_evaluated():
    given = {"sample_weight": "w"}
    facts = DatasetSummary("f", [], {}, {}, {"train": 1, "test": 3}, 0, [], [], "y", "binary", ["no", "yes"], {}, **given)
    with pytest.raises(UserError, match="all 2 examples of a weight above 0 of the split 'test' have the label 'yes'"):
        check_labels(np.array([1.0, 1.0]), facts)


def test_rows_of_a_new_class_count_only_for_the_candidate():
    values = [[7.0, 2.0, 1.0], [1.0, 8.0, 1.0], [1.0, 1.0, 8.0]]
    batch = pa.RecordBatch.from_pydict({"x": values, "y": [[0], [1], [2]]})
    _, measured, _ = predicted("multiclass", [0, 1, 2], [0, 1, 7], batch, width=3)
    for name, rows in (("new", 3), (beside("new"), 2), (CHAMPION, 2)):
        labels, scores, _ = measured.of(name)
        assert len(labels) == rows
        assert scores.argmax(axis=1).tolist() == labels.tolist()
    assert measured.predictions[CHAMPION].shape == (3, 4), "the class 7 stands in a column of its own"


def test_a_row_that_the_champion_scores_as_nan_is_compared():
    rows = Rows("binary", np.array([0.0, 1.0]), {CHAMPION: np.array([[np.nan], [0.9]])}, {CHAMPION: np.array([True, True])})
    assert rows.judged(CHAMPION).all()


def test_a_class_known_only_to_the_champion_is_not_in_the_means():
    cells = [(0, 0, 30), (1, 1, 30), (2, 2, 30), (0, 3, 1)]
    plots = {"multiclass": [{"actual": a, "predicted": p, "count": n} for a, p, n in cells]}
    assert confusion_metrics(plots, 3)["f1_macro"] > 0.99
    assert confusion_metrics(plots, 3)["recall_macro"] == pytest.approx((30 / 31 + 2) / 3)
