"""Whatever a request says of itself, it is decoded within memory that follows its size, or refused by the column's name."""

import asyncio
import json
import re
import threading
import time
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchyard.components.serving import answering
from switchyard.components.serving.answering import ServerState
from switchyard.components.serving.app import create_app
from switchyard.components.serving.batcher import QueueFullError
from switchyard.components.serving.bodies import Bodies, Body
from switchyard.components.serving.bounds import Bounds
from switchyard.components.serving.metadata import DATATYPES
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.served_model import Limits
from switchyard.components.values.raw_features import RawFeature
from tests.security.hostile import GOOD, INFO, WIDE, confined, decode, rollout

pytestmark = pytest.mark.core
HUGE = [2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


@pytest.fixture(scope="module")
def child():
    with confined(512) as call:
        yield call


def tensor(name, shape, data=(), datatype="FP32", **more):
    return {"name": name, "shape": shape, "datatype": datatype, "data": list(data), **more}


def tensors(**replaced):
    """One good row, with tensors replaced by name."""
    good = {
        "a": tensor("a", [1], [1.5]),
        "i": tensor("i", [1], [1], "INT64"),
        "s": tensor("s", [1], ["x"], "BYTES"),
        "w": tensor("w", [1, 3], [1.0, 2.0, 3.0]),
    }
    return list({**good, **replaced}.values())


def infer(inputs, tail=b""):
    head = json.dumps({"inputs": inputs}).encode()
    return ("infer", head + tail, INFO, len(head) if tail else None)


@pytest.mark.parametrize("shape", [[2**32, 2**32], [2**62, 4], [2**64 - 1, 2**64 - 1], [2**63, 2], [2**40, 0], [2**33, 2**31]])
@pytest.mark.parametrize("form", ["json", "binary", "texts"])
def test_a_shape_whose_product_overflows_is_refused(child, shape, form):
    size = {} if form == "json" else {"parameters": {"binary_data_size": 0}}
    claimed = tensor("a", shape, datatype="BYTES" if form == "texts" else "FP32", **size)

    status, message = child(decode, "infer", *infer(tensors(a=claimed))[1:3])

    assert status == 413
    assert f"{shape[0]} rows in a request" in message


def test_the_85_bytes_that_crashed_the_server_are_refused(child):
    body = b'{"inputs":[{"name":"x","shape":[4294967296,4294967296],"datatype":"FP32","data":[]}]}'

    assert child(decode, "infer", body) == (400, "column 'x' is unknown. Columns: a, b, i, s, t, w, l.")


@pytest.mark.parametrize("width", [0, 2, *HUGE])
def test_a_wrong_width_is_refused_before_values_are_read(child, width):
    wide, wrong = tensor("w", [1, width], [None]), tensor("a", [1, width], [None])

    assert "'w' must hold a list of 3 values per row" in child(decode, *infer(tensors(w=wide)))[1]
    assert "'a' must hold one value per row" in child(decode, *infer(tensors(a=wrong)))[1]


@pytest.mark.parametrize("rows", [0, 1])
def test_lists_of_a_claimed_length_are_refused(child, rows):
    status, _ = child(decode, *infer(tensors(l=tensor("l", [rows, 2**62], [], "INT64"))))

    assert status == 413


def test_sparse_records_take_no_memory_for_omitted_values(child):
    unknown = b"[" + b",".join(b'{"c%d":1}' % i for i in range(30_000)) + b"]"
    known = b"[" + b",".join(b'{"c%d":1}' % (i % 2000) for i in range(10_000)) + b"]"
    for key in ("dataframe_records", "instances", "inputs"):
        assert child(decode, "json", b'{"%s":%s}' % (key.encode(), unknown), WIDE, None, 10**9)[0] == 400

        status, message = child(decode, "json", b'{"%s":%s}' % (key.encode(), known), WIDE)

        assert status == 413
        assert "10000 rows of 2000 values" in message


def test_a_wide_model_accepts_all_rows_that_a_body_spells_out(child):
    rows = 1000
    split = {"columns": [f"c{i}" for i in range(2000)], "data": [[1] * 2000] * rows}

    assert child(decode, "json", orjson.dumps({"dataframe_split": split}), WIDE) == rows


def test_one_long_text_does_not_widen_every_number(child):
    """NumPy gives an array of texts the length of the longest: 9,999 numbers and 1 MiB would be 40 GB."""
    cells = [1.5] * 9_999 + ["x" * (1 << 20)]
    records = [{**GOOD, "a": v} for v in cells]
    columns = {**{k: [v] * len(cells) for k, v in GOOD.items()}, "a": cells}
    split = {"columns": list(columns), "data": [list(row) for row in zip(*columns.values(), strict=True)]}
    for document in ({"dataframe_records": records}, {"inputs": columns}, {"dataframe_split": split}):
        status, message = child(decode, "json", orjson.dumps(document))

        assert status == 400
        assert "column 'a' must hold numbers (row 9999), received str 'xxx" in message
        assert len(message) < 300


def test_lists_of_lists_are_not_multiplied(child):
    columns = {k: [v] * 1000 for k, v in GOOD.items()}
    for cells in ([1.0] * 999 + [[1.0] * 100_000], [[[1.0] * 1000]] * 1000, [["x" * 10_000, 1.0]] * 1000):
        status, message = child(decode, "json", orjson.dumps({"inputs": {**columns, "w": cells}}))
        assert status == 400
        assert "column 'w'" in message


def test_rows_padded_to_the_longest_list_are_counted(child):
    columns = {k: [v] * 10_000 for k, v in GOOD.items()}
    lists = [[1] * 100_000] + [None] * 9_999

    status, message = child(decode, "json", orjson.dumps({"inputs": {**columns, "l": lists}}))

    assert status == 413
    assert "column 'l': 10000 rows with up to 100000 values" in message


HEADERS = {
    "empty lines": b"\r\n" * (2 << 20),
    "commas": b"," * (4 << 20),
    "commas in a quote that is not closed": b'"' + b"," * (4 << 20),
    "commas behind a quoted line's end": b'"a\n"' + b"," * (4 << 20),
    "one name": b"a" * (4 << 20),
}


@pytest.mark.parametrize("case", list(HEADERS))
def test_a_csv_header_with_unknown_names_is_refused(child, case):
    assert child(decode, "csv", HEADERS[case] + b"\n1\n")[0] == 400


def test_an_endless_header_line_blocks_no_other_request():
    """Python's reader made millions of names of it without letting another thread run."""
    switched = []
    counting = threading.Thread(target=lambda: [(time.sleep(0.005), switched.append(time.monotonic())) for _ in range(60)])
    counting.start()

    refused = decode("csv", HEADERS["commas"] * 4)

    counting.join()
    assert refused == (400, "the first line of the CSV has more than 1007 columns; the model has 7.")
    assert max(b - a for a, b in pairwise(switched)) < 0.3


def test_endless_empty_lines_are_skipped_at_once():
    began = time.monotonic()

    assert decode("csv", b"\r\n" * (8 << 20))[0] == 400
    assert time.monotonic() - began < 2


def test_the_header_of_a_csv_body_is_parsed_as_csv(child):
    bodies = [b"a,i,s\r\n1,2,x\r\n", b"\xef\xbb\xbfa,i,s\n1,2,x", b'\n"a",i,"s"\r1,2,"x\ny"\r', b"s,i,a\nx,2,1\n\n"]
    for body in bodies:
        status, message = child(decode, "csv", body)
        assert (status, "column 'w' is missing" in message) == (400, True), body
    assert child(decode, "csv", b'"c1","c2"\n1,\n2,3\n', WIDE) == 2
    assert child(decode, "csv", b"c1,c2\n", WIDE) == (400, "no rows: send one or more.")
    assert "a duplicate column" in child(decode, "csv", b"c1,c1\n1,2\n", WIDE)[1]
    assert child(decode, "csv", b"c1,c2\n1,2,3\n", WIDE)[0] == 400
    assert "column 'c2'" in child(decode, "csv", b"c1,c2\n1,x\n", WIDE)[1]


def too_many():
    """Form -> a body of 11 rows."""
    eleven = {k: [v] * 11 for k, v in GOOD.items()}
    records = [GOOD] * 11
    flat = [tensor(k, [11, 3] if k == "w" else [11], v, "BYTES" if k == "s" else "FP32") for k, v in eleven.items()]
    text = b"\x01\x00\x00\x00x"
    raw = {"a": b"\0" * 44, "i": b"\0" * 44, "s": text * 11, "w": b"\0" * 132}
    binary = [{**t, "data": [], "parameters": {"binary_data_size": len(raw[t["name"]])}} for t in flat]
    return {
        "tensors": infer(flat),
        "binary tensors": infer(binary, b"".join(raw[t["name"]] for t in binary)),
        "records": ("json", orjson.dumps({"dataframe_records": records}), INFO, None),
        "instances": ("json", orjson.dumps({"instances": records}), INFO, None),
        "inputs as records": ("json", orjson.dumps({"inputs": records}), INFO, None),
        "inputs": ("json", orjson.dumps({"inputs": eleven}), INFO, None),
        "split": (
            "json",
            orjson.dumps({"dataframe_split": {"columns": list(GOOD), "data": [list(GOOD.values())] * 11}}),
            INFO,
            None,
        ),
        "csv": ("csv", b"c1,c2\n" + b"1,2\n" * 11, WIDE, None),
    }


@pytest.mark.parametrize("form", list(too_many()))
def test_rows_are_counted_in_every_form(form):
    request = too_many()[form]

    assert decode(*request, rows=11) == 11
    assert decode(*request, rows=10) == (413, "11 rows in a request; at most 10 are allowed. Send several requests.")


@pytest.mark.parametrize("form", list(too_many()))
def test_names_are_checked_before_rows(form):
    kind, body, info, length = too_many()[form]
    body = body.replace(b"c1", b"zz", 1) if form == "csv" else body.replace(b'"a"', b'"z"')

    status, message = decode(kind, body, info, length, rows=1)

    assert status == (400 if "record" not in form and form != "instances" else 413)
    assert "is unknown" in message or status == 413


def test_messages_about_a_request_are_short(child):
    long = "n" * (1 << 20)
    bodies = [
        ("infer", orjson.dumps({"inputs": [tensor(long, [1], [1])]})),
        ("infer", orjson.dumps({"inputs": [tensor(long, [1], [1])] * 2})),
        ("infer", orjson.dumps({"inputs": tensors(a=tensor("a", [long], [1]))})),
        ("infer", orjson.dumps({"inputs": tensors(a=tensor("a", [[1] * 10_000] * 100, [1]))})),
        ("infer", orjson.dumps({"inputs": tensors(a=tensor("a", [1], [1], long))})),
        ("infer", orjson.dumps({"inputs": tensors(a=tensor("a", [1], [long]))})),
        ("infer", orjson.dumps({"inputs": tensors(a=tensor("a", [1], parameters={"binary_data_size": long}))})),
        ("infer", orjson.dumps({"inputs": tensors(), "outputs": [{"name": long}]})),
        ("json", orjson.dumps({long: 1})),
        ("json", orjson.dumps({"inputs": {**{k: [v] for k, v in GOOD.items()}, long: [1]}})),
        ("json", orjson.dumps({"inputs": [{**GOOD, "a": {long: long}}]})),
        ("json", orjson.dumps({"inputs": [{**GOOD, "s": [[long]]}]})),
        ("csv", long.encode()[:100_000] + b"\n1\n"),
        ("csv", b"c1\n" + long.encode() + b"\n"),
    ]
    for kind, body in bodies:
        status, message = child(decode, kind, body, WIDE if body.startswith(b"c1") else INFO)
        assert status == 400
        assert len(message) < 500, message[:100]


OVERFLOWS = {
    "an integer beyond int64": ("i", 2**63),
    "an integer beyond uint64": ("i", 2**64),
    "an integer of 400 digits": ("i", 10**399),
    "a negative integer beyond int64": ("i", -(2**63) - 2**11),
    "a whole number in exponent form beyond int64": ("i", 1e19),
    "a number beyond float32": ("a", 1e39),
    "a number beyond float32 in a list": ("w", [1.0, -1e39, 0.0]),
    "an integer beyond float32": ("a", 10**39),
    "an integer in a list beyond int64": ("l", [1, 2**64 - 1]),
    "a number that may be missing": ("b", 1e39),
    "a date": ("i", "2026-01-01"),
    "a date as text in a float": ("a", "2026-01-01T00:00:00Z"),
}


@pytest.mark.parametrize("case", list(OVERFLOWS))
def test_numbers_that_overflow_are_refused_by_name(case):
    name, value = OVERFLOWS[case]

    status, message = decode("json", json.dumps({"dataframe_records": [{**GOOD, name: value}]}).encode())

    assert status == 400
    assert f"column {name!r}" in message


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"9" * 400, pytest.param(b"9" * 9000 + b".5", id="9000 digits")])
@pytest.mark.parametrize("name", ["a", "b", "i", "s"])
def test_numbers_beyond_float64_are_refused_by_name(number, name):
    others = b",".join(b'"%s":[%s]' % (k.encode(), orjson.dumps(v)) for k, v in GOOD.items() if k != name)

    status, message = decode("json", b'{"inputs":{%s,"%s":[%s]}}' % (others, name.encode(), number))

    assert status == 400
    assert f"column {name!r}" in message


