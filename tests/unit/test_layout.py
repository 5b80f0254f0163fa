"""Columns that a format adds to a file, and files that hold no rows: left out or read as text, and said."""

import gzip

import numpy as np
import pandas as pd
import pytest

from switchyard.components.bundle.model import BundleInfo, RawFeature
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import STRING, ColumnType
from switchyard.components.ingest.layout import folder_columns
from switchyard.components.ingest.scan import scan
from switchyard.components.ingest.sources import find_files, fingerprint, list_files
from switchyard.components.serving import invocations, open_inference
from switchyard.components.serving.bounds import InputError
from switchyard.components.serving.inputs import check_names, columns_of, left_aside
from switchyard.components.serving.metadata import output_metadata
from tests.ingest_inputs import input_spec

ROWS = 40
FRAME = pd.DataFrame({"x": np.arange(ROWS) % 7, "y": np.arange(ROWS) % 2}).iloc[np.random.default_rng(0).permutation(ROWS)]


def scanned(path, **settings):
    return scan(input_spec(path, **settings), BadRows(0))


def stored(tmp_path, frame, kind="parquet", **options):
    path = tmp_path / f"d.{kind}"
    {"parquet": frame.to_parquet, "csv": frame.to_csv}[kind](path, **options)
    return path


R_CSV = '"","x","y"\n' + "".join(f'"car {i}",{i % 7},{i % 2}\n' for i in range(ROWS))


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("times", [1, 2], ids=["once", "put behind one another"])
def test_the_index_that_pandas_stores_is_excluded_and_reported(kind, times, tmp_path):
    frame = pd.concat([FRAME if times == 1 else FRAME.sort_index()] * times)
    found = scanned(stored(tmp_path, frame, kind))
    assert set(found.types) == {"x", "y"}
    assert found.notes[0].startswith("skipped '")


def test_an_index_read_and_written_again_is_excluded(tmp_path):
    again = pd.read_csv(stored(tmp_path, FRAME, "csv"))
    assert set(scanned(stored(tmp_path, again, "csv", index=False)).types) == {"x", "y"}


def test_row_names_of_r_are_excluded(tmp_path):
    (tmp_path / "d.csv").write_text(R_CSV)
    assert set(scanned(tmp_path / "d.csv").types) == {"x", "y"}


