"""The converter: one value has one meaning, whatever type or spelling it arrives in, or is refused by its row."""

import dataclasses
import datetime
import decimal
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from switchyard.components.bundle.model import BundleInfo
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.csv_options import DEFAULTS
from switchyard.components.ingest.readers import reader
from switchyard.components.serving.inputs import columns_of
from switchyard.components.values.conversion import fit, fit_frame, fit_rows, fit_values
from switchyard.components.values.raw_features import Ragged, RawFeature

INTEGER = RawFeature("x", "int64", None, meaning="integer")
FLOAT = RawFeature("x", "float32", None, meaning="float")
BOOLEAN = RawFeature("x", "int64", None, meaning="boolean")
SECONDS = RawFeature("x", "int64", None, meaning="timestamp[s]")
MILLIS = RawFeature("x", "int64", None, meaning="timestamp[ms]")
TIME = RawFeature("x", "int64", None, meaning="time[s]")
TEXT = RawFeature("x", "string", None, meaning="text", missing=[""])
ZIP = RawFeature("x", "string", None, meaning="text", missing=[""], spelled=["05"])
CODE = RawFeature("x", "string", None, meaning="text", missing=[""], spelled=["5", "True", "2024-01-31"])
POINT = RawFeature("x", "string", None, meaning="text", missing=[""], spelled=["5.0"])
LIST = RawFeature("x", "float32", None, is_list=True, meaning="float")
DAY = datetime.date(2024, 1, 31)
NOON = datetime.datetime(2024, 1, 31, 12)
NOON_SECONDS = 1_706_702_400


def values_of(column, feature):
    """Returns each row's value (None: missing), and the reasons of the rows that do not fit."""
    found = fit_values(column, feature)
    rows = [None if row is None else row[0] if len(row) == 1 else row for row in found.values.to_pylist()]
    return rows, {m.row: m.reason for m in found.misfits}


@pytest.mark.parametrize(
    ("feature", "column", "expected"),
    [
        (INTEGER, ["5", " 5 ", "5.0", "+5", "5e0"], [5] * 5),
        (INTEGER, [5, 5.0, True, None, float("nan")], [5, 5, 1, None, None]),
        (INTEGER, pa.array([5, 2**63 - 1], pa.uint64()), [5, 2**63 - 1]),
        (INTEGER, pa.array([decimal.Decimal("5.00"), None]), [5, None]),
        (INTEGER, [2**53 + 1, -(2**63)], [2**53 + 1, -(2**63)]),
        (INTEGER, ["9007199254740993"], [2**53 + 1]),
        (INTEGER, pa.array([5, None]).dictionary_encode(), [5, None]),
        (FLOAT, ["1.5", "1e3", ".5", "True"], [1.5, 1000.0, 0.5, 1.0]),
        (FLOAT, np.array([1.5, np.nan], np.float16), [1.5, None]),
        (FLOAT, pa.array([decimal.Decimal("1.10")]), [1.1]),
        (FLOAT, pa.array([2**64 - 1], pa.uint64()), [float(2**64)]),
        (FLOAT, [2**64, 1.5], [float(2**64), 1.5]),
        (BOOLEAN, ["True", "false", "TRUE", "1", "0.0"], [1, 0, 1, 1, 0]),
        (BOOLEAN, [True, False, 1, 0.0, None, "true"], [1, 0, 1, 0, None, 1]),
        (SECONDS, ["2024-01-31 12:00:00", "2024-01-31T12:00", "2024-01-31T13:00:00+01:00"], [NOON_SECONDS] * 3),
        (SECONDS, ["2024-01-31T12:00:00.000Z", "2024-01-31T12:00:00.000"], [NOON_SECONDS] * 2),
        (SECONDS, pa.array([NOON]), [NOON_SECONDS]),
        (SECONDS, pa.array([NOON], pa.timestamp("ns", "Europe/Berlin")), [NOON_SECONDS]),
        (SECONDS, pa.array([DAY]), [NOON_SECONDS - 43_200]),
        (SECONDS, pa.array([DAY], pa.date64()), [NOON_SECONDS - 43_200]),
        (SECONDS, [NOON_SECONDS, float(NOON_SECONDS), str(NOON_SECONDS), NOON], [NOON_SECONDS] * 4),
        (MILLIS, ["2024-01-31 12:00:00.25", "2024-01-31"], [NOON_SECONDS * 1000 + 250, NOON_SECONDS * 1000 - 43_200_000]),
        (SECONDS, ["0001-01-01", "9999-12-31"], [-62_135_596_800, 253_402_214_400]),
        (TIME, ["09:30:00", "09:30"], [34_200, 34_200]),
        (TIME, pa.array([datetime.time(9, 30)]), [34_200]),
        (TEXT, ["a", "NA", "null", "", None, b"b"], [b"a", b"NA", b"null", None, None, b"b"]),
        (TEXT, pa.array(["a", ""], pa.large_string()), [b"a", None]),
        (CODE, [5, "5", 5.0, True, DAY], [b"5", b"5", b"5", b"True", b"2024-01-31"]),
        (POINT, [5, 5.0, 2.5], [b"5.0", b"5.0", b"2.5"]),
        (LIST, [[1, 2.5], [], None, 3], [[1.0, 2.5], None, None, 3.0]),
        (LIST, pa.array([[1.0], [2.0]], pa.list_(pa.float32(), 1)), [1.0, 2.0]),
    ],
)  # fmt: skip
def test_a_value_means_the_same_in_any_type_and_spelling(feature, column, expected):
    assert values_of(column, feature) == (expected, {})


