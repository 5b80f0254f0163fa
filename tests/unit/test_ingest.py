"""The parts of ingest that need no framework: types, splits by hash, fingerprints, and data that cannot be used."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import FLOAT, INTEGER, STRING, ColumnType, convert, observe
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.keys import key_hashes
from switchyard.components.ingest.readers import READERS, reader
from switchyard.components.ingest.scan import scan
from switchyard.components.ingest.sources import fingerprint, format_of, list_files
from switchyard.components.ingest.writer import assign
from switchyard.components.values.conversion import fit_rows
from switchyard.components.values.raw_features import RawFeature
from tests.command import REPOSITORY
from tests.ingest_inputs import input_spec


def test_a_row_keeps_its_split_when_others_are_added_and_removed():
    keys = pa.array([str(i) for i in range(1000)])
    whole = assign(key_hashes(keys, np.zeros(1000)), {"train": 3, "eval": 1})
    assert (whole[::3] == assign(key_hashes(keys[::3], np.zeros(334)), {"train": 3, "eval": 1})).all()
    assert 0.2 < whole.mean() < 0.3


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("", {}, "is empty"),
        ("x,y\n", {}, "no rows"),
        ("x,x,y\n1,2,3\n", {}, "duplicate column name 'x'"),
        ("x,,y\n1,2,3\n", {}, "column 2 has no name"),
        ("x,why\n1,2\n", {}, "has no column 'y'"),
        ("x,y\n1,0\n2,0\n", {}, "only the value"),
        ("x,y\n1,0\n2,1\n3,2\n", {"task": "binary"}, "has 3 values .*Set task to multiclass"),
        ("x,y\n1,a\n2,b\n", {"task": "regression"}, "is text; a regression task needs numbers"),
        ("x,y\n1,0.5\n2,1.5\n", {"task": "binary"}, "holds fractions"),
        ("x,y\n1,0\n2,1\n", {"exclude": ["z"]}, "unknown column 'z'"),
        ("x,y\n1,0\n2,1\n", {"split_key": "z"}, "has no column 'z'"),
        ("x,y\n,0\n,1\n", {}, "no usable feature"),
    ],
)
def test_data_that_cannot_be_used_is_refused(content, settings, message, tmp_path):
    (tmp_path / "d.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        scan(input_spec(tmp_path / "d.csv", **settings), BadRows(0))


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_file_without_the_key_column_is_refused_by_its_name(ending, tmp_path):
    write = {"csv": pd.DataFrame.to_csv, "parquet": pd.DataFrame.to_parquet}
    for name, frame in (("a", {"user": [1, 2], "x": [1, 2], "y": [0, 1]}), ("b", {"x": [1, 2], "y": [0, 1]})):
        path = tmp_path / f"{name}.{ending}"
        if ending == "jsonl":
            pd.DataFrame(frame).to_json(path, orient="records", lines=True)
        else:
            write[ending](pd.DataFrame(frame), path, index=False)
    with pytest.raises(UserError, match=rf"data.split_key: .*b.{ending} has no column 'user'"):
        scan(input_spec(tmp_path / f"*.{ending}", split_key="user"), BadRows(0))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([True, None]), ColumnType(INTEGER)),
        (pa.array([1.5, float("nan")]), ColumnType(FLOAT)),
        (pa.array(pd.to_datetime(["2020-01-01"])), ColumnType(INTEGER)),
        (pa.array(["a"]).dictionary_encode(), ColumnType(STRING)),
        (pa.array([[1, 2], [3]]), ColumnType(INTEGER, is_list=True)),
        (pa.array([[1], [], None]), ColumnType(INTEGER)),
    ],
)
def test_parquet_types_become_tensorflow_types(column, expected):
    assert observe("x", column, is_text=False) == expected
    assert len(convert(column, expected)) == len(column)


def test_nan_is_a_missing_value():
    assert convert(pa.array([1.5, float("nan"), None]), ColumnType(FLOAT)).to_pylist() == [[1.5], None, None]


def test_a_date_becomes_seconds():
    assert convert(pa.array(pd.to_datetime(["1970-01-02"])), ColumnType(INTEGER)).to_pylist() == [[86400]]


def test_the_fingerprint_changes_with_the_content(tmp_path):
    file = tmp_path / "a.csv"
    found = []
    for content in ("1", "1", "2"):
        file.write_text(content)
        found.append(fingerprint([str(file)]))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(("name", "declared"), [("A.CSV.GZ", "auto"), ("a.dat", "csv")])
def test_the_format_follows_from_the_extension_or_the_config(name, declared):
    assert format_of(name, declared) == "csv"


def test_an_unknown_file_extension_is_refused():
    with pytest.raises(UserError, match="cannot infer the format"):
        format_of("a.xlsx", "auto")


EARLY = """
import sys
from switchyard.components.ingest import csv_reader, scan, sources
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.input_spec import InputSpec