def test_invalid_json_is_refused_even_beside_a_number_beyond_float64():
    for body in (
        b'{"inputs":[1e400,NaN]}',
        b'{"inputs":[1e400,',
        b"[1e400," + b"[" * 20_000,
        b'[1e400,"\xff"]',
        b'{"x":1e400,"y":Infinity}',
    ):
        assert decode("json", body)[0] == 400


TWICE = {
    "a column": '{"inputs":{"a":[1.5],"a":[9],"i":[1],"s":["x"],"w":[[1,2,3]]}}',
    "a column by another spelling": '{"inputs":{"a":[1.5],"\\u0061":[9],"i":[1],"s":["x:y"],"w":[[1,2,3]]}}',
    "a record's column": '{"inputs":[{"a":1.5,"i":1,"s":"10:00","w":[1,2,3],"s":"a:b:c"}]}',
    "the rows": '{"inputs":[{"a":1.5,"i":1,"s":"x","w":[1,2,3]}],"inputs":[]}',
    "beside a colon that is written as an escape": '{"inputs":[{"a":1.5,"i":1,"s":"\\u003a","w":[1,2,3],"a":2}]}',
    "in a big body": '{"inputs":[{"a":1.5,"i":1,"s":"' + "x" * 100_000 + '","w":[1,2,3],"a":2}]}',
    "deep inside": '{"inputs":[{"a":' + "[" * 400 + '{"x":1,"x":2}' + "]" * 400 + ',"i":1,"s":"x","w":[1,2,3]}]}',
}


