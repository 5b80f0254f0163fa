"""One key is one group: its hash is of the value, whatever type and spelling a file gives it."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest

from switchyard.components.errors import UserError
from switchyard.components.ingest.keys import check_keys, key_hashes, missing_keys
from switchyard.components.ingest.writer import row_hashes

pytestmark = pytest.mark.core


def hashes(values, kind=None):
    column = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return list(key_hashes(column, np.arange(len(column), dtype=np.uint64)))


FIVE = hashes(["5"])[0]
DAY = hashes(["2024-01-01"])[0]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([5]),
        pa.array([5], pa.uint64()),
        pa.array([5.0]),
        pa.array([5.0], pa.float32()),
        pa.array(np.array([5.0], np.float16)),
        pa.array([decimal.Decimal("5.00")]),
        pa.array([" 5"]),
        pa.array(["5.0 "], pa.large_string()),
        pa.array([b"5"]),
        pa.array(["5"]).dictionary_encode(),
        pa.array([[5]]),
        pa.array([[b"5"]]),
    ],
    ids=lambda c: str(c.type),
)
def test_five_has_one_hash_in_every_type(column):
    assert hashes(column) == [FIVE]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([datetime.date(2024, 1, 1)]),
        pa.array([datetime.date(2024, 1, 1)], pa.date64()),
        pa.array([datetime.datetime(2024, 1, 1)], pa.timestamp("ns")),
        pa.array([datetime.datetime(2024, 1, 1)], pa.timestamp("s", "UTC")),
        pa.array(["2024-01-01 00:00:00"]),
        pa.array(["2024-01-01T00:00:00Z"]),
    ],
    ids=lambda c: f"{c.type} {c[0]}",
)
def test_a_date_has_one_hash_in_every_type(column):
    assert hashes(column) == [DAY]


@pytest.mark.parametrize("text", ["True", "true", " TRUE"])
def test_a_boolean_has_one_hash_in_every_spelling(text):
    assert hashes([text]) == hashes([True])


@pytest.mark.parametrize("missing", [pa.array([None, None]), pa.array([float("nan")] * 2), pa.array(["", " "])], ids=str)
def test_each_row_without_a_key_is_its_own_group(missing):
    assert hashes(missing) == [0, 1]
    assert missing_keys(missing) == 2


def test_numbers_beyond_2_to_the_53_stay_distinct():
    assert len(set(hashes([2**53, 2**53 + 1, 2**64 - 1], pa.uint64()))) == 3
    assert hashes([2**53 + 1]) == hashes([str(2**53 + 1)])


@pytest.mark.parametrize(("value", "kind"), [(2.0**54, pa.float64()), (2.0**25, pa.float32())])
def test_floats_that_cannot_distinguish_keys_are_refused_with_the_file(value, kind):
    with pytest.raises(UserError, match=r"data.split_key: a.parquet: 'user' holds .* Write the column as integers or text"):
        check_keys("user", pa.array([value], kind), "a.parquet")


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], [{"a": 1}]], ids=str)
def test_a_list_of_several_values_is_no_key(value):
    with pytest.raises(UserError, match=r"data.split_key: a.parquet: 'user' holds .* a key is one value per row"):
        check_keys("user", pa.array([value]), "a.parquet")


@pytest.mark.parametrize("column", [pa.array(["-", " - "]), pa.array([-999, -999]), pa.array(["-999.0", "-"])], ids=str)
def test_values_configured_as_missing_are_no_keys(column):
    missing = ["-", "-999"]
    assert list(key_hashes(column, np.arange(2, dtype=np.uint64), missing)) == [0, 1]
    assert missing_keys(column, missing) == 2


def rows(**columns):
    return row_hashes(pa.RecordBatch.from_pydict({n: pa.array([[v] for v in values]) for n, values in columns.items()}))


def test_the_order_of_the_columns_moves_no_row_to_another_split():
    np.testing.assert_array_equal(rows(b=[1, 2], a=[b"x", b"y"]), rows(a=[b"x", b"y"], b=[1, 2]))


def test_a_column_that_changes_from_integers_to_floats_moves_no_row_to_another_split():
    hashes_before, hashes_after = rows(age=[30, 40, 50, 0]), rows(age=[30.0, 40.0, 45.5, -0.0])
    assert (hashes_before == hashes_after).tolist() == [True, True, False, True]


def test_equal_values_of_two_columns_have_different_hashes():
    assert rows(a=[1], b=[2])[0] != rows(a=[2], b=[1])[0]