path, remote = sys.argv[1:]

if remote == "remote":
    import io, time

    class SlowStore(io.FileIO):
        def read(self, size=-1):
            time.sleep(0.1)
            return super().read(size)

    sources.is_local = lambda path: False
    sources.open_file = lambda path: SlowStore(path)

csv_reader._BLOCK = 1 << 16  # many blocks of little data, as of gigabytes
spec = InputSpec([path], {"train": 1.0}, "csv", [], 0, "nowhere", "auto")
try:
    scan.scan(spec, BadRows(0), peek=True)
except scan.UserError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize("store", ["local", "remote"])
def test_an_error_in_the_first_rows_ends_the_process_in_order_with_a_slow_fake_of_a_remote_store(store, tmp_path):
    """Arrow's read-ahead thread inside Python while the interpreter ends would abort the process."""
    data = tmp_path / "d.csv"
    data.write_text("a,b\n" + "1,2\n" * 300_000)
    done = subprocess.run([sys.executable, "-c", EARLY, data, store], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "has no column 'nowhere'" in done.stdout
    assert done.returncode == 2, done.stderr


def test_the_columns_of_a_long_file_are_read_from_its_first_rows(tmp_path):
    (tmp_path / "d.csv").write_text("x,z,y\n" + "1.5,2,0\n2.5,3,1\n" * 700_000)
    found = scan(input_spec(tmp_path / "d.csv", exclude=["z"]), BadRows(0), peek=True)
    assert found.rows < 1_400_000
    assert list(found.types) == ["x", "y"]


@pytest.mark.parametrize(
    ("batches", "meaning"),
    [
        ([["True", "FALSE", "NA"], ["true", ""]], "boolean"),
        ([["1", "NA"], ["nan", "2"]], "integer"),
        ([["1"], ["2.5"]], "float"),
        ([["1"], ["True"]], "text"),
        ([["1", "True"]], "text"),
        ([["NA"], ["x"]], "text"),
        ([["NA", ""], ["null"]], "empty"),
        ([["2024-01-31"], ["2024-01-31 10:00:00"]], "timestamp[s]"),
        ([["2024-01-31"], ["2024-01-31T10:00:00.250Z"]], "timestamp[ms]"),
        ([["2024-01-31"], ["2024-02-30"]], "text"),
        ([["2024-01-31"], ["20240131"]], "text"),
        ([["09:30", "10:00:00.5"]], "time[ms]"),
        ([["007", "008"]], "integer"),
    ],
)
def test_the_type_of_text_in_a_csv_follows_from_all_its_values(batches, meaning):
    types = [observe("x", pa.array(b), is_text=True) for b in batches]
    widened = types[0] if len(types) == 1 else types[0].widen(types[1])
    together = observe("x", pa.array([v for b in batches for v in b]), is_text=True)
    assert (widened.meaning, together.meaning) == (meaning, meaning)


@pytest.mark.parametrize(
    ("columns", "meaning"),
    [
        ([pa.array([True]), pa.array([2])], "integer"),
        ([pa.array([True]), pa.array([0.5])], "float"),
        ([pa.array([2]), pa.array([0.5])], "float"),
        ([pa.array(["a"]), pa.array([2])], "text"),
        ([pa.array(["5"]), pa.array(["007"])], "text"),
        ([pa.array(pd.to_datetime(["2024-01-31"])), pa.array(["2024-01-31"])], "timestamp[s]"),
        ([pa.array(pd.to_datetime(["2024-01-31 10:00:00.000001"])), pa.array(pd.to_datetime(["2024-01-31"]))], "timestamp[us]"),
        ([pa.array(["True"]), pa.array([False])], "boolean"),
    ],
)
def test_the_common_type_of_several_files_can_hold_all_their_values(columns, meaning):
    first, second = (observe("x", c, is_text=False) for c in columns)
    assert first.widen(second).meaning == second.widen(first).meaning == meaning


def jsonl(folder, *rows):
    path = folder / "d.jsonl"
    path.write_text("".join(row + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['{"x": [1, 2], "y": 0}', '{"x": [1, null], "y": 1}'], r"row 1: column 'x' has a gap .*Received there: \[1, None\]"),
        (['{"x": [[1], [2]], "y": 0}', '{"x": [[3]], "y": 1}'], r"row 0: column 'x' holds lists of lists"),
        (['{"x": 1, "y": 0}', '{"x": 18446744073709551615, "y": 1}'], r"row 1: column 'x' holds integers outside 64 bits"),
        (['{"x": 1, "y": 0}', f'{{"x": {10**30}, "y": 1}}'], r"row 1: column 'x' holds integers outside 64 bits"),
        (['{"x": 5, "y": 0}', '{"x": "05", "y": 1}'], r"row 0: column 'x' holds numbers or booleans mixed with text such as 05"),
        (['{"x": [1], "y": 0}', '{"x": "a", "y": 1}'], r"row 1: column 'x' holds lists of several types"),
        (['{"x": {"a": 1}, "y": 0}', '{"x": {"a": 2}, "y": 1}'], r"column 'x' holds struct.* data.exclude: \[x\]"),
    ],
)
def test_values_that_no_model_can_receive_are_refused_with_file_and_row(rows, message, tmp_path):
    path = jsonl(tmp_path, *rows)
    with pytest.raises(UserError, match=message) as caught:
        scan(input_spec(path), BadRows(0))
    assert path in str(caught.value)