@pytest.mark.parametrize("case", TWICE)
def test_a_duplicate_key_is_refused_as_in_data_files(case):
    assert decode("json", TWICE[case].encode()) == (
        400,
        "an object in the body has a duplicate key; send each key once.",
    )


@pytest.mark.parametrize("text", ["10:00", '"a":', "\\u003a", "\\", "é:ü", "x" * 100_000 + ":"])
def test_colons_in_texts_are_not_counted_as_keys(text):
    assert decode("json", json.dumps({"inputs": [{**GOOD, "s": text}]}).encode()) == 1
    assert decode("json", json.dumps({"inputs": [{**GOOD, "s": text}]}, ensure_ascii=False, indent=1).encode()) == 1


def test_nesting_of_any_depth_is_refused_by_its_column():
    for depth in (200, 300, 1000):
        status, message = decode(
            "json", ('{"inputs":[{"a":%s,"i":1,"s":"x","w":[1,2,3]}]}' % ("[" * depth + "]" * depth)).encode()
        )
        assert status == 400
        assert "column 'a'" in message


@pytest.mark.parametrize("datatype", [*DATATYPES, "BYTES"])
@pytest.mark.parametrize("byte", [b"\x00", b"\x7f", b"\x80", b"\xff", b"\xf0"])
def test_binary_tensors_of_any_type_and_value_fit_or_are_refused_by_name(datatype, byte):
    for name, shape in {"a": [1], "b": [1], "i": [1], "s": [1], "t": [1, 1], "w": [1, 3], "l": [1, 3]}.items():
        count = shape[-1]
        raw = byte * (count * (DATATYPES[datatype].itemsize if datatype in DATATYPES else 4))
        binary = tensor(name, shape, datatype=datatype, parameters={"binary_data_size": len(raw)})
        others = {t["name"]: t for t in tensors()}

        found = decode(*infer(list({**others, name: binary}.values()), raw))

        assert found == 1 or (found[0] == 400 and f"column {name!r}" in found[1]), (name, found)