def test_an_index_of_several_levels_is_excluded(tmp_path):
    frame = FRAME.set_index([np.arange(ROWS), np.arange(ROWS) // 3])
    assert set(scanned(stored(tmp_path, frame)).types) == {"x", "y"}


def test_an_index_with_a_name_is_a_column(tmp_path):
    assert set(scanned(stored(tmp_path, FRAME.rename_axis("customer"))).types) == {"x", "y", "customer"}


def test_a_first_column_without_a_name_that_is_no_index_is_refused(tmp_path):
    (tmp_path / "d.csv").write_text(",x,y\n" + "".join(f"{i % 5 / 2},{i % 7},{i % 2}\n" for i in range(ROWS)))
    with pytest.raises(UserError, match=r"column 1 has no name and is not a row index.*data.exclude"):
        scanned(tmp_path / "d.csv")
    assert set(scanned(tmp_path / "d.csv", exclude=[""]).types) == {"x", "y"}


def test_a_column_named_like_an_index_that_measures_something_is_kept(tmp_path):
    frame = FRAME.assign(**{"Unnamed: 0": FRAME.x * 0.5})
    assert "Unnamed: 0" in scanned(stored(tmp_path, frame, "csv", index=False)).types


def test_a_configured_label_is_no_index(tmp_path):
    assert scanned(stored(tmp_path, FRAME.drop(columns="y")), label="__index_level_0__").task == "regression"


def partitions(tmp_path, kind="csv"):
    for region in ("01", "02"):
        folder = tmp_path / "data" / f"region={region}" / "city=a%20b"
        folder.mkdir(parents=True)
        stored(folder, FRAME, kind, index=False)
    return tmp_path / "data"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("pattern", ["", "/", "/**/*.{kind}", "/*/*/d.{kind}"])
def test_partition_columns_are_read_as_text(kind, pattern, tmp_path):
    found = scanned(f"{partitions(tmp_path, kind)}{pattern.format(kind=kind)}")
    assert found.types["region"] == found.types["city"] == ColumnType(STRING)
    assert found.rows == 2 * ROWS
    assert found.notes == ["read from folder names, as text: city, region"]


def test_the_label_may_be_the_name_of_a_folder(tmp_path):
    assert scanned(partitions(tmp_path), label="region").classes == ["01", "02"]


def test_a_folder_named_in_the_path_is_no_column(tmp_path):
    assert "region" not in scanned(partitions(tmp_path) / "region=01").types


@pytest.mark.parametrize(("path", "expected"), [
    ("d/a=1/b=x%2Fy/f.csv", {"a": "1", "b": "x/y"}),
    ("d/a=__HIVE_DEFAULT_PARTITION__/f.csv", {"a": None}),
    ("a=1/other/f.csv", {}),
    ("d/f=1.csv", {}),
])  # fmt: skip
def test_partition_folders_beside_the_file_become_columns(path, expected):
    assert folder_columns(path) == expected


def test_the_fingerprint_depends_on_the_folder(tmp_path):
    first, second = find_files([str(partitions(tmp_path))])
    assert fingerprint([first]) != fingerprint([second])


def test_markers_and_empty_parts_are_skipped_and_counted(tmp_path):
    folder = partitions(tmp_path)
    (folder / "_SUCCESS").touch()
    (folder / "region=01" / ".part.csv.crc").write_text("x")
    (folder / "_delta_log").mkdir()
    (folder / "_delta_log" / "0.csv").write_text("x")
    (folder / "empty.csv").touch()
    (folder / "nothing.csv.gz").write_bytes(gzip.compress(b""))
    found = scanned(folder)
    assert found.rows == 2 * ROWS
    [note] = [n for n in found.notes if "skipped" in n]
    assert note.startswith("5 files without rows are skipped (markers and empty parts): ")


def test_a_glob_skips_files_without_rows_too(tmp_path):
    stored(tmp_path, FRAME, "csv", index=False)
    (tmp_path / "_e.csv").write_text("x")
    (tmp_path / "e.csv").touch()
    listing = list_files([f"{tmp_path}/*.csv"])
    assert ([len(listing.files), len(listing.skipped)]) == [1, 2]
    assert len(find_files([f"{tmp_path}/_*.csv"])) == 1


def test_an_empty_file_named_in_the_path_is_refused(tmp_path):
    (tmp_path / "_e.csv").touch()
    with pytest.raises(UserError, match="is empty"):
        scanned(tmp_path / "_e.csv")


def test_a_folder_of_markers_alone_is_refused(tmp_path):
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(
        UserError,
        match=r"data\.path: no file matches .* but _SUCCESS, without rows\. .* relative to the YAML, or .*\)",
    ):
        scanned(tmp_path)


INFO = BundleInfo(
    "pytorch", "pytorch", "binary", "y", ["bad", "good"], [RawFeature("x", "float32", 1), RawFeature("s", "string", 1)]
)
CSV = ',s,x\n0,"a",1\n1,"b",2\n'
RECORDS = b'{"dataframe_records": [{"__index_level_0__": 3, "x": 1, "s": "a"}]}'
TENSORS = b"""{"inputs": [{"name": "__index_level_0__", "shape": [1], "datatype": "INT64", "data": [3]},
{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}, {"name": "s", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}"""


@pytest.mark.parametrize(("given", "name"), [
    (lambda: invocations.decode(CSV.encode(), "text/csv", INFO), "''"),
    (lambda: invocations.decode(RECORDS, "", INFO), "'__index_level_0__'"),
    (lambda: open_inference.decode(TENSORS, None, INFO).given, "'__index_level_0__'"),
], ids=["csv", "records", "open inference"])  # fmt: skip
def test_a_request_with_a_stored_index_is_answered_and_says_what_is_not_used(given, name):
    values = given()
    columns, rows = columns_of(INFO, values)
    assert (set(columns), rows) == ({"x", "s"}, len(values["x"]))
    assert left_aside(INFO, values) == {"x-switchyard-ignored": name}


def test_any_other_unknown_column_of_a_request_is_refused():
    with pytest.raises(InputError, match="column 'z' is unknown"):
        check_names(INFO, ["x", "s", "z"])


def test_a_served_model_names_the_positive_class():
    *_, probability = output_metadata(INFO)
    assert probability == {"name": "probability", "datatype": "FP64", "shape": [-1], "parameters": {"positive_class": "good"}}
