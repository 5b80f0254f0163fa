"""Workers exchange the addresses on which they listen."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from switchyard.components.training.workers import addresses


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.core
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=["the first comes first", "the first comes last"])
def test_every_worker_gets_the_addresses_of_all_in_their_order(order):
    meeting = "127.0.0.1", free_port()
    with ThreadPoolExecutor(3) as pool:
        found = [each.result(60) for each in [pool.submit(addresses.exchanged, i, 3, meeting) for i in order]]
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == 3
    assert all(address.startswith("127.0.0.1:") for address in found[0])


@pytest.mark.core
def test_a_worker_that_does_not_come_is_an_error(monkeypatch):
    monkeypatch.setattr(addresses, "_PATIENCE_SECONDS", 0.3)
    with pytest.raises(TimeoutError):
        addresses.exchanged(0, 2, ("127.0.0.1", free_port()))
    with pytest.raises(ConnectionRefusedError):
        addresses.exchanged(1, 2, ("127.0.0.1", free_port()))


@pytest.mark.core
def test_probes_and_strangers_at_the_port_do_not_end_the_meeting():
    host, port = meeting = "127.0.0.1", free_port()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(addresses.exchanged, 0, 2, meeting)
        for sent in (None, b"", b"GET / HTTP/1.1\r\n\r\n", b'[0, "x:1"]\n', b'[7, "x:1"]\n', b'["a"]\n', b"\xff\n"):
            for _ in range(100):
                try:
                    stranger = socket.create_connection((host, port), timeout=10)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.1)
            with stranger:
                if sent:
                    stranger.sendall(sent)
        found = addresses.exchanged(1, 2, meeting)
        assert first.result(60) == found
    assert all(address.startswith("127.0.0.1:") for address in found)