def test_duplicate_values_are_refused():
    """In the binary part and in the JSON: a proxy that looks at the one would not see the other."""
    both = tensor("a", [1], [1.5], parameters={"binary_data_size": 4})

    assert decode(*infer(tensors(a=both), b"\0" * 4)) == (
        400,
        "column 'a' has both 'data' and binary_data_size; send one of them.",
    )


@pytest.mark.parametrize("key", ["classification", "shared_memory_region", "shared_memory_byte_size"])
def test_an_output_form_that_the_model_lacks_is_refused(key):
    body = json.dumps({"inputs": tensors(), "outputs": [{"name": "prediction", "parameters": {key: 1}}]}).encode()

    assert decode("infer", body) == (400, f"output 'prediction': the parameter '{key}' is not supported; remove it.")


def test_an_integer_in_exponent_form_is_an_integer():
    assert decode("json", b'{"dataframe_records":[{"a":1e2,"i":1e5,"s":"x","w":[1e0,2,3]}]}') == 1


async def _ask(app, *requests):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        return await asyncio.gather(*(client.request(*r[:2], **r[2]) for r in requests))


def application(limits=None, **more):
    limits = limits or Limits()
    state = ServerState("m", rollout(limits), limits, Metrics(), "1", **more)
    return create_app(state, token=None, access_log=None)


