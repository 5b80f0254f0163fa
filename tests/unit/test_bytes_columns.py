"""Bytes that are no text, through every door: as they are in training, as base64 in JSON, never through UTF-8."""

import base64
import json

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from switchyard.components.bundle.model import BundleInfo
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import ColumnType
from switchyard.components.ingest.readers import READERS
from switchyard.components.ingest.typed import TypedColumns
from switchyard.components.prediction.output import assemble
from switchyard.components.serving import invocations, open_inference
from switchyard.components.serving.bounds import InputError
from switchyard.components.serving.client import records, tensors
from switchyard.components.serving.inputs import columns_of
from switchyard.components.serving.metadata import input_metadata
from switchyard.components.serving.openapi import openapi
from switchyard.components.serving.served_model import Limits
from switchyard.components.values.base64_values import as_json, from_base64, holds_bytes, unwrapped
from switchyard.components.values.conversion import fit_frame, fit_values
from switchyard.components.values.raw_features import RawFeature

IMAGE, OTHER = b"\xff\xd8\xff\x00\n", b"\x89PNG"
FEATURE = RawFeature("image", "string", 1, meaning="text", missing=[""], is_bytes=True)
LISTS = RawFeature("image", "string", 2, meaning="text", is_bytes=True)
INFO = BundleInfo("pytorch", "pytorch", "binary", "y", [0, 1], [FEATURE])


def b64(value):
    return base64.b64encode(value).decode()


def wrapped(value):
    return {"b64": b64(value)}


def asked(given):
    return [v[0] for v in columns_of(INFO, given)[0]["image"].tolist()]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": [{"image": wrapped(IMAGE)}, {"image": wrapped(OTHER)}]},
        {"dataframe_split": {"columns": ["image"], "data": [[wrapped(IMAGE)], [wrapped(OTHER)]]}},
        {"instances": [{"image": wrapped(IMAGE)}, {"image": wrapped(OTHER)}]},
        {"inputs": {"image": [wrapped(IMAGE), wrapped(OTHER)]}},
        {"dataframe_records": [{"image": b64(IMAGE)}, {"image": b64(OTHER)}]},  # of a binary column, by MLflow's clients
    ],
    ids=["records", "split", "instances", "inputs", "texts"],
)
def test_invocations_accept_base64(body):
    assert asked(invocations.decode(json.dumps(body).encode(), "application/json", INFO)) == [IMAGE, OTHER]


def test_a_csv_contains_bytes_as_base64():
    body = f"image\n{b64(IMAGE)}\n{b64(OTHER)}\n".encode()
    assert asked(invocations.decode(body, "text/csv", INFO)) == [IMAGE, OTHER]


def test_a_text_that_is_not_base64_in_a_column_of_bytes_is_refused():
    with pytest.raises(
        InputError, match=r"column 'image' holds bytes: send base64, as a text or \{\"b64\": ...\}; a value is no"
    ):
        invocations.decode(b'{"instances": [{"image": "hello"}]}', "application/json", INFO)


def infer(tensor, tail=b""):
    head = orjson.dumps({"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", **tensor}]})
    return open_inference.decode(head + tail, len(head), INFO).given


def framed(*values):
    return b"".join(len(v).to_bytes(4, "little") + v for v in values)


def test_the_protocol_accepts_bytes_in_every_encoding_of_its_clients():
    raw, texts = framed(IMAGE, OTHER), framed(b64(IMAGE).encode(), b64(OTHER).encode())
    said = {"content_type": "base64"}
    for tensor, tail in (
        ({"data": [b64(IMAGE), b64(OTHER)], "parameters": said}, b""),  # MLServer's codec
        ({"data": [wrapped(IMAGE), wrapped(OTHER)]}, b""),
        ({"parameters": {"binary_data_size": len(raw)}}, raw),  # Triton's extension
        ({"parameters": {"binary_data_size": len(texts), **said}}, texts),
    ):
        assert asked(infer(tensor, tail)) == [IMAGE, OTHER]


def test_a_text_without_base64_is_encoded_as_utf_8():
    assert asked(infer({"data": ["é", b64(OTHER)]})) == ["é".encode(), b64(OTHER).encode()]


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (
            {"data": ["***", "a"], "parameters": {"content_type": "base64"}},
            "column 'image': content_type base64, and a value is no",
        ),
        ({"data": [{"b64": "***"}, wrapped(OTHER)]}, 'must hold texts, or bytes as {"b64": ...} in base64 (row 0)'),
        ({"data": [{"hex": "ff"}, wrapped(OTHER)]}, 'must hold texts, or bytes as {"b64": ...} in base64 (row 0)'),
        ({"data": [1, 2], "datatype": "INT64", "parameters": {"content_type": "base64"}}, "content_type base64 is for BYTES"),
    ],
)
def test_invalid_base64_is_refused_with_its_column(tensor, says):
    with pytest.raises(InputError) as refused:
        asked(infer(tensor))
    assert says in str(refused.value)