def test_an_excluded_column_may_hold_any_values(tmp_path):
    path = jsonl(tmp_path, '{"x": [1, "a"], "z": 1, "y": 0}', '{"x": {"b": 1}, "z": 2, "y": 1}')
    assert set(scan(input_spec(path, exclude=["x"]), BadRows(0)).types) == {"z", "y"}


@pytest.mark.parametrize(("keep", "kept"), [(True, ['[1, "a"]', '{"b": 1}', "c"]), (False, [None] * 3)])
def test_a_column_that_is_not_read_may_hold_any_values_and_is_kept_as_text(keep, kept, tmp_path):
    """As `predict` reads what the model does not, and writes it beside the predictions."""
    path = jsonl(tmp_path, '{"x": [1, "a"], "z": 1}', '{"x": {"b": 1}, "z": 2}', '{"x": "c", "z": 3}')
    [batch] = reader("jsonl", CsvOptions(), lambda name: name == "z", keep=keep)(path, BadRows(0), None)
    assert batch.to_pydict() == {"x": kept, "z": [1, 2, 3]}


@pytest.mark.parametrize(("keep", "kept"), [(True, [b"\xff", b"a"]), (False, [None, None])])
def test_texts_that_are_not_utf8_are_kept_as_bytes_in_a_column_that_is_not_read(keep, kept, tmp_path):
    text = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"a"]).buffers())
    pa.parquet.write_table(pa.table({"x": text, "y": [0, 1]}), tmp_path / "d.parquet")
    [batch] = reader("parquet", CsvOptions(), lambda name: name == "y", keep=keep)(str(tmp_path / "d.parquet"), BadRows(0), None)
    assert batch.to_pydict() == {"x": kept, "y": [0, 1]}