@pytest.mark.parametrize(
    ("feature", "value", "reason"),
    [
        (INTEGER, 45.5, "must hold whole numbers"),
        (INTEGER, "45.5", "must hold numbers"),
        (INTEGER, 2**63, "must hold numbers that fit int64"),
        (INTEGER, 1e19, "must hold numbers that fit int64"),
        (INTEGER, "1,316", "must hold numbers"),
        (INTEGER, NOON, "must hold numbers"),
        (FLOAT, "many", "must hold numbers"),
        (FLOAT, 1e39, "must hold numbers that fit float32"),
        (FLOAT, float("inf"), "must hold numbers that fit float32"),
        (FLOAT, {"a": 1}, "must hold numbers"),
        (FLOAT, [1.0, 2.0], "must hold one value per row"),
        (FLOAT, [[1.0]], "must hold numbers"),
        (FLOAT, datetime.timedelta(1), "must hold numbers"),
        (BOOLEAN, 2, "must hold true or false"),
        (BOOLEAN, "yes", "must hold true or false"),
        (SECONDS, "2024-02-30", "must hold dates or times"),
        (SECONDS, "2024-01-31 12:00:00.5", "no finer than s"),
        (SECONDS, NOON_SECONDS * 1000, "must hold dates or times"),
        (SECONDS, True, "must hold dates or times"),
        (TIME, "25:00:00", "must hold times of day"),
        (TEXT, 5, "must hold texts"),
        (ZIP, 1234, "must hold texts"),
        (POINT, True, "must hold texts"),
        (LIST, [1.0, None], "must hold lists without gaps"),
        (LIST, [1.0, float("nan")], "must hold lists without gaps"),
        (LIST, ["a", 1.0], "must hold numbers"),
    ],
)
def test_a_value_that_would_be_changed_is_refused_and_only_its_row(feature, value, reason):
    good = {"int64": 1, "float32": 1.0, "string": "a"}[feature.dtype]
    rows, reasons = values_of([good, value, good], feature)
    assert reason in reasons.pop(1)
    assert reasons == {}
    assert (rows[1], rows[0] is None) == (None, False)


