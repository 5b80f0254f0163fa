"""Files that are cut off, wrongly compressed or wrongly encoded, and values that nothing holds: each has one clear message."""

import bz2
import gzip
import json
import sys

import pyarrow as pa
import pyarrow.parquet
import pytest

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import ColumnType
from switchyard.components.ingest.columns_seen import located
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.float_precision import FloatPrecision
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.ingest.readers import READERS
from switchyard.components.ingest.scan import scan
from switchyard.components.ingest.typed import MisfitError, TypedColumns
from tests.ingest_inputs import input_spec

ROWS = "".join(json.dumps({"x": i, "y": i % 2}) + "\n" for i in range(200)).encode()
CSV = b"x,y\n" + b"".join(b"%d,%d\n" % (i, i % 2) for i in range(200))


def refusal(path, kind, *, limit=0, **options):
    with pytest.raises(UserError) as caught:
        list(READERS[kind](str(path), BadRows(limit), None, **options))
    assert str(path) in str(caught.value)
    return str(caught.value)


def scanned(path, *, bad=None, **changes):
    return scan(input_spec(path, **changes), bad or BadRows(changes.get("max_bad_rows", 0)))


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "spoiled",
    [lambda c: gzip.compress(c)[:-40], lambda c: gzip.compress(c)[:30] + b"\xff" * 60 + gzip.compress(c)[90:], lambda c: c],
    ids=["cut off", "corrupted", "not compressed"],
)
def test_a_damaged_compressed_file_is_a_user_error(kind, spoiled, tmp_path):
    content = {"csv": CSV, "jsonl": ROWS, "parquet": b"PAR1"}[kind]
    message = refusal(write(tmp_path / f"d.{kind}.gz", spoiled(content)), kind)
    assert "cannot be read as" in message
    assert "Check that it is complete" in message


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            gzip.compress(ROWS),
            "compressed with gzip, but its name has another ending; rename it with the ending .gz",
        ),
        (
            bz2.compress(ROWS),
            "compressed with bzip2, but its name has another ending; rename it with the ending .bz2",
        ),
        (b"PK\x03\x04rest", "a ZIP archive, as spreadsheets are"),
        (b"\x28\xb5\x2f\xfdrest", "compressed with Zstandard, but its name has another ending; unpack it"),
    ],
    ids=["gzip", "bzip2", "zip", "zstd"],
)
def test_a_compressed_file_without_its_extension_is_named(kind, content, says, tmp_path):
    assert says in refusal(write(tmp_path / f"d.{kind}", content), kind)


@pytest.mark.parametrize(
    ("encoding", "key"),
    [("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("utf-16-be", "utf-16-be"), ("utf-32", "utf-32")],
)
def test_a_csv_in_another_unicode_encoding_is_refused_with_the_key_that_reads_it(encoding, key, tmp_path):
    path = write(tmp_path / "d.csv", CSV.decode().encode(encoding))
    assert f"Set data.csv.encoding: {key}." in refusal(path, "csv")
    [batch] = READERS["csv"](str(path), BadRows(0), None, options=CsvOptions(encoding=key))
    assert batch.schema.names == ["x", "y"]
    assert batch.num_rows == 200


def test_utf_16_without_a_byte_order_mark_is_refused(tmp_path):
    path = write(tmp_path / "d.csv", CSV)
    assert "is not utf-16 text" in refusal(path, "csv", options=CsvOptions(encoding="utf-16"))


def test_json_lines_in_utf_16_are_refused(tmp_path):
    assert "is UTF-16; JSON Lines are UTF-8" in refusal(write(tmp_path / "d.jsonl", ROWS.decode().encode("utf-16")), "jsonl")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"x": ' + b"[" * 500 + b"]" * 500 + b"}", "nested too deeply"),
        (b'{"x": ' + b"[" * 500_000 + b"]" * 500_000 + b"}", "nested too deeply"),
        (b'{"x": "\xed\xa0\x80"}', "byte 0xed is not UTF-8"),
        (b'{"x": "\\ud800"}', "surrogates not allowed"),
        (b'{"x": 1 2}', "line 2: not a JSON object (Expecting ',' delimiter, character 9)"),
    ],
    ids=["depth", "great depth", "bytes", "surrogate", "comma"],
)
def test_a_line_of_invalid_json_is_a_bad_row_with_its_line_number(line, why, tmp_path):
    bad = BadRows(1)
    batches = list(READERS["jsonl"](str(write(tmp_path / "d.jsonl", b'{"x": 1}\n' + line + b"\n")), bad, None))
    assert sum(b.num_rows for b in batches) == bad.count == 1
    assert "line 2: not a JSON object" in bad.samples[0]["reason"]
    assert why in bad.samples[0]["reason"]