def test_lists_of_bytes_are_accepted():
    found = fit_values([[wrapped(IMAGE), wrapped(OTHER)], [wrapped(OTHER), "a"]], LISTS)
    assert found.values.to_pylist() == [[IMAGE, OTHER], [OTHER, b"a"]]
    assert found.misfits == []


def test_mlflows_frames_accept_bytes_and_base64():
    for cells in ([IMAGE, OTHER], [wrapped(IMAGE), wrapped(OTHER)], [IMAGE, wrapped(OTHER)]):
        assert fit_frame(pd.DataFrame({"image": cells}), [FEATURE])["image"].tolist() == [[IMAGE], [OTHER]]


def test_values_sent_by_this_project_are_accepted():
    rows = pd.DataFrame({"image": [IMAGE, b"plain"]})
    assert asked(invocations.decode(json.dumps({"instances": records(rows, [FEATURE])}).encode(), "", INFO)) == [IMAGE, b"plain"]
    body = orjson.dumps({"inputs": tensors(rows, [FEATURE])})
    assert asked(open_inference.decode(body, None, INFO).given) == [IMAGE, b"plain"]
    wide = pd.DataFrame({"image": [np.array([IMAGE, OTHER], dtype=object)]})
    assert tensors(wide, [LISTS])[0]["data"] == [[b64(IMAGE), b64(OTHER)]]


def test_metadata_and_the_openapi_document_name_the_columns_of_bytes():
    assert input_metadata(FEATURE)["parameters"] == {"content_type": "base64"}
    assert "contentEncoding" in json.dumps(openapi("m", INFO, Limits(), "1"))
    plain = BundleInfo("pytorch", "pytorch", "binary", "y", [0, 1], [RawFeature("image", "string", 1, meaning="text")])
    assert "contentEncoding" not in json.dumps(openapi("m", plain, Limits(), "1"))


def test_json_lines_contain_bytes_as_base64(tmp_path):
    rows = [{"x": wrapped(IMAGE)}, {"x": None}, {"x": "é"}, {"x": wrapped(b"")}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    [batch] = READERS["jsonl"](str(tmp_path / "d.jsonl"), BadRows(0), None)
    assert batch.column("x").to_pylist() == [IMAGE, None, "é".encode(), b""]


@pytest.mark.parametrize("bad", [{"b64": "***"}, 5, {"b64": "AA==", "more": 1}])
def test_json_lines_with_invalid_base64_are_refused_with_the_row(bad, tmp_path):
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"x": v}) for v in (wrapped(IMAGE), bad)))
    with pytest.raises(UserError, match="row 1: column 'x' holds"):
        list(READERS["jsonl"](str(tmp_path / "d.jsonl"), BadRows(0), None))


def test_ingest_knows_a_column_of_bytes_by_its_values():
    typed = TypedColumns({"a": ColumnType.of({"string"}), "b": ColumnType.of({"string"})}, (), ["y"])
    columns = [pa.array([IMAGE, b"x"]), pa.array([b"text", b"x"])]
    assert typed.convert(pa.RecordBatch.from_arrays(columns, names=["a", "b"])).column("a").to_pylist() == [[IMAGE], [b"x"]]
    assert typed.bytes_columns == {"a"}


def parts(tmp_path):
    pa.parquet.write_table(pa.table({"image": pa.array([IMAGE, b"a"])}), tmp_path / "part.parquet")
    return [tmp_path / "part.parquet"]


def test_predictions_in_json_lines_keep_bytes_as_base64(tmp_path):
    assemble(parts(tmp_path), tmp_path / "out.jsonl", "jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").open()] == [{"image": wrapped(IMAGE)}, {"image": "a"}]


def test_predictions_in_a_csv_refuse_bytes(tmp_path):
    with pytest.raises(UserError, match="holds bytes that are not UTF-8 text, which CSV does not support"):
        assemble(parts(tmp_path), tmp_path / "out.csv", "csv")


@pytest.mark.parametrize("value", [IMAGE, b"", b"a", "é".encode()])
def test_bytes_survive_json(value):
    found = as_json(value)
    assert (from_base64(found["b64"]) if isinstance(found, dict) else found.encode()) == value


def test_base64_with_line_breaks_is_decoded():
    assert from_base64(base64.encodebytes(IMAGE * 100).decode()) == IMAGE * 100


def test_a_column_of_bytes_is_reported_and_values_with_line_breaks_are_counted_before_training():
    typed = TypedColumns({"a": ColumnType.of({"string"})}, (), ["y"])
    typed.convert(pa.RecordBatch.from_arrays([pa.array([IMAGE, b"x", b"two\r\nlines"])], names=["a"]))
    [of_bytes] = typed.notes()
    assert of_bytes.startswith("a: holds bytes that are not UTF-8")
    assert typed.broken_lines == {"a": 2}


def test_deeply_nested_lists_do_not_exhaust_the_stack():
    nested = [{"b64": "YQ=="}]
    for _ in range(5000):
        nested = [nested]
    assert len(unwrapped([nested])) == 1
    assert not holds_bytes([nested])
    assert unwrapped([[{"b64": "YQ=="}]]) == [[b"a"]]
