"""The gRPC service answers as REST does, to the bit, and its limits hold; clients are grpcio with the protocol's messages."""

import asyncio
import struct

import grpc
import grpc.aio
import httpx
import numpy as np
import pytest

from switchyard.components.errors import UserError
from switchyard.components.serving import grpc_codec
from switchyard.components.serving.answering import ServerState
from switchyard.components.serving.app import create_app
from switchyard.components.serving.bounds import Bounds, InputError
from switchyard.components.serving.grpc_codec import parse
from switchyard.components.serving.grpc_messages import MESSAGES, SERVICE
from switchyard.components.serving.grpc_server import GrpcServer
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.rollout import Rollout, StopRule
from switchyard.components.serving.served_model import Limits
from tests.security.hostile import INFO, rollout

pytestmark = pytest.mark.core
# Column -> datatype, shape, values of two rows.
ROWS = {
    "a": ("FP32", [2], [1.5, -2.25]),
    "i": ("INT64", [2], [1, -7]),
    "s": ("BYTES", [2], [b"x", "ü".encode()]),
    "w": ("FP64", [2, 3], [0.1, 0.2, 0.3, -0.4, -0.5, -0.6]),
    "l": ("INT8", [2, 1], [1, 2]),
}
CONTENTS = {
    "FP16": "fp32_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "INT8": "int_contents",
}


def packed(datatype, values):
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(v)) + v for v in values)
    return np.array(values, {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "INT8": "i1"}[datatype]).tobytes()


def request(rows=ROWS, *, raw=True, **more):
    found = MESSAGES["ModelInferRequest"](**{"model_name": "m", **more})
    for name, (datatype, shape, values) in rows.items():
        tensor = found.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw:
            found.raw_input_contents.append(packed(datatype, values))
        else:
            getattr(tensor.contents, CONTENTS.get(datatype, "bytes_contents")).extend(values)
    return found


def state(limits=None, champions=None):
    limits = limits or Limits()
    return ServerState("m", champions or rollout(limits), limits, Metrics(), "1")


def calls(sent, *, served=None, token=None, log=None, metadata=(), method="ModelInfer", **more):
    """Returns for each message sent to one server the answer, or (code, details) of the refusal."""

    async def work():
        server = GrpcServer(
            served or state(),
            ("127.0.0.1", 0),
            token=token,
            access_log=log.append if log is not None else None,
            tls=None,
            connections=10,
            idle_seconds=5,
        )
        await server.start()
        found = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call = channel.unary_unary(f"/{SERVICE}/{method}")
            for each in sent:
                data = each if isinstance(each, bytes) else each.SerializeToString()
                try:
                    answer = await call(data, metadata=metadata, timeout=30, **more)
                    found.append(MESSAGES[f"{method}{'Response'}"].FromString(answer))
                except grpc.aio.AioRpcError as error:
                    found.append((error.code().name, error.details()))
        await server.stop()
        return found

    return asyncio.run(work())


def probabilities(response):
    [index] = [i for i, o in enumerate(response.outputs) if o.name == "probability"]
    return np.frombuffer(response.raw_output_contents[index], "<f8").tolist()


def test_grpc_and_rest_answer_the_same():
    served, log = state(), []

    async def rest():
        inputs = [
            {"name": n, "datatype": d, "shape": s, "data": [v.decode() for v in values] if d == "BYTES" else values}
            for n, (d, s, values) in ROWS.items()
        ]
        app = httpx.ASGITransport(create_app(served, token=None, access_log=None))
        async with httpx.AsyncClient(transport=app, base_url="http://localhost") as client:
            return (await client.post("/v2/models/m/infer", json={"inputs": inputs})).json()

    answer = {o["name"]: o["data"] for o in asyncio.run(rest())["outputs"]}
    chosen = request(id="mine")
    chosen.outputs.add(name="probability")
    raw, contents, one = calls([request(), request(raw=False), chosen], served=served, log=log)

    assert probabilities(raw) == probabilities(contents) == probabilities(one) == answer["probability"]
    assert [o.name for o in raw.outputs] == list(answer)
    assert [o.name for o in one.outputs] == ["probability"]
    assert (one.id, one.model_name, one.model_version) == ("mine", "m", "1")
    assert packed("BYTES", [v.encode() for v in answer["prediction"]]) == raw.raw_output_contents[0]
    entry = log[-1]
    assert {**entry, "time": 0, "ms": 0, "id": ""} == {
        "time": 0,
        "client": "127.0.0.1",
        "method": "gRPC",
        "path": f"/{SERVICE}/ModelInfer",
        "status": "OK",
        "ms": 0,
        "rows": 2,
        "version": "1",
        "id": "",
    }


def without(name):
    return {n: r for n, r in ROWS.items() if n != name}


