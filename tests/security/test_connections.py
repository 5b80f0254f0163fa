"""What clients may take of a server before their requests are looked at: heads, connections, silence, bodies without end.

The server is the real one, over real sockets; the quick tests run it in this process around a model that only adds up.
"""

import asyncio
import http.client
import json
import resource
import socket
import ssl
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import psutil
import pytest
import uvicorn

from switchyard.components.compat.bounded_http import ConnectionLimits, listen_with_tls
from switchyard.components.errors import UserError
from switchyard.components.serving.answering import ServerState
from switchyard.components.serving.app import create_app
from switchyard.components.serving.connections import allow_connections, uvicorn_config
from switchyard.components.serving.gate import AllowedHosts
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.served_model import Limits
from switchyard.components.serving.server import bind
from tests.security.hostile import GOOD, rollout
from tests.serving.server import serving

QUICK = ConnectionLimits(
    connections=20, head_seconds=0.5, idle_seconds=1, write_seconds=1, linger_seconds=0.5, linger_bytes=4 << 20, pipelined=8
)
BODY = json.dumps({"inputs": [GOOD]}).encode()


@contextmanager
def listening(limits=QUICK, *, seconds=1.0, token=None, hosts=None, tls=None, handshake=0.5):
    """Yields the port of a server that takes bodies of 1 MiB."""
    taken = Limits(body=1 << 20, seconds=seconds)
    state = ServerState("m", rollout(taken), taken, Metrics(), "1")
    app = create_app(state, token=token, access_log=None, hosts=hosts)
    sock = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn_config(app, limits, tls))
    if tls:
        server.startup = lambda sockets: listen_with_tls(server, sockets, handshake)

    def serve():
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve([sock]))

    thread = threading.Thread(target=serve)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def connected(port, *, receive_buffer=None):
    with socket.socket() as client:
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(10)
        client.connect(("127.0.0.1", port))
        yield client


def head(method="GET", path="/v2/health/live", *fields):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: localhost", *fields, "", ""]).encode()


def post(size):
    return head("POST", "/invocations", f"content-length: {size}", "content-type: application/json")


def status_of(answer):
    return int(answer.split()[1]) if answer else None


def answer_to(client):
    """Returns one answer of a connection that stays open."""
    found = http.client.HTTPResponse(client)
    found.begin()
    found.read()
    return found.status


def until_closed(client):
    """Returns all that the server sends before it closes; a reset counts as a close."""
    found = b""
    with ExitStack() as stack:
        stack.callback(client.close)
        try:
            while part := client.recv(1 << 16):
                found += part
        except ConnectionError:
            pass
    return found


def sent_until_refused(client, parts, most):
    """Sends until the server takes no more; returns the number of bytes."""
    sent = 0
    try:
        for part in parts:
            client.sendall(part)
            sent += len(part)
            assert sent < most, "the server takes whatever is sent"
    except ConnectionError:
        pass
    return sent


def endless(part):
    while True:
        yield part


def ask(port, body=BODY, **fields):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/invocations", body, {"content-type": "application/json", **fields})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