def test_half_a_surrogate_pair_is_no_json_even_beside_a_number_beyond_float64():
    """Python's own reader, which such a number brings in, takes it, and no answer could repeat it."""
    body = f'{{"parameters":{{"x":1e400}},"id":"\\ud800","inputs":{json.dumps(tensors())}}}'
    [answer] = asyncio.run(_ask(application(), ("POST", "/v2/models/m/infer", {"content": body})))

    assert answer.status_code == 400
    assert "is not JSON" in answer.json()["error"]


def test_the_access_log_contains_paths_as_they_were_sent():
    """A control character that a path decodes to would be a command to the terminal that shows the log."""
    entries = []
    state = ServerState("m", rollout(Limits()), Limits(), Metrics(), "1")
    app = create_app(state, token=None, access_log=entries.append)

    asyncio.run(_ask(app, ("GET", "/%1b%5b2J%c2%9b2J%0aforged", {})))

    assert [e["path"] for e in entries] == ["/%1b%5b2J%c2%9b2J%0aforged"]


@pytest.mark.parametrize("digits", ["9" * 19, pytest.param("9" * 5000, id="5000 digits"), "٣", "1_0", "-1", ""])
def test_an_invalid_length_header_is_refused(digits):
    headers = [(b"inference-header-content-length", digits.encode())]

    [answer] = asyncio.run(_ask(application(), ("POST", "/v2/models/m/infer", {"content": b"{}", "headers": headers})))

    assert answer.status_code == 400
    assert "inference-header-content-length" in answer.json()["error"]


@pytest.mark.parametrize("host", ["[", "[::1", "a b", "", "é", "evil:80:80"])
@pytest.mark.parametrize("path", ["/nothing", "/v2/models/m/infer", "/v2/"])
def test_an_invalid_host_header_causes_no_500_and_no_redirect(host, path):
    [answer] = asyncio.run(_ask(application(), ("GET", path, {"headers": [(b"host", host.encode())]})))

    assert answer.status_code in (404, 405)


def test_valid_requests_of_any_size_are_answered():
    rows = 5000
    big = {"dataframe_records": [{**GOOD, "s": "x" * 500}] * rows}
    [small, large] = asyncio.run(_ask(application(), *(("POST", "/invocations", {"json": j}) for j in ({"inputs": [GOOD]}, big))))

    assert small.status_code == large.status_code == 200
    assert small.json()["predictions"][0] == large.json()["predictions"][-1]
    assert len(large.json()["predictions"]) == rows