def test_the_line_number_of_a_ragged_row_is_reported(tmp_path):
    bad = BadRows(1)
    list(READERS["csv"](str(write(tmp_path / "d.csv", b"x,y\n1,2\n3\n4,5\n")), bad, None))
    assert bad.samples[0]["reason"] == "record 2: 1 fields where the header has 2"


def test_a_ragged_row_that_is_not_utf_8_is_refused_with_its_line(tmp_path, capsys, monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    path = write(tmp_path / "d.csv", b"x,y\n1,2\n\xc3(,2,3\n4,5\n")
    message = refusal(path, "csv", limit=10)
    assert "byte 0xc3 at offset 8, line 3" in message
    assert "data.csv.encoding" in message
    assert (unraisable, capsys.readouterr().err) == ([], "")


def test_a_parquet_text_that_is_not_utf_8_is_refused_with_its_row(tmp_path):
    # Arrow does not look at what it writes as text.
    texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"]).buffers())
    pa.parquet.write_table(pa.table({"s": texts}), tmp_path / "d.parquet")
    message = refusal(tmp_path / "d.parquet", "parquet")
    assert "row 1: column 's' holds values that are not of its type, string" in message


def test_a_time_of_day_beyond_midnight_is_refused_with_its_row(tmp_path):
    late = pa.array([0, 86_400_000_000_001], pa.int64()).cast(pa.time64("ns"))
    pa.parquet.write_table(pa.table({"t": late}), tmp_path / "d.parquet", version="2.6")
    assert "row 1: column 't' holds values that are not of its type, time64[ns]" in refusal(tmp_path / "d.parquet", "parquet")


@pytest.mark.parametrize("column", [[{"qqq": "x"}], ["x"]], ids=["nested", "plain"])
def test_a_parquet_column_name_that_is_not_utf_8_is_refused(column, tmp_path):
    pa.parquet.write_table(pa.table({"s" if isinstance(column[0], dict) else "qqq": column}), tmp_path / "d", store_schema=False)
    path = write(tmp_path / "d.parquet", (tmp_path / "d").read_bytes().replace(b"qqq", b"q\xffq"))
    message = refusal(path, "parquet")
    assert "the name of a column, b'" in message
    assert "q\\xffq', is not UTF-8. Rename it." in message


def test_duplicate_columns_of_a_parquet_are_named(tmp_path):
    column = pa.array([1, 2])
    pa.parquet.write_table(pa.Table.from_arrays([column, column], names=["n", "n"]), tmp_path / "d.parquet")
    assert "duplicate column name 'n'" in refusal(tmp_path / "d.parquet", "parquet")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32()), "a date32[day] outside the calendar"),
        (pa.array([0, 2**62], pa.int64()).cast(pa.timestamp("ms")), f"a timestamp[ms] outside the calendar: {2**62} ms"),
    ],
    ids=["date", "timestamp"],
)
@pytest.mark.parametrize("key", ["label", "data.split_key"])
def test_a_label_or_key_that_is_an_impossible_date_is_refused_with_its_row(values, says, key, tmp_path):
    table = {"y": values, "k": pa.array([1, 2])} if key == "label" else {"y": pa.array([0, 1]), "k": values}
    pa.parquet.write_table(pa.table(table), tmp_path / "d.parquet", version="2.6")
    with pytest.raises(UserError) as caught:
        scanned(tmp_path / "d.parquet", split_key="k")
    assert f"{key}: {tmp_path / 'd.parquet'}, row 1" in str(caught.value)
    assert says in str(caught.value)