@pytest.mark.parametrize(
    ("sent", "code", "says"),
    [
        (request(model_name="other"), "NOT_FOUND", "unknown model 'other'. Model: 'm'."),
        (request(model_version="9"), "NOT_FOUND", "model 'm' has no version '9' here. Versions: 1."),
        (request(without("a")), "INVALID_ARGUMENT", "column 'a' is missing"),
        (
            request({**ROWS, "a": ("FP32", [2], [1.0])}),
            "INVALID_ARGUMENT",
            "column 'a': 2 values of FP32 take 8 bytes, received 4",
        ),
        (request({**ROWS, "a": ("FP32", [10**9], [1.0])}), "RESOURCE_EXHAUSTED", "1000000000 rows in a request"),
        (request({**ROWS, "l": ("INT8", [2, 1], [1, 200])}, raw=False), "INVALID_ARGUMENT", "column 'l': a value is beyond INT8"),
        (
            request({**ROWS, "a": ("FP16", [2], [1.0, 2.0])}, raw=False),
            "INVALID_ARGUMENT",
            "'a': send values of 'FP16' in raw_inp",
        ),
        (b"\xff\xff", "INVALID_ARGUMENT", "the message is no ModelInferRequest"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_by_name(sent, code, says):
    [(found, message)] = calls([sent])
    assert found == code
    assert says in message


def test_both_contents_and_raw_contents_are_refused():
    both = request()
    both.inputs[0].contents.fp32_contents.extend([1, 2])
    fewer = request()
    del fewer.raw_input_contents[-1]
    found = calls([both, fewer])
    assert [code for code, _ in found] == ["INVALID_ARGUMENT"] * 2
    assert "has both contents and raw_input_contents" in found[0][1]


def test_a_token_is_required_for_all_but_health():
    assert calls([request()], token="secret")[0] == ("UNAUTHENTICATED", "send the metadata authorization: Bearer TOKEN")
    assert calls([request()], token="secret", metadata=[("authorization", "Bearer wrong")])[0][0] == "UNAUTHENTICATED"
    [answer] = calls([request()], token="secret", metadata=[("authorization", "Bearer secret")])
    assert answer.outputs
    for method, field in (("ServerLive", "live"), ("ServerReady", "ready")):
        [found] = calls([b""], token="secret", method=method)
        assert getattr(found, field)
    asked = MESSAGES["ModelMetadataRequest"](name="m")
    assert calls([asked], token="secret", method="ModelMetadata")[0][0] == "UNAUTHENTICATED"


def test_metadata_and_health():
    [found] = calls([MESSAGES["ModelMetadataRequest"](name="m")], method="ModelMetadata")
    assert [(i.name, i.datatype, list(i.shape)) for i in found.inputs][:3] == [
        ("a", "FP32", [-1]),
        ("b", "FP32", [-1]),
        ("i", "INT64", [-1]),
    ]
    assert found.inputs[1].parameters["optional"].bool_param
    [ready] = calls([MESSAGES["ModelReadyRequest"](name="m", version="1")], method="ModelReady")
    assert ready.ready
    loading = state(champions=Rollout(0.0, StopRule()))
    [ready] = calls([b""], served=loading, method="ServerReady")
    assert not ready.ready
    assert calls([request()], served=loading) == [("UNAVAILABLE", "the model is being loaded; retry later.")]
    [server] = calls([b""], method="ServerMetadata")
    assert server.name == "switchyard"


def test_large_and_compressed_messages_are_refused():
    """gRPC limits a message's compressed size: a few bytes would become gigabytes."""
    small = Limits(body=1000)
    assert calls([request(id="x" * 2000)], served=state(small))[0][0] == "RESOURCE_EXHAUSTED"
    assert calls([request(id="x" * 900_000)], compression=grpc.Compression.Gzip)[0][0] == "UNIMPLEMENTED"


def test_memory_for_bodies_is_shared_with_rest():
    served = state()
    with served.bodies.keep(b"x" * (64 << 20)):
        assert calls([request()], served=served) == [("UNAVAILABLE", "too many waiting requests; retry later.")]
    assert calls([request()], served=served)[0].outputs


@pytest.mark.parametrize(
    "piece",
    [
        MESSAGES["ModelInferRequest"](inputs=[{}]),
        MESSAGES["ModelInferRequest"](outputs=[{}]),
        MESSAGES["ModelInferRequest"](raw_input_contents=[b""]),
    ],
    ids=["inputs", "outputs", "raw"],
)
def test_a_message_of_many_empty_fields_is_refused_before_it_is_parsed(piece, monkeypatch):
    """Each becomes an object of fifty bytes and more."""
    monkeypatch.setattr(grpc_codec, "message", None)
    flat = INFO.__class__("pytorch", "x:Y", "binary", "label", ["no", "yes"], INFO.features[:4])
    data = piece.SerializeToString() * (4 << 20)
    with pytest.raises(InputError, match="more fields than 1000 rows of this model need") as refused:
        parse(data, flat, Bounds(1000))
    assert refused.value.status == 413


def test_nested_pieces_are_counted():
    flat = INFO.__class__("pytorch", "x:Y", "binary", "label", ["no", "yes"], INFO.features[:4])
    deep = MESSAGES["ModelInferRequest"](inputs=[{"name": "s", "contents": {"bytes_contents": [b""] * 100_000}}])
    with pytest.raises(InputError, match="more fields"):
        parse(deep.SerializeToString(), flat, Bounds(1000))
    assert parse(deep.SerializeToString(), flat, Bounds(100_000)).inputs[0].name == "s"


def test_a_port_in_use_is_refused():
    async def twice():
        more = {"token": None, "access_log": None, "tls": None, "connections": 1, "idle_seconds": 5}
        first = GrpcServer(state(), ("127.0.0.1", 0), **more)
        await first.start()
        try:
            GrpcServer(state(), ("127.0.0.1", first.port), **more)
        finally:
            await first.stop()

    with pytest.raises(UserError, match=r"--grpc-port: cannot listen on 127.0.0.1 port"):
        asyncio.run(twice())
