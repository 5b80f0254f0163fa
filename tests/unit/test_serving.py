"""The parts of serving that need no model: input checks on any values, batching, the canary's stop rule."""

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import replace

import httpx
import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from switchyard.components.bundle.model import BundleInfo, Ragged, RawFeature, concatenate
from switchyard.components.errors import UserError
from switchyard.components.serving import grpc_codec, invocations, open_inference
from switchyard.components.serving.answering import ServerState
from switchyard.components.serving.app import create_app
from switchyard.components.serving.batcher import Batcher, QueueFullError
from switchyard.components.serving.bounds import Bounds
from switchyard.components.serving.grpc_messages import MESSAGES
from switchyard.components.serving.inputs import InputError, columns_of
from switchyard.components.serving.metadata import DATATYPES
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.rollout import Rollout, StopRule
from switchyard.components.serving.served_model import Limits, ServedModel
from switchyard.components.serving.server import _check_redacted
from switchyard.components.user_code.tokenizer import RefusedRowsError
from switchyard.components.values.raw_features import between

FEATURES = [
    RawFeature("a", "float32", 1),
    RawFeature("b", "float32", None),
    RawFeature("i", "int64", 1),
    RawFeature("j", "int64", None),
    RawFeature("s", "string", 1),
    RawFeature("t", "string", None),
    RawFeature("w", "float32", 3),
    RawFeature("l", "int64", None, is_list=True),
]
INFO = BundleInfo("pytorch", "x:Y", "binary", "label", ["no", "yes"], FEATURES)
SCALARS = replace(INFO, features=FEATURES[:6])

floats = st.floats(-(2.0**127), 2.0**127, width=32)
ints = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ROW = st.fixed_dictionaries({
    "a": floats | st.integers(-(2**53), 2**53),
    "b": floats | st.none(),
    "i": ints,
    "j": ints | st.none(),
    "s": texts,
    "t": texts | st.none(),
    "w": st.lists(floats, min_size=3, max_size=3),
    "l": st.lists(ints, max_size=3) | st.none(),
})  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=8,
)


def asked(sent):
    """Returns columns, rows and None, or the refusal."""
    try:
        return *columns_of(INFO, sent), None
    except InputError as error:
        return None, 0, error


def plain(column):
    """Columns as comparable lists: one list a row."""
    if isinstance(column, Ragged):
        return [part.tolist() for part in np.split(column.values, np.cumsum(column.lengths)[:-1])]
    return column.tolist()


@given(st.lists(ROW, min_size=1, max_size=5))
def test_valid_values_arrive_unchanged(rows):
    given_columns = {f.name: [row[f.name] for row in rows] for f in FEATURES}
    columns, count = columns_of(INFO, given_columns)
    assert count == len(rows)
    for feature in FEATURES:
        sent = given_columns[feature.name]
        if feature.width:
            sent = [v if isinstance(v, list) else [v] for v in sent]
        else:
            sent = [[] if v is None else v if isinstance(v, list) else [v] for v in sent]
        if feature.dtype == "string":
            sent = [[v.encode() for v in row] for row in sent]
        elif feature.dtype == "float32":
            sent = [[float(np.float32(v)) for v in row] for row in sent]
        assert plain(columns[feature.name]) == sent, feature
        values = columns[feature.name].values if isinstance(columns[feature.name], Ragged) else columns[feature.name]
        assert values.dtype == (object if feature.dtype == "string" else feature.dtype)


@given(st.lists(ROW, min_size=2, max_size=5), st.data())
def test_a_batch_has_the_values_of_its_requests(rows, data):
    """What a batch holds of a request does not depend on its neighbours."""
    given_columns = {f.name: [row[f.name] for row in rows] for f in FEATURES}
    whole, _ = columns_of(INFO, given_columns)
    cut = data.draw(st.integers(1, len(rows) - 1))
    parts = [columns_of(INFO, {k: v[s] for k, v in given_columns.items()})[0] for s in (slice(0, cut), slice(cut, None))]
    joined = concatenate(parts)
    for feature in FEATURES:
        assert plain(joined[feature.name]) == plain(whole[feature.name]), feature