HEADS = {
    "a header field without end": (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ", b"y" * 8192, 431),
    "header fields without end": (b"GET / HTTP/1.1\r\nhost: localhost\r\n", b"x: y\r\n" * 10, 431),
    "long header fields without end": (b"GET / HTTP/1.1\r\n", b"x: " + b"y" * 8000 + b"\r\n", 431),
    "a name without end": (b"GET / HTTP/1.1\r\n", b"x" * 8192, 431),
    "a request line without end": (b"GET /", b"y" * 4096, 414),
    "a query without end": (b"GET /v2?", b"y=1&" * 1000, 414),
    "empty lines without end": (b"", b"\r\n" * 1000, 431),
}


@pytest.mark.core
@pytest.mark.parametrize("case", list(HEADS))
def test_an_endless_head_is_refused(case):
    begin, more, status = HEADS[case]
    counted = []
    with listening(replace(QUICK, refused=counted.append), token="s3cret") as port, connected(port) as client:
        client.sendall(begin)
        sent_until_refused(client, (more for _ in range(100)), 1 << 20)

        answer = until_closed(client)

    assert status_of(answer) == status
    assert b"connection: close" in answer
    assert counted == [status]


@pytest.mark.core
def test_a_head_within_the_limits_is_accepted():
    fields = [f"x-{i}: {'y' * 570}" for i in range(98)]
    with listening() as port, connected(port) as client:
        for _ in range(2):
            client.sendall(head("GET", "/v2/health/live?" + "y" * 8000, *fields))
            assert answer_to(client) == 200


@pytest.mark.core
@pytest.mark.parametrize(
    "part", [b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n", b"\r\n", b"G", b"GET /v2 HTTP/1.1\r\nhost: localhost\r\nx: y"]
)
def test_a_head_that_times_out_gets_408(part):
    with listening(replace(QUICK, idle_seconds=5)) as port, connected(port) as client:
        client.sendall(part)

        began = time.monotonic()
        answer = until_closed(client)

    assert status_of(answer) == 408
    assert time.monotonic() - began < 2


@pytest.mark.core
def test_a_trickling_head_gets_no_extra_time():
    with listening() as port, connected(port) as client:
        began = time.monotonic()
        sent_until_refused(client, (b"x" if not time.sleep(0.1) else b"" for _ in endless(b"")), 60)
        assert time.monotonic() - began < 4


@pytest.mark.core
@pytest.mark.parametrize("before", [b"", head()])
def test_a_connection_without_a_request_is_closed(before):
    with listening() as port, connected(port) as client:
        client.sendall(before)
        began = time.monotonic()

        answer = until_closed(client)

    assert status_of(answer) == (200 if before else None)
    assert 0.5 < time.monotonic() - began < 3


@pytest.mark.core
def test_connections_above_the_limit_get_503_and_the_others_are_served():
    with listening(replace(QUICK, idle_seconds=5)) as port, ExitStack() as stack:
        held = [stack.enter_context(connected(port)) for _ in range(20)]
        more = [stack.enter_context(connected(port)) for _ in range(5)]
        for client in more:
            answer = until_closed(client)
            assert status_of(answer) == 503
            assert b"retry-after" in answer
        for client in held:
            client.sendall(head())
            assert answer_to(client) == 200
        for client in held:
            client.close()
        time.sleep(0.3)
        assert ask(port)[0] == 200


@pytest.mark.core
def test_a_flood_of_connections_is_closed_and_leaves_no_state():
    with listening() as port, ExitStack() as stack:
        clients = [stack.enter_context(connected(port)) for _ in range(200)]
        assert sum(status_of(until_closed(c)) == 503 for c in clients) <= 20
        time.sleep(1)
        assert ask(port)[0] == 200


@pytest.mark.core
def test_a_client_without_a_token_is_answered_and_disconnected():
    with listening(token="s3cret") as port:
        status, fields, _ = ask(port)
        assert (status, fields["connection"]) == (401, "close")
        with connected(port) as client:
            client.sendall(head("POST", "/invocations", "transfer-encoding: chunked"))
            began = time.monotonic()
            sent_until_refused(client, endless(b"10000\r\n" + b"x" * 65536 + b"\r\n"), 64 << 20)
            assert time.monotonic() - began < 5
        assert ask(port, authorization="Bearer s3cret")[0] == 200


@pytest.mark.core
def test_a_body_above_the_limit_gets_413_and_its_connection_is_closed():
    with listening() as port:
        # As clients do who send all of it before they read.
        status, fields, body = ask(port, b"x" * (3 << 20))
        assert (status, fields["connection"]) == (413, "close")
        assert b"1048576 bytes, the limit" in body
        for fields in ([f"content-length: {1 << 40}"], ["transfer-encoding: chunked"]):
            with connected(port) as client:
                client.sendall(head("POST", "/invocations", *fields))
                part = b"x" * 65536 if "length" in fields[0] else b"10000\r\n" + b"x" * 65536 + b"\r\n"
                began = time.monotonic()
                sent_until_refused(client, endless(part), 64 << 20)
                assert time.monotonic() - began < 5


@pytest.mark.core
def test_a_client_that_expects_100_continue_is_refused_before_it_sends():
    with listening() as port, connected(port) as client:
        client.sendall(head("POST", "/invocations", f"content-length: {2 << 20}", "expect: 100-continue"))

        answer = until_closed(client)

    assert status_of(answer) == 413


@pytest.mark.core
def test_a_body_that_times_out_gets_504_and_its_connection_is_closed():
    with listening(seconds=0.5) as port, connected(port) as client:
        client.sendall(post(1000) + b"{")

        began = time.monotonic()
        answer = until_closed(client)

        assert status_of(answer) == 504
        assert b"connection: close" in answer
        assert time.monotonic() - began < 3


@pytest.mark.core
def test_after_504_an_endless_body_is_not_drained():
    def trickle():
        for _ in range(8):
            time.sleep(0.1)
            yield b"1\r\nx\r\n"
        while True:
            yield b"10000\r\n" + b"x" * 65536 + b"\r\n"

    with listening(seconds=0.5) as port, connected(port) as client:
        client.sendall(head("POST", "/invocations", "transfer-encoding: chunked"))
        assert sent_until_refused(client, trickle(), 64 << 20) < 32 << 20


@pytest.mark.core
@pytest.mark.parametrize("path", ["/v2", "/nothing", "/v2/models/m/infer?", "/invocations"])
@pytest.mark.parametrize("fields", [["transfer-encoding: chunked"], ["transfer-encoding: chunked", "content-encoding: gzip"]])
def test_a_request_answered_before_its_body_arrived_is_closed(path, fields):
    with listening(seconds=0.5) as port, connected(port) as client:
        client.sendall(head("PUT" if "infer" in path else "POST", path, *fields) + b"1\r\nx\r\n")

        answer = until_closed(client)

    assert 400 <= status_of(answer) <= 504
    assert b"connection: close" in answer


SURROUNDINGS = {
    "one chunk's extension": b"1;" + b"e" * 65000,
    "extensions of small chunks": b"1;x=y\r\nz\r\n" + b"1" + b";e" * 30000 + b"\r\nz\r\n",
    "trailers": b"0\r\n" + b"x: y\r\n" * 10000,
    "one trailer": b"0\r\nx: " + b"y" * 65000,
}


@pytest.mark.core
@pytest.mark.parametrize("case", list(SURROUNDINGS))
def test_chunk_framing_is_limited_too(case):
    with listening(seconds=5) as port, connected(port) as client:
        client.sendall(head("POST", "/invocations", "transfer-encoding: chunked"))
        began = time.monotonic()
        sent_until_refused(client, (SURROUNDINGS[case] for _ in range(1000)), 64 << 20)
        assert status_of(until_closed(client)) in (None, 400, 431)
        assert time.monotonic() - began < 4


@pytest.mark.core
def test_a_client_that_reads_no_answers_is_disconnected():
    with listening() as port, connected(port, receive_buffer=4096) as client:
        began = time.monotonic()
        client.settimeout(None)
        sent_until_refused(client, endless(head("GET", "/openapi.json")), 64 << 20)
        assert time.monotonic() - began < 8


@pytest.mark.core
def test_pipelined_requests_are_answered_in_order_up_to_a_limit():
    with listening() as port:
        with connected(port) as client:
            client.sendall(b"".join(head("GET", p) for p in ("/v2/health/live", "/nothing", "/v2")))
            time.sleep(0.3)
            assert [int(p[:3]) for p in client.recv(1 << 16).decode().split("HTTP/1.1 ")[1:]] == [200, 404, 200]
        with connected(port) as client:
            sent_until_refused(client, [head() * 5000], 64 << 20)
            assert until_closed(client).count(b"HTTP/1.1 ") <= 20
        assert ask(port)[0] == 200


@pytest.mark.core
def test_another_protocol_is_answered_in_http_and_closed():
    fields = [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version: 13",
    ]
    with listening(token="s3cret") as port:
        for request in (head("GET", "/v2", *fields), head("GET", "/v2", "connection: upgrade", "upgrade: h2c")):
            with connected(port) as client:
                client.sendall(request + b"x" * 100)
                answer = until_closed(client)
            assert status_of(answer) == 401
            assert b"connection: close" in answer


@pytest.mark.core
@pytest.mark.parametrize(
    "request_",
    [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n",
     b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
     b"POST /invocations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999999999999999\r\n\r\nx",
     b"POST /v2 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
     "GET /é HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()],
)  # fmt: skip
def test_a_request_that_is_not_http_gets_400_and_is_closed(request_):
    with listening() as port, connected(port) as client:
        client.sendall(request_)

        answer = until_closed(client)

    assert status_of(answer) == 400
    assert b"connection: close" in answer


@pytest.mark.core
def test_bytes_after_a_body_are_not_part_of_its_head():
    """A proxy in front looks at the head: a token, a host or a length behind the body would pass it by."""
    body = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    for trailer, status in ((b"authorization: Bearer s3cret", 401), (b"host: evil.example", 401), (b"x: y", 401)):
        with listening(token="s3cret", hosts=AllowedHosts([], addresses=False)) as port, connected(port) as client:
            client.sendall(head("POST", "/invocations", "transfer-encoding: chunked") + body + trailer + b"\r\n\r\n")
            assert status_of(until_closed(client)) == status
    with listening() as port, connected(port) as client:
        fields = ("transfer-encoding: chunked", "content-type: application/json")
        client.sendall(head("POST", "/invocations", *fields) + body + b"content-type: text/csv\r\n\r\n")
        assert answer_to(client) == 200


@pytest.mark.core
@pytest.mark.parametrize(
    ("version", "coding", "status"),
    [("1.1", "gzip, chunked", 501), ("1.1", "xchunked", 501), ("1.0", "chunked", 400), ("1.1", "Chunked", 200)],
)
def test_only_chunked_transfer_encoding_is_accepted_and_none_in_http_1_0(version, coding, status):
    lines = [
        f"POST /invocations HTTP/{version}",
        "host: localhost",
        "content-type: application/json",
        f"transfer-encoding: {coding}",
    ]
    with listening() as port, connected(port) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert answer_to(client) == status


def host_of(port, host, path="/v2", version="1.1"):
    with connected(port) as client:
        fields = [f"host: {h}" for h in ([host] if isinstance(host, str) else host)]
        client.sendall("\r\n".join([f"GET {path} HTTP/{version}", *fields, "connection: close", "", ""]).encode())
        answer = until_closed(client)
    return status_of(answer)


@pytest.mark.core
def test_on_loopback_another_name_than_localhost_is_refused():
    """DNS rebinding: a page of evil.example has its name resolve to 127.0.0.1, and a browser reads the answers to it."""
    with listening(hosts=AllowedHosts(["Models.Example.org"], addresses=False)) as port:
        for host in (
            "localhost",
            f"localhost:{port}",
            f"127.0.0.1:{port}",
            "127.0.0.2",
            f"[::1]:{port}",
            "LOCALHOST.",
            "models.example.org:80",
        ):
            assert host_of(port, host) == 200, host
        for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1",
                     "0.0.0.0", "localhost@evil.example", "evil.example#localhost", "[::2]", "localhost:x", "",
                     "evil localhost"):  # fmt: skip
            for path in ("/v2", "/v2/health/live", "/nothing"):
                assert host_of(port, host, path) == 421, host
        assert host_of(port, []) == 400
        assert host_of(port, ["localhost", "evil.example"]) == 400
        assert host_of(port, [], version="1.0") == 200


@pytest.mark.core
def test_on_other_interfaces_configured_names_are_checked_and_addresses_are_accepted():
    """Probes of Kubernetes call a pod by its address, which no page can have rebound."""
    with listening(hosts=AllowedHosts(["models.example.org"], addresses=True)) as port:
        assert host_of(port, "models.example.org") == 200
        assert host_of(port, "10.1.2.3:8080") == 200
        assert host_of(port, "evil.example") == 421


@pytest.mark.core
def test_an_absolute_target_is_checked_by_its_own_host():
    """RFC 9112, 3.2.2: the Host field beside it is ignored. A proxy routes by the target too, and the two must agree."""
    with listening(hosts=AllowedHosts(["models.example.org"], addresses=False)) as port:
        for target in (f"http://localhost:{port}/v2", "HTTP://LOCALHOST/v2?x=y", "https://models.example.org/v2",
                       f"http://[::1]:{port}/v2"):  # fmt: skip
            for host in ("localhost", "evil.example"):
                assert host_of(port, host, target) == 200, (target, host)
        for target in ("http://evil.example/v2", "http://10.0.0.1/v2", "http://localhost.evil.example/v2/health/live",
                       "http://[::2]/", "http://evil.example?@localhost/", "http://evil.example//http://localhost/"):  # fmt: skip
            assert host_of(port, "localhost", target) == 421, target
            assert host_of(port, [], target, version="1.0") == 421, target
        # One with a user's name is refused as a whole: which part is the host, readers disagree on.
        for target in (
            "http://localhost@evil.example/v2",
            "http://evil.example@localhost/v2",
            "ftp://localhost/v2",
            "http:///v2",
        ):
            assert host_of(port, "localhost", target) == 400, target
        assert host_of(port, "localhost", "http://localhost") == 404
        assert host_of(port, [], "http://localhost/v2") == 400
        assert host_of(port, ["localhost", "localhost"], "http://localhost/v2") == 400


@pytest.mark.core
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("OPTIONS *", 404),
        ("CONNECT localhost:80", 400),
        ("GET localhost/v2", 400),
        ("GET //evil.example/v2", 404),
        ("GET *", 404),
    ],
)
def test_a_target_of_another_form_gets_an_answer(line, status):
    with listening(hosts=AllowedHosts([], addresses=False)) as port, connected(port) as client:
        client.sendall(f"{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        assert status_of(until_closed(client)) == status


@pytest.mark.core
def test_other_requests_are_answered_while_a_big_body_is_decoded():
    unit = b'{"a":1},'
    body = b'{"instances":[' + unit * ((1 << 20) // len(unit) - 10) + b"{}]}"
    with listening(seconds=20) as port:
        slowest = 0.0
        hostile = [threading.Thread(target=ask, args=(port, body)) for _ in range(4)]
        for thread in hostile:
            thread.start()
        while any(t.is_alive() for t in hostile):
            began = time.monotonic()
            with connected(port) as client:
                client.sendall(head())
                assert answer_to(client) == 200
            slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2


@pytest.fixture(scope="module")
def server(bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("connections")
    (folder / "token").write_text("s3cret\n")
    options = ["--token-file", folder / "token", "--idle-timeout", 2, "--max-connections", 2100, "--timeout", 10]
    with serving(bundles["pytorch"], folder / "log", *options, name="m") as found:
        yield found


def memory(server):
    return psutil.Process(server.process.pid).memory_info().rss / 2**20


def test_endless_heads_cost_a_server_with_a_token_no_memory_and_no_time(server):
    before, worst = memory(server), 0.0
    stop = threading.Event()

    def attack():
        while not stop.is_set():
            with connected(server.port) as client:
                sent_until_refused(client, (b"GET / HTTP/1.1\r\nx: " + b"y" * (1 << 20) for _ in range(64)), 1 << 40)

    attackers = [threading.Thread(target=attack) for _ in range(4)]
    for thread in attackers:
        thread.start()
    try:
        for _ in range(20):
            began = time.monotonic()
            assert server.request("/v2/health/live")[0] == 200
            worst = max(worst, time.monotonic() - began)
            time.sleep(0.1)
    finally:
        stop.set()
        for thread in attackers:
            thread.join()
    assert memory(server) - before < 200
    assert worst < 2


def test_requests_that_once_exhausted_memory_are_refused_at_once(server):
    bodies = {
        "/v2/models/m/infer": b'{"inputs":[{"name":"x","shape":[4294967296,4294967296],"datatype":"FP32","data":[]}]}',
        "/invocations": b'{"dataframe_records":[%s]}' % b",".join(b'{"c%d":1}' % i for i in range(34_000)),
    }
    fields = {"content-type": "application/json", "authorization": "Bearer s3cret"}
    before = memory(server)
    for path, body in bodies.items():
        began = time.monotonic()
        status, _, answer = server.request(path, body, fields)
        assert status in (400, 413), answer
        assert time.monotonic() - began < 5
    assert memory(server) - before < 200


def test_two_thousand_idle_and_half_sent_connections_are_closed(server):
    open_before = len(psutil.Process(server.process.pid).net_connections())
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server.port)) for _ in range(2000)]
        for client in clients[::2]:
            client.sendall(b"GET /v2 HTTP/1.1\r\nhost: loc")
        assert server.request("/v2/health/live")[0] == 200
        began = time.monotonic()
        assert [status_of(until_closed(c)) for c in clients[1::2]] == [None] * 1000
        assert [status_of(until_closed(c)) for c in clients[::2]] == [408] * 1000
        assert time.monotonic() - began < 30
    assert len(psutil.Process(server.process.pid).net_connections()) <= open_before + 2