def test_words_are_missing_among_numbers_and_values_among_texts():
    column = pa.array(["NA", "1", "", "nan", "None", "n/a", "2"])
    assert values_of(column, INTEGER) == ([None, 1, None, None, None, None, 2], {})
    assert values_of(column, TEXT)[0] == [b"NA", b"1", None, b"nan", b"None", b"n/a", b"2"]
    assert fit(column, INTEGER).words == {"NA": 1, "": 1, "nan": 1, "None": 1, "n/a": 1}


def test_values_that_the_config_lists_are_missing_in_every_type():
    number = RawFeature("x", "float32", None, meaning="float", missing=["-", "-999"])
    text = RawFeature("x", "string", None, meaning="text", missing=["", "-", "NA"])
    assert values_of(["-", "-999", "1"], number) == ([None, None, 1.0], {})
    assert values_of([-999, -999.0, 1], number) == ([None, None, 1.0], {})
    assert values_of(["-", "NA", "-999", None], text) == ([None, None, b"-999", None], {})


@pytest.mark.parametrize(
    ("feature", "listed", "column"),
    [
        (FLOAT, "1e20", pa.array(["1e20", "1.0"])),
        (FLOAT, "-3.4028234663852886e+38", pa.array([-3.4028234663852886e38, 1.0], pa.float32())),
        (FLOAT, "-999.9", pa.array([-999.9, 1.0], pa.float32())),
        (INTEGER, "-9223372036854775808", pa.array([-(2**63), 1])),
        (INTEGER, "9007199254740993", pa.array([2**53 + 1, 1])),
    ],
)
def test_a_number_listed_as_missing_is_missing_at_any_size(feature, listed, column):
    found, reasons = values_of(column, dataclasses.replace(feature, missing=[listed]))
    assert (found, reasons) == ([None, 1], {})


def test_the_neighbour_of_a_large_number_listed_as_missing_is_a_value():
    found, _ = values_of(pa.array([2**53, 1]), dataclasses.replace(INTEGER, missing=["9007199254740993"]))
    assert found == [2**53, 1]


def test_rows_that_do_not_fit_are_reported_and_the_others_are_converted():
    features = [
        RawFeature("a", "int64", 1, meaning="integer"),
        RawFeature("w", "float32", 2, meaning="float"),
        RawFeature("t", "string", None, meaning="text", missing=[""]),
    ]
    batch = pa.RecordBatch.from_pydict(
        {"a": [1.0, 45.5, None, 4.0, 5.0], "w": [[1, 2], [1, 2], [1, 2], [1], [3, 4]], "t": ["u", "u", "u", "u", ""]}
    )
    found = fit_rows(batch, features)
    assert found.fits.tolist() == [True, False, False, False, True]
    assert found.misfits == {
        1: "column 'a' must hold whole numbers, received 45.5",
        2: "column 'a' is missing",
        3: "column 'w' must hold 2 values per row, received [1]",
    }
    assert found.columns["a"].tolist() == [[1], [5]]
    assert found.columns["w"].tolist() == [[1, 2], [3, 4]]
    assert isinstance(found.columns["t"], Ragged)
    assert (found.columns["t"].values.tolist(), found.columns["t"].lengths.tolist()) == ([b"u"], [1, 0])


def test_integers_of_a_frame_are_kept_whole():
    frame = pd.DataFrame({"x": pd.array([2**53 + 1, None], dtype="Int64")})
    assert fit_frame(frame, [INTEGER])["x"].values.tolist() == [2**53 + 1]
    with pytest.raises(UserError, match=r"column 'x' must hold whole numbers, received 45.5 \(row 0\)"):
        fit_frame(pd.DataFrame({"x": [45.5]}), [INTEGER])


def test_an_older_bundle_takes_dates_as_seconds_and_the_empty_text_as_a_text():
    assert values_of(pa.array([NOON]), RawFeature("x", "int64", None)) == ([NOON_SECONDS], {})
    assert values_of(["", None], RawFeature("x", "string", None)) == ([b"", None], {})