def test_small_bodies_are_decoded_in_the_event_loop_and_big_ones_in_a_thread():
    async def names():
        bodies = Bodies(1 << 20)
        return [(await bodies.work(size, threading.current_thread)).name for size in (1000, 1 << 20)]

    small, big = asyncio.run(names())

    assert small == threading.current_thread().name
    assert big.startswith("decode")


@pytest.mark.parametrize("image", [(), (8, 8, 3)])
def test_images_of_any_size_are_decoded_in_a_thread(image, monkeypatch):
    """A few KiB of PNG hold millions of pixels."""
    seen = []
    state = ServerState("m", rollout(Limits()), Limits(), Metrics(), "1")
    champion = state.rollout.champion
    features = [*INFO.features, RawFeature("photo", "string", 1, is_bytes=True, image=image)]
    state.rollout.set_champion(replace(champion, info=replace(INFO, features=features)))
    monkeypatch.setattr(answering, "columns_of", lambda *_: seen.append(threading.current_thread().name) or ({}, 1))
    request = ("POST", "/invocations", {"json": {"inputs": [{**GOOD, "photo": "eA=="}]}})
    asyncio.run(_ask(create_app(state, token=None, access_log=None), request))
    assert [name.startswith("decode") for name in seen] == [bool(image)]


def test_the_total_size_of_all_bodies_is_limited():
    bodies = Bodies(32 << 20)

    async def read(times, size, held):
        async def stream():
            for _ in range(times):
                yield b"x" * size

        async with bodies.read(SimpleNamespace(headers={}, stream=stream)) as body:
            held.set()
            await asyncio.sleep(0.05)
            return len(body.data)

    async def main():
        held = [asyncio.Event() for _ in range(5)]
        first = [asyncio.create_task(read(4, 7 << 20, e)) for e in held[:4]]
        await asyncio.gather(*(e.wait() for e in held[:4]))
        with pytest.raises(QueueFullError):
            await read(4, 7 << 20, held[4])
        assert await asyncio.gather(*first) == [28 << 20] * 4
        assert await read(4, 7 << 20, held[4]) == 28 << 20

    asyncio.run(main())


def test_omitted_values_count_towards_the_total_size():
    bodies, one, other = Bodies(1), Body(), Body()

    bodies.hold(one, 40 << 20)

    with pytest.raises(QueueFullError):
        bodies.hold(other, 40 << 20)


def test_a_body_that_announces_too_much_is_refused_unread():
    async def endless():
        raise AssertionError("the body was read")
        yield b""

    request = ("POST", "/invocations", {"content": endless(), "headers": {"content-length": "1000000000000000000000"}})
    [answer] = asyncio.run(_ask(application(Limits(body=1000)), request))

    assert answer.status_code == 413


names = st.sampled_from(["a", "b", "i", "s", "t", "w", "l", "label", "zz", ""])
sizes = st.integers(0, 4) | st.sampled_from([10**4, *HUGE, -1]) | st.none()
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**400])
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=2), v, max_size=2), max_leaves=6
)
cells = st.lists(values, max_size=4) | st.builds(lambda v, n: [v] * n, values, st.sampled_from([10, 10_001]))
datatypes = st.sampled_from(["FP32", "FP64", "FP16", "INT64", "UINT8", "BOOL", "BYTES", "FP99", ""]) | values
tensor_documents = st.fixed_dictionaries(
    {"name": names, "shape": st.lists(sizes, max_size=3), "datatype": datatypes},
    optional={"data": cells, "parameters": st.fixed_dictionaries({"binary_data_size": sizes}) | values},
)
columns = st.dictionaries(names, cells | values, max_size=7)
records = st.lists(st.dictionaries(names, values, max_size=7) | values, max_size=5)
many = st.builds(lambda r, n: r * n, records, st.sampled_from([1, 3000]))
split = st.fixed_dictionaries({"columns": st.lists(names, max_size=7), "data": st.lists(cells, max_size=4)})
documents = {
    "infer": st.fixed_dictionaries(
        {"inputs": st.lists(tensor_documents, max_size=6)}, optional={"id": values, "outputs": values}
    ),
    "json": st.one_of(
        *(st.fixed_dictionaries({k: many | values}) for k in ("dataframe_records", "instances")),
        st.fixed_dictionaries({"dataframe_split": split | values}),
        st.fixed_dictionaries({"inputs": columns | many | values}),
    ),
}
lines = st.lists(
    st.lists(st.text(max_size=4) | st.sampled_from(["1", "1e999", "9" * 400, '"', "\r", "nan"]), max_size=7), max_size=5
)