def test_integers_beyond_64_bits_are_refused_in_a_csv_too(tmp_path):
    (tmp_path / "d.csv").write_text(f"x,y\n1,0\n{2**64 - 1},1\n")
    with pytest.raises(UserError, match=r"d.csv, row 1: column 'x' holds integers outside 64 bits"):
        scan(input_spec(tmp_path / "d.csv"), BadRows(0))


def test_dates_beside_numbers_are_refused(tmp_path):
    pd.DataFrame({"x": pd.to_datetime(["2024-01-31"]), "y": [0]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"x": [1_706_659_200], "y": [1]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(UserError, match="column 'x' holds dates, times or booleans in some rows"):
        scan(input_spec(tmp_path / "*.parquet"), BadRows(0))


def test_numbers_and_words_in_json_are_numbers(tmp_path):
    rows = ['{"x": 1, "y": 0}', '{"x": "NA", "y": 1}', '{"x": 2.5, "y": 1}']
    found = scan(input_spec(jsonl(tmp_path, *rows)), BadRows(0))
    assert found.types["x"].meaning == "float"


def test_a_number_beside_texts_in_json_is_spelled_as_in_training(tmp_path):
    """As a server takes it: by the spelling that training saw."""
    [batch] = READERS["jsonl"](jsonl(tmp_path, '{"x": 5}', '{"x": "5"}', '{"x": "A1"}', '{"x": true}'), BadRows(0), None)
    pointed = RawFeature("x", "string", None, meaning="text", spelled=["5.0"])
    found = fit_rows(batch, [pointed])
    assert found.columns["x"].values.tolist() == [b"5.0", b"5", b"A1"]
    assert found.misfits == {3: "column 'x' must hold texts, received True"}


def test_a_float_beside_a_missing_value_word_in_json_is_a_float_as_beside_null(tmp_path):
    for word in ('"NA"', "null"):
        rows = ['{"x": 5.0, "y": 0}', '{"x": 6.0, "y": 1}', f'{{"x": {word}, "y": 1}}']
        found = scan(input_spec(jsonl(tmp_path, *rows)), BadRows(0))
        assert found.types["x"].meaning == "float", word


def test_a_missing_value_in_a_list_is_located_after_rows_without_a_list(tmp_path):
    rows = ['{"x": 1.5, "y": 0}'] * 40_000 + ['{"x": [1.0, null], "y": 1}']
    with pytest.raises(UserError, match=r"column 'x' (has a gap|holds lists)"):
        scan(input_spec(jsonl(tmp_path, *rows)), BadRows(0))


def test_a_column_that_is_an_index_in_one_file_and_data_in_another_is_refused(tmp_path):
    pd.DataFrame({"Unnamed: 0": [0, 1, 2] * 10, "y": [0, 1] * 15}).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({"Unnamed: 0": [1, 2], "y": [0, 1]}).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(UserError, match="'Unnamed: 0' counts the rows in some files"):
        scan(input_spec(tmp_path / "*.csv"), BadRows(0))


def test_infinity_among_integral_floats_leaves_them_floats(tmp_path):
    rows = [f'{{"x": {1.7e9 + i}, "y": {i % 2}}}' for i in range(200)] + ['{"x": Infinity, "y": 1}']
    found = scan(input_spec(jsonl(tmp_path, *rows), max_float32_loss=1.0, missing_values=["inf"]), BadRows(0))
    assert found.types["x"].meaning == "float"


def test_the_files_are_listed_once(tmp_path, monkeypatch):
    from switchyard.components.ingest import input_spec as module

    (tmp_path / "d.csv").write_text("x,y\n1,0\n2,1\n")
    calls = []
    monkeypatch.setattr(module, "list_files", lambda *given: calls.append(given) or list_files(*given))
    scan(input_spec(tmp_path / "*.csv"), BadRows(0))
    assert len(calls) == 1
