"""Numbers that float32 cannot tell apart: kept as integers, told, or refused; never lost without a word."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import FLOAT, INTEGER, ColumnType, convert
from switchyard.components.ingest.scan import scan
from tests.ingest_inputs import input_spec

SECONDS = 1_700_000_000
ROWS = 4000
RNG = np.random.default_rng(0)


def scanned(tmp_path, values, kind="csv", **settings):
    frame = pd.DataFrame({"x": values, "y": np.arange(len(values)) % 2})
    path = tmp_path / f"d.{kind}"
    {"csv": frame.to_csv, "parquet": frame.to_parquet}[kind](path, index=False)
    return scan(input_spec(path, **settings), BadRows(0))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("gaps", [False, True])
def test_integers_that_float32_cannot_distinguish_are_kept_as_integers(kind, gaps, tmp_path):
    values = SECONDS + np.arange(ROWS, dtype=float)
    values[:: 7 if gaps else ROWS] = np.nan
    found = scanned(tmp_path, values, kind)
    assert found.types["x"] == ColumnType(INTEGER)
    [note] = found.notes
    assert "distinct values become" in note
    assert "kept as integers" in note


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_fractions_that_float32_cannot_distinguish_stop_the_run_before_training(kind, tmp_path):
    with pytest.raises(UserError, match=r"column 'x': 4,000 distinct values become \d+ as float32.*data.max_float32_loss=1"):
        scanned(tmp_path, SECONDS + np.arange(ROWS) / 4, kind)


def test_a_loss_that_the_key_allows_is_reported_and_accepted(tmp_path):
    found = scanned(tmp_path, SECONDS + np.arange(ROWS) / 4, max_float32_loss=1.0)
    assert found.types["x"] == ColumnType(FLOAT)
    assert "4,000 distinct values become" in found.notes[0]


def test_sorted_numbers_of_which_float32_distinguishes_one_in_sixteen_are_found(tmp_path):
    with pytest.raises(UserError, match="distinct values become"):
        scanned(tmp_path, SECONDS + np.arange(60_000) * 10.25, "parquet")


def test_a_sentinel_far_away_does_not_hide_the_loss(tmp_path):
    with pytest.raises(UserError, match="distinct values become"):
        scanned(tmp_path, np.r_[0.5, SECONDS + np.arange(ROWS) / 4])


def test_a_fraction_in_a_later_batch_is_not_truncated(tmp_path):
    whole = SECONDS + np.arange(200_000, dtype=float)
    whole[-1] += 0.5
    with pytest.raises(UserError, match="distinct values become"):
        scanned(tmp_path, whole, "parquet")


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=ROWS),
        RNG.lognormal(10, 1, ROWS).round(2),
        np.full(ROWS, 17.5),
        np.arange(ROWS) * 1.0,
        RNG.normal(size=60_000),
    ],
    ids=["normal", "money", "constant", "small whole numbers", "many"],
)
def test_ordinary_numbers_are_floats_without_a_message(values, tmp_path):
    found = scanned(tmp_path, values, "parquet")
    assert found.notes == []
    assert found.types["x"] == ColumnType(FLOAT)


def test_integers_that_float64_cannot_distinguish_are_reported(tmp_path):
    found = scanned(tmp_path, 2**60 + np.arange(ROWS), "parquet")
    assert found.types["x"] == ColumnType(INTEGER)
    assert "4,000 distinct values become 17 as float64" in found.notes[0]


def test_seconds_as_integers_are_not_reported(tmp_path):
    assert scanned(tmp_path, SECONDS + np.arange(ROWS)).notes == []


@pytest.mark.parametrize("column", [pa.array([17.0, float("nan"), None]), pa.array(["17.0", None, None])])
def test_integral_floats_become_integers_and_nan_is_missing(column):
    assert convert(column, ColumnType(INTEGER)).to_pylist() == [[17], None, None]


@pytest.mark.parametrize("column", [pa.array([17.5]), pa.array(["17.5"])])
def test_a_fraction_is_never_truncated_to_an_integer(column):
    with pytest.raises(UserError, match=r"17\.5"):
        convert(column, ColumnType(INTEGER))