def _fuzz(kind, examples):
    """Every body is decoded or refused, in little time."""
    bodies = {
        "csv": st.binary(max_size=60) | lines.map(lambda rows: "\n".join(",".join(r) for r in rows).encode("utf-8", "replace")),
        "bytes": st.binary(max_size=200),
    }
    strategy = bodies[kind] if kind in bodies else documents[kind].map(lambda d: json.dumps(d).encode())

    @settings(max_examples=examples, deadline=2000, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy, st.binary(max_size=40))
    def decoded_or_refused(body, tail):
        for length in (None, len(body)) if kind in ("infer", "bytes") else (None,):
            found = decode("infer" if kind == "bytes" else kind, body + (tail if length else b""), INFO, length)
            assert isinstance(found, int) or (found[0] in (400, 413, 415) and len(found[1]) < 2000), found

    decoded_or_refused()


@pytest.mark.parametrize("kind", ["infer", "json", "csv", "bytes"])
def test_any_body_is_decoded_in_bounded_memory_or_refused(child, kind):
    child(_fuzz, kind, 60)


@pytest.fixture(scope="module")
def roomy_child():
    with confined(1024) as call:
        yield call


@pytest.mark.parametrize("unit", ['{"a":1},', "[[]],", '{"":[]},'])
def test_the_largest_body_stays_within_its_share_of_memory(roomy_child, unit):
    """16 MiB, the default limit, of what takes most room as Python's objects."""
    body = f'{{"instances":[{unit * (16_000_000 // len(unit))}{unit[:-1]}]}}'.encode()

    status, _ = roomy_child(decode, "json", body)

    assert status in (400, 413)


STRUCTURES = {"objects": '{"a":1},', "lists": "[[]],", "objects in objects": '{"":[]},', "values": "1,", "texts": '"",'}


@pytest.mark.parametrize("case", STRUCTURES)
def test_a_body_larger_than_the_models_rows_is_refused_unread(case):
    """Reading 16 MiB of these holds Python's lock, and with it every other request, for most of a second."""
    unit, info = STRUCTURES[case], replace(INFO, features=[f for f in INFO.features if not f.is_list])
    body = f'{{"instances":[{unit * ((2 << 20) // len(unit))}'.encode()  # and no JSON, which it would else be refused for

    status, message = decode("json", body, info, rows=1000)

    assert status == 413
    assert re.fullmatch(
        r"the body holds \d+ (objects|lists|values), more than 1000 rows of this model need. Send several requests.", message
    )


@pytest.mark.parametrize("text", ["x", '"{[,', "\\", '\\"', ',\\\\"\\', "{{{{[[[[,,,,"])
@pytest.mark.parametrize("form", ["tensors", "records", "split", "inputs"])
def test_the_maximum_number_of_rows_fits_into_a_big_body_with_any_texts(form, text):
    rows = 2000
    columns = {k: [v] * rows for k, v in {**GOOD, "s": text * 8, "b": None, "t": text, "l": [1, 2]}.items()}
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    kinds = {"s": "BYTES", "t": "BYTES", "l": "INT64"}
    shapes = {"w": [rows, 3], "l": [rows, 2]}
    document = {
        "tensors": {"inputs": [tensor(k, shapes.get(k, [rows]), v, kinds.get(k, "FP32")) for k, v in columns.items()]},
        "records": {"dataframe_records": records},
        "split": {"dataframe_split": {"columns": list(columns), "data": [list(r.values()) for r in records]}},
        "inputs": {"inputs": columns},
    }[form]
    body = json.dumps(document, indent=1).encode()

    assert len(body) > 64 << 10
    assert decode("infer" if form == "tensors" else "json", body, rows=rows) == rows


def test_limits_scale_with_the_body():
    assert Bounds.of_body(10, 1 << 20).cells - Bounds.of_body(10, 0).cells == 2 << 20
    assert np.isfinite(Bounds().cells)
