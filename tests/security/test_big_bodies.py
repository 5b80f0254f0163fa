"""A big body holds up no other request: it is decoded beside the event loop, in parts between which other threads run."""

import asyncio
import json
import threading

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.components.serving import answering, invocations, json_pieces, open_inference
from switchyard.components.serving.answering import ServerState
from switchyard.components.serving.app import create_app
from switchyard.components.serving.bodies import Bodies
from switchyard.components.serving.json_pieces import KeyTwiceError, PieceError, loads_in_pieces
from switchyard.components.serving.lists import plain_lists
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.served_model import Limits
from switchyard.components.values import conversion
from switchyard.components.values.raw_features import Ragged, RawFeature
from tests.security.hostile import GOOD, decode, rollout

pytestmark = pytest.mark.core
VALUES = 400_000  # more than a piece


def big(rows=1):
    """Form -> path and body, of more values in lists than a piece holds."""
    columns = {**{k: [v] * rows for k, v in GOOD.items()}, "l": [[1] * VALUES] * rows}
    kinds = {"i": "INT64", "s": "BYTES", "l": "INT64"}
    shapes = {"w": [rows, 3], "l": [rows, VALUES]}
    tensors = [
        {"name": k, "shape": shapes.get(k, [rows]), "datatype": kinds.get(k, "FP32"), "data": v} for k, v in columns.items()
    ]
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {
        "tensors": ("/v2/models/m/infer", {"inputs": tensors}),
        "records": ("/invocations", {"dataframe_records": records}),
        "split": ("/invocations", {"dataframe_split": {"columns": list(columns), "data": [list(r.values()) for r in records]}}),
        "inputs": ("/invocations", {"inputs": columns}),
    }


def binary():
    head = {"inputs": [*big()["tensors"][1]["inputs"][:-1]]}
    parameters = {"binary_data_size": 8 * VALUES}
    head["inputs"].append({"name": "l", "shape": [1, VALUES], "datatype": "INT64", "parameters": parameters})
    text = orjson.dumps(head)
    return text + b"\1" * 8 * VALUES, {"inference-header-content-length": str(len(text))}


@pytest.mark.parametrize("form", [*big(), "binary"])
def test_the_event_loops_thread_decodes_no_big_body(monkeypatch, form):
    seen = []

    def noted(function):
        def call(*arguments):
            seen.append((function.__name__, threading.current_thread()))
            return function(*arguments)

        return call

    for module, name in ((open_inference, "decode"), (invocations, "decode"), (answering, "columns_of")):
        monkeypatch.setattr(module, name, noted(getattr(module, name)))
    if form == "binary":
        path, (content, headers) = "/v2/models/m/infer", binary()
    else:
        path, document = big()[form]
        content, headers = orjson.dumps(document), {}
    limits = Limits()
    application = create_app(ServerState("m", rollout(limits), limits, Metrics(), "1"), token=None, access_log=None)

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost") as client:
            return await client.post(path, content=content, headers=headers)

    assert asyncio.run(ask()).status_code == 200
    assert sorted(name for name, _ in seen) == ["columns_of", "decode"]
    assert threading.current_thread() not in [thread for _, thread in seen]


@pytest.mark.parametrize("form", big())
def test_no_part_of_a_big_body_is_read_or_converted_in_one_long_call(monkeypatch, form):
    read, loads = [], orjson.loads
    monkeypatch.setattr(json_pieces.orjson, "loads", lambda text: read.append(len(text)) or loads(text))
    converted, array = [], pa.array
    monkeypatch.setattr(conversion.pa, "array", lambda values, *more: converted.append(len(values)) or array(values, *more))
    kind = "infer" if form == "tensors" else "json"

    assert decode(kind, orjson.dumps(big()[form][1])) == 1
    assert len(read) > 2
    assert max(read) < 300 << 10
    assert max(converted, default=0) < 1000


def test_a_medium_body_does_not_wait_for_a_large_one():
    async def main():
        bodies, over = Bodies(16 << 20), threading.Event()
        large = asyncio.create_task(bodies.work(16 << 20, over.wait, 60))
        await asyncio.sleep(0)
        small = await asyncio.wait_for(bodies.work(100 << 10, lambda: "done"), 30)
        over.set()
        return small, await large

    assert asyncio.run(main()) == ("done", True)


MIXED = {
    "lists of numbers and lists of texts": [[1], ["a"]],
    "lists with gaps and lists of texts": [[None], ["a"], [1]],
    "lists of objects and lists of numbers": [[{}], [1]],
    "objects whose values differ": [{"a": 1}, {"a": "x"}],
    "lists of lists": [[[1]], [["a"]]],
    "numbers that float64 does not hold": [[1, 2.5], [2**60 + 1, 2.5]],
}