@given(st.dictionaries(st.sampled_from([f.name for f in FEATURES] + ["label", "zzz"]), ANYTHING, max_size=9))
@settings(max_examples=300)
def test_any_request_is_accepted_or_refused(sent):
    columns, rows, refusal = asked(sent)
    if refusal:
        assert refusal.status in (400, 413)
        assert str(refusal)
        return
    for feature in FEATURES:
        column = columns[feature.name]
        assert len(column.lengths if isinstance(column, Ragged) else column) == rows


@given(st.sampled_from(FEATURES), ANYTHING)
@settings(max_examples=300)
def test_a_wrong_value_names_its_column(feature, value):
    good = {f.name: [{"float32": 1.5, "int64": 1, "string": "x"}[f.dtype]] for f in FEATURES}
    good["w"] = [[1.0, 2.0, 3.0]]
    columns_of(INFO, good)
    refusal = asked({**good, feature.name: [value]})[2]
    assert refusal is None or f"{feature.name!r}" in str(refusal)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("i", [1.5], "whole numbers (row 0), received 1.5"),
        ("i", [1e19], "numbers that fit int64"),
        ("a", [float("inf")], "numbers that fit float32"),
        ("a", [float("nan")], "must not be missing (row 0)"),
        ("a", ["1.5 m"], "must hold numbers (row 0), received str '1.5 m'"),
        ("s", [1], "must hold texts (row 0), received int 1"),
        ("s", [None], "must not be missing"),
        ("w", [[1, 2]], "a list of 3 values per row, received the shape [1, 2]"),
        ("l", [[1, None]], "without gaps"),
        ("a", {"x": 1}, "must be a list of values"),
    ],
)
def test_a_refusal_names_the_row_and_the_value_that_does_not_fit(name, values, words):
    good = {"a": [1.5], "i": [1], "s": ["x"], "w": [[1, 2, 3]]}
    with pytest.raises(InputError) as caught:
        columns_of(INFO, {**good, name: values})
    assert words in str(caught.value)
    assert repr(name) in str(caught.value)


def test_the_frame_and_the_request_agree():
    """The offline path (a DataFrame) and the server's make the same columns."""
    from switchyard.components.values.conversion import fit_frame

    frame = pd.DataFrame({
        "a": [1.5, 2.5], "b": [np.nan, 3.5], "i": [1, 2], "j": [4.0, np.nan], "s": ["x", "y"], "t": [None, "z"],
        "w": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "l": [[1, 2], None],
    })  # fmt: skip
    sent = {
        "a": [1.5, 2.5], "b": [None, 3.5], "i": [1, 2], "j": [4, None], "s": ["x", "y"], "t": [None, "z"],
        "w": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "l": [[1, 2], None],
    }  # fmt: skip
    columns, _ = columns_of(INFO, sent)
    for feature in FEATURES:
        assert plain(fit_frame(frame, FEATURES)[feature.name]) == plain(columns[feature.name]), feature


@given(st.binary(max_size=60), st.none() | st.integers(0, 80))
def test_any_bytes_are_decoded_or_refused(body, length):
    for decode in (
        lambda: open_inference.decode(body, length, INFO),
        lambda: invocations.decode(body, "application/json", INFO),
        lambda: invocations.decode(body, "text/csv", INFO),
    ):
        with suppress(InputError):
            decode()


def rows_of(count, value=0.0):
    return {"a": np.full((count, 1), value, dtype=np.float32)}


def batcher(scores, **options):
    settings = {"max_rows": 8, "max_waiting": 100, "observe": lambda rows: None, **options}
    return Batcher(scores, **settings)


