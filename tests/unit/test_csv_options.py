"""CSVs as other countries and programs write them: separator, decimal point, thousands, encoding."""

import gzip

import pyarrow as pa
import pytest

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.scan import read_batches, scan
from switchyard.pipelines.config.load import load_config
from tests.ingest_inputs import input_spec

pytestmark = pytest.mark.core
GERMAN = "größe;stadt;y\n" + "".join(f"{i}.316,{i % 10}5;Köln 1,5;{i % 2}\n" for i in range(1, 100))
OPTIONS = {"separator": ";", "decimal": ",", "thousands": "."}


def spec(path, **settings):
    return input_spec(path, **settings)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_file_with_another_locale_is_read(encoding, ending, tmp_path):
    path = tmp_path / f"d.{ending}"
    path.write_bytes(gzip.compress(GERMAN.encode(encoding)) if ending.endswith("gz") else GERMAN.encode(encoding))
    settings = spec(path, csv={**OPTIONS, "encoding": encoding})
    found = scan(settings, BadRows(0))
    assert {n: t.kind for n, t in found.types.items()} == {"größe": "float", "stadt": "string", "y": "integer"}
    [batch] = read_batches(settings, str(path), BadRows(0), numeric={"größe", "y"})
    assert batch.column("größe")[0].as_py() == "1316.15"
    assert batch.column("stadt")[0].as_py() == "Köln 1,5"  # a text stays as it is


@pytest.mark.parametrize(
    ("options", "texts", "plain"),
    [
        ({"decimal": ","}, ["3,5", " -1,25e3 ", ",5", "7", "x", "1.5"], ["3.5", "-1.25e3", ".5", "7", "x", "'1.5'"]),
        ({"thousands": ","}, ["1,316.5", "12,345,678", "1,31", "316"], ["1316.5", "12345678", "1,31", "316"]),
        ({"decimal": ",", "thousands": "."}, ["1.316,5", "1.316", "1.5"], ["1316.5", "1316", "'1.5'"]),
        ({"thousands": " "}, ["1 316", "1\u00a0316.5", "1 31"], ["1316", "1316.5", "1 31"]),
    ],
    ids=str,
)
def test_numbers_of_a_locale_are_normalized_and_nothing_else_becomes_a_number(options, texts, plain):
    assert CsvOptions(**options).numbers(pa.array(texts)).to_pylist() == plain


