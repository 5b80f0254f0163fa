"""Measures `switchyard serve` at 32 clients as a share of the bare model's batched predict, and gRPC against REST.

python benchmarks/served.py [--seconds 5] [--rows 1 64] [--clients 32] [--trainer pytorch tensorflow] [--json]

The bare model predicts batches of as many rows as the clients have in flight, in a loop without HTTP; a request is its share of
the batch. REST gets JSON over sockets, gRPC the raw tensors of the same rows by grpcio; the clients share one process, and the
machine with the server. Each sends its next request after the answer. The command checks that both protocols' probabilities are
the bare model's, and that no request fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from runs import ROOT, machine, row, run
from serving import EXAMPLE, free_port, server, train

SHARE, FASTER = 0.7, 1.3
_LABEL = "diagnosis"
_MOST_DIFFERENCE = 1e-5
_BARE = """
import json, sys, time
import pandas as pd
from switchyard.components.import_order import import_torch_first
import_torch_first()
from switchyard.components.bundle.model import load_bundle
bundle = load_bundle(sys.argv[1])
rows = pd.read_csv(sys.argv[2])
rows = pd.concat([rows] * (int(sys.argv[3]) // len(rows) + 1), ignore_index=True).head(int(sys.argv[3]))
rows = rows[[f.name for f in bundle.info.features]]
for _ in range(20):
    bundle.predict(rows)
began, done = time.perf_counter(), 0
while time.perf_counter() - began < float(sys.argv[4]):
    bundle.predict(rows)
    done += 1
seconds = time.perf_counter() - began
print(json.dumps({"batches_per_s": done / seconds, "scores": bundle.predict(rows)["probability"].tolist()}))
"""
# Sends a request and returns the probabilities of its rows.
Send = Callable[[], Awaitable[bytes]]


def main() -> None:
    """Measures both trainers and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of load for each number")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--trainer", choices=("pytorch", "tensorflow"), nargs="+", default=["pytorch", "tensorflow"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        bundles = train(Path(work))
        for trainer in options.trainer:
            measured += _measure(trainer, bundles[trainer], options)
    if options.json:
        print(json.dumps({"machine": machine(), "measured": measured, "table": [r for each in measured for r in _rows(each)]}))
        return
    print(f"{options.clients} clients, {machine()}; requests a second")
    print(f"{'':12}{'rows':>6}{'bare':>10}{'REST':>10}{'share':>8}{'gRPC':>10}{'share':>8}{'gRPC / REST':>13}")
    for each in measured:
        bare, rest, grpc = each["bare"], each["rest"], each["grpc"]
        print(
            f"{each['trainer']:12}{each['rows']:6}{bare:10.0f}{rest:10.0f}{rest / bare:8.2f}{grpc:10.0f}{grpc / bare:8.2f}"
            f"{grpc / rest:13.2f}"
        )


def _rows(each: dict[str, Any]) -> list[dict[str, Any]]:
    what = f"served, {each['trainer']}, {each['clients']} clients, {each['rows']} rows a request"
    best = max(each["rest"], each["grpc"])
    return [
        row(f"{what}, share of batched predict", best / each["bare"], SHARE, at_least=True),
        row(f"{what}, gRPC, REST = 1", each["grpc"] / each["rest"], FASTER, at_least=True),
    ]


def _measure(trainer: str, bundle: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    import pandas as pd

    frame = pd.read_csv(EXAMPLE / "data.csv").drop(columns=_LABEL)
    measured = []
    rest_port, grpc_port = free_port(), free_port()
    command = [sys.executable, "-m", "switchyard", "serve", str(bundle), "--trust", "--name", "m", "--access-log", "off"]
    command += ["--port", str(rest_port), "--grpc-port", str(grpc_port)]
    for count in options.rows:
        together = count * options.clients
        bare = run([sys.executable, "-c", _BARE, str(bundle), str(EXAMPLE / "data.csv"), str(together), str(options.seconds)])
        rows = frame.iloc[np.arange(count) % len(frame)].reset_index(drop=True)
        found: dict[str, Any] = {"trainer": trainer, "rows": count, "clients": options.clients}
        found["bare"] = bare["batches_per_s"] * options.clients
        with server(command, rest_port):
            for protocol in ("rest", "grpc"):
                load = _rest(rest_port, rows, options) if protocol == "rest" else _grpc(grpc_port, rows, options)
                done, scores = asyncio.run(load)
                if np.abs(np.asarray(scores) - bare["scores"][:count]).max() > _MOST_DIFFERENCE:
                    sys.exit(f"{protocol} and the bare model differ in their probabilities")
                found[protocol] = done / options.seconds
                print(f"{trainer}, {count} rows, {protocol}: {found[protocol]:.0f} requests/s", file=sys.stderr)
        measured.append(found)
    return measured


async def _load(clients: list[Send], seconds: float) -> tuple[int, bytes]:
    """Returns the number of answers within the seconds, after a warm-up, and the last answer."""
    done, over, last = 0, False, b""

    async def work(send: Send) -> None:
        nonlocal done, last
        while not over:
            last = await send()
            done += 1

    tasks = [asyncio.create_task(work(send)) for send in clients]
    await asyncio.sleep(min(2.0, seconds))
    before, began = done, time.perf_counter()
    await asyncio.sleep(seconds)
    after = (done - before) * seconds / (time.perf_counter() - began)
    over = True
    await asyncio.gather(*tasks)
    return round(after), last


async def _rest(port: int, rows: Any, options: argparse.Namespace) -> tuple[int, list[float]]:
    inputs = [{"name": name, "shape": [len(rows)], "datatype": "FP32", "data": [float(v) for v in rows[name]]} for name in rows]
    body = json.dumps({"inputs": inputs, "outputs": [{"name": "probability"}]}).encode()
    head = "POST /v2/models/m/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def client() -> Send:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def send() -> bytes:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                sys.exit(f"a request failed: {answer!r}")
            lower = answer.lower()
            at = lower.index(b"content-length:") + len(b"content-length:")
            return await reader.readexactly(int(lower[at : lower.index(b"\r\n", at)]))

        return send

    done, answer = await _load([await client() for _ in range(options.clients)], options.seconds)
    return done, json.loads(answer)["outputs"][0]["data"]


async def _grpc(port: int, rows: Any, options: argparse.Namespace) -> tuple[int, list[float]]:
    import grpc.aio

    sys.path.insert(0, str(ROOT))
    from switchyard.components.serving.grpc_messages import MESSAGES, SERVICE

    request = MESSAGES["ModelInferRequest"](model_name="m")
    request.outputs.add(name="probability")
    for name in rows:
        request.inputs.add(name=name, datatype="FP32", shape=[len(rows)])
        request.raw_input_contents.append(rows[name].to_numpy(np.float32).tobytes())
    data = request.SerializeToString()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer")

        async def send() -> bytes:
            return bytes(await call(data))

        done, answer = await _load([send] * options.clients, options.seconds)
    response = MESSAGES["ModelInferResponse"].FromString(answer)
    return done, np.frombuffer(response.raw_output_contents[0], "<f8").tolist()


if __name__ == "__main__":
    main()