@pytest.mark.parametrize("name", ["a", "s", "w", "l", "b"])
@pytest.mark.parametrize("case", MIXED)
def test_rows_of_many_types_are_converted_by_type_and_not_one_by_one(monkeypatch, case, name):
    """60 KB of these took a second and a half of the event loop."""
    calls, fit = [], conversion.fit
    monkeypatch.setattr(conversion, "fit", lambda *a: calls.append(a) or fit(*a))
    rows = 600
    columns = {**{k: [v] * rows for k, v in GOOD.items()}, name: (MIXED[case] * rows)[:rows]}

    status, message = decode("json", orjson.dumps({"inputs": columns}))

    assert (status, f"column {name!r}" in message) == (400, True)
    assert len(calls) < 10


def test_rows_of_many_types_that_fit_keep_their_order():
    feature = RawFeature("s", "string", None, is_list=True)
    values = [["a"], [1], [True], ["b"], [2], [False, True], ["c", "d"], None, [None], [{}]]

    found = conversion.fit_values(values, feature)

    assert [m.row for m in found.misfits if values[m.row] in ([None], [{}])] == [8, 9]
    whole = {i: v for i, v in enumerate(found.values.to_pylist()) if v is not None}
    assert {i: whole[i] for i in (0, 3, 6)} == {0: [b"a"], 3: [b"b"], 6: [b"c", b"d"]}


@pytest.mark.parametrize("odd", [None, True, "x", {}, [1], 2**60, 1.5])
def test_millions_of_irregular_values_are_refused(odd):
    document = {"inputs": {**{k: [v] for k, v in GOOD.items()}, "l": [[1] * (1 << 20) + [odd]]}}

    status, message = decode("json", orjson.dumps(document))

    assert status == 413
    assert message == "column 'l' holds more than 1048576 values, some of which are not numbers. Send fewer rows at once."


def test_millions_of_values_instead_of_one_are_refused():
    for cell in ([1] * (1 << 20), [[1] * (1 << 20)], [{"x": [1] * (1 << 20)}]):
        assert decode("json", orjson.dumps({"inputs": {**{k: [v] for k, v in GOOD.items()}, "b": [cell]}}))[0] == 413


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        (RawFeature("l", "int64", None, is_list=True), [[1, 2.0], [], None, [-3]]),
        (RawFeature("l", "float32", None, is_list=True), [[1, 2.5], [3e5], None]),
        (RawFeature("l", "string", None, is_list=True), [["a", ""], None, ["é"]]),
        (RawFeature("w", "float32", 2), [[1, 2], [0.1, -3]]),
        (RawFeature("w", "string", 2), [["a", "b"], ["", "c"]]),
        (RawFeature("l", "float32", None, is_list=True, missing=("7",)), [[7, 8]]),
    ],
)
def test_plain_lists_are_converted_as_by_the_one_converter(feature, values):
    found, expected = (
        plain_lists(feature, values),
        conversion.model_column(conversion.fit_values(values, feature).values, feature),
    )

    for ours, theirs in zip(_arrays(found), _arrays(expected), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def _arrays(column):
    return (column.values, column.lengths) if isinstance(column, Ragged) else (column,)


_texts = st.text('a,:"\\[]{}é😀', max_size=4)
_numbers = st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False)
_leaves = st.none() | st.booleans() | _numbers | _texts
_documents = st.recursive(
    _leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text('a,"\\[', max_size=2), v, max_size=4), max_leaves=30
)


@settings(max_examples=300, deadline=None)
@given(_documents, st.integers(2, 40), st.booleans())
def test_json_decoded_in_pieces_equals_json_decoded_at_once(document, piece, indented):
    text = json.dumps(document, indent=1 if indented else None, ensure_ascii=indented).encode()

    assert orjson.dumps(loads_in_pieces(text, piece)) == orjson.dumps(orjson.loads(text))


@settings(max_examples=500, deadline=None)
@given(st.text('[]{}:,"\\ 1a', max_size=24).map(str.encode), st.integers(2, 6))
def test_invalid_json_is_refused_in_pieces_too(text, piece):
    try:
        expected = orjson.loads(text)
    except orjson.JSONDecodeError:
        with pytest.raises((PieceError, KeyTwiceError)):
            loads_in_pieces(text, piece)
        return
    try:
        assert loads_in_pieces(text, piece) == expected
    except KeyTwiceError:
        assert text.count(b'"') >= 4


def test_json_that_is_nested_without_end_is_refused():
    for text in (b"[" * (1 << 20), b"[1," * (1 << 19), b'{"a":' * (1 << 18), b"[1," + b"[" * (1 << 20)):
        with pytest.raises(PieceError):
            loads_in_pieces(text)