def test_bytes_of_another_encoding_are_refused_with_their_position_and_the_key(tmp_path):
    (tmp_path / "d.csv").write_bytes("a,y\nx,0\nKöln,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"byte 0xf6 at offset 9, line 3\. Set data\.csv\.encoding"):
        scan(spec(tmp_path / "d.csv"), BadRows(0))


def test_a_wrong_declared_encoding_is_refused_with_the_position(tmp_path):
    (tmp_path / "d.csv").write_bytes("a,y\nx,0\nKöln,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"is not shift_jis text: byte .* line 3"):
        scan(spec(tmp_path / "d.csv", csv={"encoding": "shift_jis"}), BadRows(0))


@pytest.mark.parametrize(("head", "key"), [("a;y\n1;0\n", 'separator: ";"'), ("a\ty\n1\t0\n", r'separator: "\\t"')])
def test_another_separator_is_named(head, key, tmp_path):
    (tmp_path / "d.csv").write_text(head)
    with pytest.raises(UserError, match=rf"data.csv.{key}"):
        scan(spec(tmp_path / "d.csv"), BadRows(0))


@pytest.mark.parametrize("ending", ["tsv", "TSV.gz"])
def test_a_tsv_is_read_with_tabs_unless_a_separator_is_set(ending, tmp_path):
    def columns(text, **csv):
        path = tmp_path / f"d.{ending}"
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
        return list(scan(spec(path, csv=csv), BadRows(0)).types)

    assert columns("a,b\ty\nu,v\t0\nw\t1\n") == ["a,b", "y"]
    assert columns("a;y\n1;0\n2;1\n", separator=";") == ["a", "y"]
    assert columns("a,y\n1,0\n2,1\n", separator=",") == ["a", "y"]
    with pytest.raises(UserError, match=r"when read with the separator '\\t'. Set data.csv.separator: \",\""):
        columns("a,y\n1,0\n")


def test_utf_16_is_recognized_by_its_byte_order_mark(tmp_path):
    (tmp_path / "d.csv").write_bytes("a,y\n1,0\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"is UTF-16, not UTF-8. Set data.csv.encoding: utf-16"):
        scan(spec(tmp_path / "d.csv"), BadRows(0))


@pytest.mark.parametrize(("separator", "value"), [(";", '";"'), ("\t", r'"\t"'), ("|", '"|"')])
def test_the_separator_that_a_refused_csv_needs_is_named_as_the_command_line_accepts_it(tmp_path, separator, value):
    (tmp_path / "d.csv").write_text(f"x{separator}y\n1{separator}2\n")
    with pytest.raises(UserError) as refused:
        scan(spec(tmp_path / "d.csv"), BadRows(0))
    override = f"data.csv.separator={value}"
    assert f"Set data.csv.separator: {value} (--set '{override}')" in str(refused.value)
    document = {"name": "d", "data": {"path": str(tmp_path / "d.csv")}, "label": "y"}
    assert load_config(None, document=document, overrides=[override]).data.csv.separator == separator


def test_csv_options_are_refused_without_a_csv(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"x": 1, "y": 0}\n{"x": 2, "y": 1}\n')
    with pytest.raises(UserError, match=r"data.csv: no file is a CSV"):
        scan(spec(tmp_path / "d.jsonl", csv=OPTIONS), BadRows(0))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.csv.separator=;;", "data.csv.separator: ';;' is not a separator"),
        ("data.csv={decimal: ',', thousands: ','}", "decimal and thousands are both ','"),
        ("data.csv.encoding=latin-77", "'latin-77' is not a text encoding"),
        ("data.csv.encoding=base64", "'base64' is not a text encoding"),
        ("data.columns={x: {type: date}}", "data.columns.x.type: must be 'number', 'text', 'image' or 'sequence'"),
        ("data.columns={x: {type: image}}", "data.columns.x: an image needs a size: [height, width] in pixels"),
        ("data.columns={x: {type: text, size: [8, 8]}}", "data.columns.x.size: describes the type image, and the type is text"),
        ("data.columns={x: {type: sequence}}", "data.columns.x: a sequence needs a length"),
        (
            "data.columns={x: {type: number, length: 8}}",
            "data.columns.x.length: describes the type sequence, and",
        ),
        ("data.columns={x: {type: number, pool: mean}}", "data.columns.x.pool: describes the type sequence, and"),
        ("data.columns={y: {type: sequence, length: 8}}", "data.columns: 'y' has the type sequence and is the label"),
        ("data.columns={x: {type: image, size: [8]}}", "data.columns.x.size"),
        ("data.columns={x: {type: image, size: [0, 8]}}", "data.columns.x.size.0"),
        ("data.columns={y: {type: image, size: [8, 8]}}", "data.columns: 'y' has the type image and is the label"),
        ("data.columns={x: number}", "data.columns.x"),
    ],
)
def test_an_invalid_option_is_refused_by_its_key(override, message):
    with pytest.raises(UserError) as refused:
        load_config(None, document={"name": "x", "data": {"path": "a.csv"}, "label": "y"}, overrides=[override])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("trainer.framework=lightgbm", "boosted trees have no use for it"),
        ("preprocessing=features.py", "preprocessing returns others"),
    ],
)
def test_a_bag_is_refused_where_nothing_would_pool_it(override, reason):
    document = {"name": "x", "data": {"path": "a.jsonl", "columns": {"x": {"type": "sequence", "length": 8}}}, "label": "y"}
    load_config(None, document=document, overrides=[override])
    document["data"]["columns"]["x"]["pool"] = "mean"
    with pytest.raises(UserError, match=rf"data\.columns\.x\.pool: .*{reason}"):
        load_config(None, document=document, overrides=[override])


@pytest.mark.parametrize(
    "column", [{"type": "image", "size": [8, 8]}, {"type": "sequence", "length": 8}], ids=lambda c: c["type"]
)
def test_images_and_sequences_are_no_slices(column):
    document = {"name": "x", "data": {"path": "a.csv", "columns": {"x": column}}, "label": "y"}
    load_config(None, document={**document, "evaluation": {"slices": ["z"]}})
    with pytest.raises(UserError, match=r"evaluation\.slices: 'x' has the type .*, so it has no value to slice by; remove it"):
        load_config(None, document={**document, "evaluation": {"slices": [["z", "x"]]}})