def test_batches_form_while_the_model_works():
    seen = []

    def slow(columns):
        seen.append(len(columns["a"]))
        time.sleep(0.05)
        return columns["a"] * 2

    async def main():
        under_test = batcher(slow)
        asked = [under_test.submit(rows_of(2, i), 2) for i in range(9)]
        answers = await asyncio.gather(*asked)
        for i, answer in enumerate(answers):
            np.testing.assert_array_equal(answer, np.full((2, 1), 2.0 * i))
        # 8 rows at most; one with more is a batch of its own.
        assert len(await under_test.submit(rows_of(20), 20)) == 20
        await under_test.close()

    asyncio.run(main())
    assert seen[-1] == 20
    assert max(seen[:-1]) <= 8
    assert len(seen) <= 5


def test_only_the_faulty_request_of_a_batch_fails():
    def picky(columns):
        if (columns["a"] == 13).any():
            raise ValueError("13")
        return columns["a"]

    async def main():
        under_test = batcher(picky)
        answers = await asyncio.gather(*(under_test.submit(rows_of(1, i), 1) for i in (1, 13, 2, 3)), return_exceptions=True)
        assert [type(a).__name__ for a in answers] == ["ndarray", "ValueError", "ndarray", "ndarray"]
        await under_test.close()

    asyncio.run(main())


def test_a_full_queue_refuses_and_cancelled_requests_are_not_computed():
    release, seen = threading.Event(), []

    def held(columns):
        seen.append(columns["a"][:, 0].tolist())
        release.wait(10)
        return columns["a"]

    async def main():
        under_test = batcher(held, max_waiting=2, max_rows=1)
        first = asyncio.create_task(under_test.submit(rows_of(1, 0), 1))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(under_test.submit(rows_of(1, i), 1)) for i in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await under_test.submit(rows_of(1, 3), 1)
        others[0].cancel()
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(first, others[1])
        await under_test.close()

    asyncio.run(main())
    assert seen == [[0.0], [2.0]]


def model(version):
    return ServedModel(version, INFO, batcher(lambda c: c["a"]), None)


def test_a_failing_canary_is_stopped():
    rollout = Rollout(1.0, StopRule(requests=10, failures=3, failure_share=0.1, latency_ratio=2))
    champion, canary = model("1"), model("2")
    rollout.set_champion(champion)
    rollout.set_canary(canary)
    assert rollout.choose() is canary
    assert [rollout.answered(canary, 0.01, failed=True) for _ in range(2)] == [None, None]
    assert "failed 3 of 3" in rollout.answered(canary, 0.01, failed=True)
    assert rollout.choose() is champion
    rollout.set_canary(canary)
    for _ in range(20):
        assert rollout.answered(champion, 0.01, failed=False) is None
    whys = [rollout.answered(canary, 0.03, failed=False) for _ in range(10)]
    assert "median latency is 30.0 ms where the champion's is 10.0 ms" in whys[-1]
    assert rollout.canary is None


def answering(scores):
    return ServedModel(scores.__name__, INFO_OF_ONE, batcher(scores), lambda: None)


def champion(columns):
    return unless_negative(columns["a"])


def picky(columns):
    if (columns["a"] > 1).any():
        raise RefusedRowsError("tokenizer: no", [0])
    return unless_negative(columns["a"])


def infinite(columns):
    return np.where(columns["a"] > 1, np.inf, unless_negative(columns["a"]))


def unless_negative(values):
    if (values < 0).any():
        raise RefusedRowsError("tokenizer: no", [0])
    return np.where(values == 0, np.nan, values)


INFO_OF_ONE = BundleInfo("pytorch", "x:Y", "regression", "label", [], [RawFeature("a", "float32", 1)])