def test_a_label_of_undecodable_bytes_is_refused_with_its_row_and_value(tmp_path):
    pa.parquet.write_table(pa.table({"y": pa.array([b"a", b"\xff\xfe"])}), tmp_path / "d.parquet")
    with pytest.raises(UserError, match=r"row 1: 'y' holds bytes that are not UTF-8 text: b'\\xff\\xfe'. Write"):
        scanned(tmp_path / "d.parquet")


def test_a_label_of_empty_lists_has_no_value(tmp_path):
    with pytest.raises(UserError, match="the label 'y' is missing"):
        scanned(write(tmp_path / "d.jsonl", b'{"x": 1, "y": []}\n{"x": 2, "y": []}\n'))


def test_the_first_row_is_shown_if_all_rows_are_bad(tmp_path):
    with pytest.raises(UserError) as caught:
        scanned(write(tmp_path / "d.jsonl", b"[1]\n[2]\n"), max_bad_rows=10)
    assert "no rows" in str(caught.value)
    assert "line 1: not a JSON object (not an object): [1]" in str(caught.value)


def test_a_csv_without_rows_and_a_declared_column_is_refused(tmp_path):
    with pytest.raises(UserError, match="no rows"):
        scanned(write(tmp_path / "d.csv", b"x,y\n"), columns={"x": "number"})


def test_a_value_that_does_not_fit_is_named_with_file_column_row_and_value(tmp_path):
    path = write(tmp_path / "d.csv", b"x,y\n1,0\n2,1\noops,1\n")
    [batch] = READERS["csv"](str(path), BadRows(0), None)
    with pytest.raises(MisfitError) as caught:
        TypedColumns({"x": ColumnType.of({"integer"})}, (), ["y"]).convert(batch)
    spec = InputSpec([str(path)], {}, "auto", [], 0, "y", "auto")
    message = str(located(spec, str(path), "x", caught.value))
    assert message == (
        f"data: {path}, row 2: column 'x' must hold numbers. Fix it, or exclude it with data.exclude: [x]. Received there: oops."
    )


def test_numbers_beyond_float32_cause_no_warning(recwarn):
    FloatPrecision().add("x", pa.array([1e300, 2e300]), "float")
    assert [w for w in recwarn if issubclass(w.category, RuntimeWarning)] == []


def test_a_column_of_lists_of_one_can_be_declared_a_number(tmp_path):
    table = pa.table({"x": pa.array([[b"1.5"], [b"2"], []], pa.list_(pa.binary())), "y": pa.array([0, 1, 1])})
    pa.parquet.write_table(table, tmp_path / "d.parquet")
    assert scanned(tmp_path / "d.parquet", columns={"x": "number"}).types["x"].kind == "float"


def test_an_endless_name_is_refused_in_a_short_message(tmp_path):
    message = refusal(write(tmp_path / "d.csv", b"x" * 70_000 + b",y\n1,2\n"), "csv")
    assert "the name of column 1" in message
    assert "has 70,000 characters" in message
    assert len(message) < 500


def test_a_text_of_any_length_is_shown_shortened(tmp_path):
    rows = b"".join(b"%d,%d\n" % (i, i % 2) for i in range(50))
    with pytest.raises(UserError) as caught:
        scanned(write(tmp_path / "d.csv", b"x,y\n" + rows + b"a" * 70_000 + b",1\n"))
    assert "50 of 51 values are numbers" in str(caught.value)
    assert "fix the values that are not numbers" in str(caught.value)
    assert len(str(caught.value)) < 500