def test_serve_checks_hosts_on_loopback_and_accepts_configured_names(server, bundles, tmp_path):
    assert host_of(server.port, "evil.example", "/ping") == 421
    with serving(bundles["pytorch"], tmp_path / "log", "--allowed-hosts", "a.example,models.example.org", name="m") as other:
        assert host_of(other.port, "models.example.org", "/ping") == 200
        assert host_of(other.port, "evil.example", "/ping") == 421


@pytest.mark.core
@pytest.mark.parametrize("name", ["http://x", "x:80", "x/y", "", "a,b/c"])
def test_an_invalid_allowed_host_is_refused(name, warm):
    done = warm("serve", "nothing@champion", "--allowed-hosts", name)

    assert done.code == 2
    assert "--allowed-hosts" in done.stderr


@pytest.mark.core
def test_a_connection_limit_above_the_systems_open_files_is_refused():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    with pytest.raises(UserError, match=r"--max-connections: .* open files"):
        allow_connections(hard)

    assert allow_connections(None) <= hard


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Files of a certificate and its key, and a context of clients that trust it."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return (folder / "cert.pem", folder / "key.pem"), ssl.create_default_context(cafile=folder / "cert.pem")


@contextmanager
def secured(port, trusting):
    with connected(port) as plain, trusting.wrap_socket(plain, server_hostname="localhost") as client:
        yield client