def test_a_timestamp_far_from_the_training_dates_is_refused_as_another_unit():
    """Seconds taken for milliseconds would be January 1970, milliseconds of 1972 taken for seconds the year 4300."""
    years = [NOON_SECONDS * 1000 - 10**11, NOON_SECONDS * 1000]
    millis = RawFeature("x", "int64", None, meaning="timestamp[ms]", counts=years)
    seconds = RawFeature("x", "int64", None, meaning="timestamp[s]", counts=[y // 1000 for y in years])
    assert values_of([NOON_SECONDS * 1000 + 1, "1972-05-01"], millis) == ([NOON_SECONDS * 1000 + 1, 73_526_400_000], {})
    assert list(values_of([NOON_SECONDS, str(NOON_SECONDS)], millis)[1]) == [0, 1]
    assert list(values_of([73_526_400_000, NOON_SECONDS], seconds)[1]) == [0]


@pytest.mark.parametrize("listed", ["?", " ?"])
def test_spaces_around_a_missing_value_word_are_ignored_in_every_channel(listed):
    """As in the census data, whose fields begin with a space."""
    feature = RawFeature("work", "string", None, meaning="text", missing=["", listed])
    texts = [" ?", "?", " Private", "Private", " ", None]
    stored = [[], [], [b" Private"], [b"Private"], [b" "], []]
    assert [v or [] for v in fit_values(texts, feature).values.to_pylist()] == stored
    info = BundleInfo("pytorch", "x:Y", "binary", "y", [0, 1], [feature])
    served, _ = columns_of(info, {"work": texts})
    assert (served["work"].values.tolist(), served["work"].lengths.tolist()) == (
        [b" Private", b"Private", b" "],
        [0, 0, 1, 1, 1, 0],
    )


@pytest.mark.parametrize(
    ("feature", "value", "word"),
    [
        (CODE, "5.0", "NA"),
        (POINT, "5", "null"),
        (ZIP, "5", "NA"),
        (CODE, "true", "None"),
        (TEXT, "7", "NA"),
        (TEXT, "Infinity", "x"),
        (FLOAT, "Infinity", "NA"),
        (FLOAT, "1e400", "x"),
    ],
)
def test_a_number_beside_a_word_is_converted_alike_in_json_lines_and_requests(feature, value, word, tmp_path):
    (tmp_path / "d.jsonl").write_text(f'{{"x": {value}}}\n{{"x": "{word}"}}\n')
    [batch] = reader("jsonl", DEFAULTS)(str(tmp_path / "d.jsonl"), BadRows(0), None)
    from_file = fit_rows(batch, [feature])
    asked = fit_values([json.loads(value), word], feature)
    assert sorted(from_file.misfits) == [m.row for m in asked.misfits]
    assert from_file.columns["x"].values.tolist() == asked.values.drop_null().flatten().to_pylist()


def test_a_missing_column_names_the_needed_ones_without_those_that_may_be_left_out():
    features = [RawFeature("a", "float32", 1), RawFeature("o", "float32", None), RawFeature("z", "float32", 1)]
    info = BundleInfo("pytorch", "x:Y", "regression", "label", [], features)
    for refused in (lambda: columns_of(info, {"a": [1.0]}), lambda: fit_frame(pd.DataFrame({"a": [1.0]}), features)):
        with pytest.raises(UserError, match=r"column 'z' is missing\. Columns needed: a, z\."):
            refused()


def test_half_floats_that_do_not_fit_are_named_as_numbers():
    """NumPy 2 would print `np.float16(1.5)`, and warn of each bound that a half float cannot hold."""
    column, lists = pa.array(np.array([1.5, np.inf], np.float16)), pa.array([np.array([1.5, 2.5], np.float16)])

    assert [m.sentence("x") for c in (column, lists) for m in fit(c, INTEGER).misfits] == [
        "column 'x' must hold whole numbers, received 1.5",
        "column 'x' must hold numbers that fit int64, received inf",
        "column 'x' must hold one value per row, received [1.5, 2.5]",
    ]
