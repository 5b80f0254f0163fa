"""A label's classes are its values, exactly and in every format; what cannot be one is refused."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.labels import LabelValues, check_label, class_column, infer_task, labelled
from switchyard.components.ingest.scan import scan
from switchyard.components.values.spelling import MISSING_LABELS
from tests.ingest_inputs import input_spec

pytestmark = pytest.mark.core


def seen(*columns, csv=False):
    values = LabelValues("y")
    for column in columns:
        values.add(column if isinstance(column, pa.Array) else pa.array(column), untyped=csv)
    return values


def classes(*columns, csv=False):
    values = seen(*columns, csv=csv)
    return check_label(values, infer_task(values))


@pytest.mark.parametrize(
    ("column", "csv"),
    [
        (pa.array(["0.0", "1.0"]), True),
        (pa.array(["0", "1.0", " 1", "0 "]), True),
        (pa.array(["False", "True"]), True),
        (pa.array(["false", "TRUE"]), True),
        (pa.array([False, True]), False),
        (pa.array([0, 1], pa.uint8()), False),
        (pa.array(np.array([0, 1], np.float16)), False),
        (pa.array([0.0, 1.0], pa.float32()), False),
        (pa.array([decimal.Decimal("0.00"), decimal.Decimal("1.00")]), False),
        (pa.array([0.0, 1.0]).dictionary_encode(), False),
        (pa.array([[0.0], [1.0]]), False),
    ],
    ids=lambda v: str(getattr(v, "type", v)),
)
def test_zero_and_one_are_two_classes_in_every_spelling(column, csv):
    assert classes(column, csv=csv) == [0, 1]
    assert class_column(column, [0, 1], untyped=csv).to_pylist() == [0, 1, 1, 0][: len(column)]


@pytest.mark.parametrize("csv", [True, False])
def test_integers_beyond_2_to_the_53_are_distinct_classes(csv):
    wanted = [2**53, 2**53 + 1, 2**53 + 4]
    column = pa.array([str(v) for v in wanted] if csv else wanted)
    assert classes(column, csv=csv) == wanted
    assert class_column(column, wanted, untyped=csv).to_pylist() == wanted


@pytest.mark.parametrize("csv", [True, False])
def test_integers_beyond_signed_64_bits_are_classes_by_their_text(csv):
    wanted = [str(2**63), str(2**64 - 1)]
    column = pa.array(wanted) if csv else pa.array([2**63, 2**64 - 1], pa.uint64())
    assert classes(column, csv=csv) == wanted
    assert class_column(column, wanted, untyped=csv).to_pylist() == wanted


@pytest.mark.parametrize(
    "column",
    [
        pa.array([datetime.date(2024, 1, 31), datetime.date(2024, 2, 1)]),
        pa.array([datetime.datetime(2024, 1, 31), datetime.datetime(2024, 2, 1)], pa.timestamp("ns")),
        pa.array(["2024-01-31", "2024-02-01"]),
    ],
    ids=lambda c: str(c.type),
)
def test_dates_are_classes_by_their_text(column):
    assert classes(column, csv=True) == ["2024-01-31", "2024-02-01"]


def test_spaces_around_a_class_are_removed_and_counted():
    values = seen(pa.array(["yes", " yes", "no ", "no"]), csv=True)
    assert check_label(values, "binary") == ["no", "yes"]
    assert values.spaced == 2


def test_a_class_keeps_its_leading_zero():
    assert classes(pa.array(["01", "02", "10"]), csv=True) == ["01", "02", "10"]


def test_files_of_several_types_have_one_set_of_classes():
    values = seen(pa.array(["0", "1.0"]), csv=True)
    values.add(pa.array([True, False, None]), untyped=False)
    values.add(pa.array([1.0, 0.0]), untyped=False)
    assert check_label(values, infer_task(values)) == [0, 1]


def test_a_text_of_a_typed_format_is_unchanged():
    assert classes(pa.array(["0", "1"])) == ["0", "1"]


def test_many_fractions_are_a_regression_in_a_csv():
    assert infer_task(seen(pa.array([f"{i / 7:.3f}" for i in range(5000)]), csv=True)) == "regression"


@pytest.mark.parametrize("column", [pa.array([datetime.date(2024, 1, 31), datetime.date(2024, 2, 1)]), pa.array(["a", "b"])])
def test_a_regression_of_texts_is_refused(column):
    with pytest.raises(UserError, match="a regression task needs numbers"):
        check_label(seen(column), "regression")


@pytest.mark.parametrize("word", ["", " ", "NA", "nan", None])
def test_a_row_without_a_label_is_a_bad_row(word):
    bad = BadRows(1)
    kept = labelled(pa.record_batch({"y": pa.array(["a", word])}), "y", MISSING_LABELS, "d.csv", bad)
    assert kept.column("y").to_pylist() == ["a"]
    assert bad.count == 1
    assert "the label 'y' is missing" in bad.samples[0]["reason"]


def test_missing_values_of_the_data_are_no_classes():
    bad = BadRows(1)
    kept = labelled(pa.record_batch({"y": pa.array(["a", "?"])}), "y", ["?"], "d.csv", bad)
    assert kept.column("y").to_pylist() == ["a"]


def test_an_infinite_label_is_a_bad_row():
    bad = BadRows(1)
    kept = labelled(pa.record_batch({"y": pa.array([0.5, float("inf")])}), "y", (), "d.parquet", bad)
    assert kept.num_rows == 1
    assert "the label 'y' is missing or infinite" in bad.samples[0]["reason"]


@pytest.mark.parametrize("value", [{"a": 1}, datetime.timedelta(1), [1, 2]], ids=str)
def test_a_list_of_several_values_is_no_label(value):
    with pytest.raises(UserError, match=r"label: d.parquet: 'y' holds"):
        labelled(pa.record_batch({"y": pa.array([value])}), "y", (), "d.parquet", BadRows(0))


MOMENTS = [datetime.datetime(2024, 1, 31), datetime.datetime(2024, 2, 1, 9, 30)]


@pytest.mark.parametrize(
    "texts",
    [
        ["2024-01-31 00:00:00", "2024-02-01 09:30:00"],
        ["2024-01-31T00:00", "2024-02-01T09:30"],
        ["2024-01-31 00:00:00.000000000", "2024-02-01 09:30:00.000"],
    ],
)
@pytest.mark.parametrize("csv", [True, False])
def test_timestamps_are_the_same_classes_as_typed_values_and_as_texts(texts, csv):
    wanted = ["2024-01-31", "2024-02-01 09:30:00"]
    assert classes(pa.array(texts), csv=csv) == classes(pa.array(MOMENTS)) == wanted
    assert class_column(pa.array(texts), wanted, untyped=csv).to_pylist() == wanted


def test_a_text_that_resembles_a_timestamp_is_unchanged():
    texts = ["2024-02-30 09:30:00", "2024-01-31 x", "25:00:00.5"]
    assert classes(pa.array(texts)) == sorted(texts)


def test_booleans_of_one_file_and_their_texts_of_another_are_two_classes():
    assert classes(pa.array([True, False]), pa.array(["true", "False"])) == ["false", "true"]
    assert class_column(pa.array([True, False]), ["false", "true"], untyped=False).to_pylist() == ["true", "false"]
    assert class_column(pa.array(["True", "false"]), ["false", "true"], untyped=False).to_pylist() == ["true", "false"]


def test_notes_about_features_are_not_given_for_labels(tmp_path):
    for name, values in (("padded", ["01", "1"]), ("large", [2**53, 2**53 + 1])):
        path = tmp_path / f"{name}.csv"
        path.write_text("x,y\n" + "".join(f"{i},{values[i % 2]}\n" for i in range(40)))
        assert scan(input_spec(path), BadRows(0)).notes == []