@pytest.mark.core
def test_limits_hold_behind_tls_and_a_handshake_has_a_timeout(certificate):
    files, trusting = certificate
    with listening(tls=files) as port:
        with connected(port) as client:
            began = time.monotonic()
            assert until_closed(client) == b""
            assert time.monotonic() - began < 3
        for begin, more, status in list(HEADS.values())[:2]:
            with secured(port, trusting) as client:
                client.sendall(begin)
                sent_until_refused(client, (more for _ in range(100)), 1 << 20)
                assert status_of(until_closed(client)) == status


@pytest.mark.core
def test_unfinished_handshakes_count_as_connections(certificate):
    files, trusting = certificate
    with listening(tls=files, handshake=3) as port, ExitStack() as stack:
        half = [stack.enter_context(connected(port)) for _ in range(40)]
        for client in half[::2]:
            client.sendall(b"\x16\x03\x01\x02\x00")
        began = time.monotonic()
        assert [until_closed(c) for c in half[28:]] == [b""] * 12
        assert time.monotonic() - began < 2, "what is more than may be open is closed at once"
        assert [until_closed(c) for c in half[:28]] == [b""] * 28
        with secured(port, trusting) as client:
            client.sendall(head())
            assert answer_to(client) == 200


@pytest.mark.core
def test_requests_sent_with_the_end_of_the_handshake_are_answered(certificate):
    files, trusting = certificate
    with listening(tls=files) as port:
        for _ in range(20):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
            with connected(port) as plain:
                while True:
                    try:
                        client.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        plain.sendall(outgoing.read())
                        incoming.write(plain.recv(1 << 16))
                client.write(head())
                plain.sendall(outgoing.read())  # the handshake's last message and the request at once
                found = b""
                while b"\r\n\r\n" not in found:
                    incoming.write(plain.recv(1 << 16))
                    try:
                        found += client.read(1 << 16)
                    except ssl.SSLWantReadError:
                        continue
            assert status_of(found) == 200