@pytest.mark.parametrize("canary", [picky, infinite], ids=lambda f: f.__name__)
def test_rows_that_no_model_has_a_score_for_are_not_the_canarys_failures(canary):
    rollout, stopped = Rollout(1.0, StopRule(failures=2)), []

    async def asked(value, count):
        app = httpx.ASGITransport(create_app(state, token=None, access_log=None))
        body = {"inputs": [{"a": value}]}
        async with httpx.AsyncClient(transport=app, base_url="http://localhost") as client:
            return [(await client.post("/invocations", json=body)).status_code for _ in range(count)]

    def requests(value, count):
        return asyncio.run(asked(value, count))

    state = ServerState("m", rollout, Limits(), Metrics(), "1", canary_stopped=lambda model, why: stopped.append(why))
    rollout.set_champion(answering(champion))
    rollout.set_canary(answering(canary))
    assert requests(-1, 3) == requests(0, 3) == [400] * 3, "the client's mistake"
    assert (rollout.canary is None, stopped) == (False, [])
    assert requests(2, 2) == [200] * 2, "the champion answers"
    assert (rollout.canary, stopped) == (None, ["it failed 2 of 8 requests"])


def test_empty_lists_are_missing_values_in_a_binary_tensor_too():
    given_columns = {"a": [1.5] * 2, "i": [1] * 2, "s": ["x"] * 2, "w": [[1, 2, 3]] * 2, "l": np.zeros((2, 0), dtype=np.int64)}
    columns, _ = columns_of(INFO, given_columns)
    assert plain(columns["l"]) == [[], []]


def test_a_column_to_redact_that_the_model_lacks_is_refused():
    """A misspelled name would be logged."""
    _check_redacted(("a", "t"), INFO)
    with pytest.raises(UserError, match=r"^--redact: 'name' is no column of the model"):
        _check_redacted(("a", "name"), INFO)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_columns_are_cut_between_rows(cut):
    """Columns with missing values hold as many values as there are."""
    sent = {
        "a": [1.5, 2, 3],
        "i": [1, 2, 3],
        "s": ["x", "y", "z"],
        "w": [[1, 2, 3]] * 3,
        "b": [None, 2, 3],
        "l": [[1, 2], [], [3]],
    }
    columns, rows = columns_of(INFO, sent)
    joined = concatenate([between(columns, 0, cut), between(columns, cut, rows)])
    assert {n: plain(v) for n, v in joined.items()} == {n: plain(v) for n, v in columns.items()}


@given(st.fixed_dictionaries({f.name: st.lists(floats | st.none() | ANYTHING, max_size=2) for f in SCALARS.features}))
def test_tensors_that_are_read_at_once_are_read_as_in_the_detailed_checks(sent):
    tensors = [{"name": n, "shape": [len(v)], "datatype": "FP32", "data": v} for n, v in sent.items()]
    # Parameters, even none, need the detailed checks.
    detailed = [{**tensor, "parameters": {}} for tensor in tensors]

    def read(inputs):
        try:
            return open_inference.decode(orjson.dumps({"inputs": inputs}), None, SCALARS).given
        except InputError as error:
            return str(error)
        except orjson.JSONEncodeError:  # an integer of more than 64 bits
            reject()

    assert read(tensors) == read(detailed)


@pytest.mark.parametrize("names", ["abijst", "abis", "aabis", "bi", "abisz"])
@pytest.mark.parametrize(("datatype", "shape"), [("FP32", [2]), ("INT64", [2]), ("FP32", [2, 1]), ("FP32", [3]), ("BOOL", [2])])
def test_raw_tensors_that_are_read_at_once_are_read_as_in_the_detailed_checks(names, datatype, shape):
    def read(*, parameters):
        request = MESSAGES["ModelInferRequest"](id="1")
        for name in names:
            tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
            if parameters:  # they need the detailed checks
                tensor.parameters["any"].bool_param = True
            request.raw_input_contents.append(np.array([1, 0], DATATYPES[datatype]).tobytes())
        try:
            found = grpc_codec.decode(request, SCALARS, Bounds()).given
        except InputError as error:
            return str(error)
        return {name: (values.dtype, values.ravel().tolist()) for name, values in found.items()}

    assert read(parameters=False) == read(parameters=True)
