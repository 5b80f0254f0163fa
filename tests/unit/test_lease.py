"""A training stage's lease on its nodes: it lasts while the stage is there, and one that is tried again takes it over."""

import threading
import time

import pytest

from switchyard.components.training.workers import lease


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 0.6)
    return tmp_path / "lease"


def node(file):
    """A node that waits for the lease to expire."""
    thread = threading.Thread(target=lease.await_expiry, args=(lease.variable(file),), daemon=True)
    thread.start()
    return thread


def test_nodes_run_as_long_as_their_stage_and_end_with_it(file):
    with lease.Lease(file):
        waiting = node(file)
        waiting.join(1.5)
        assert waiting.is_alive()
    waiting.join(5)
    assert not waiting.is_alive()


def test_a_node_that_starts_after_the_lease_expired_ends_at_once(file):
    node(file).join(5)
    assert lease.expired(lease.variable(file))
    began = time.monotonic()
    lease.await_expiry(lease.variable(file))
    assert time.monotonic() - began < 0.3


def test_a_retried_stage_takes_over_the_lease(file):
    node(file).join(5)
    with lease.Lease(file):
        assert not lease.expired(lease.variable(file))


def test_a_claim_that_cannot_be_written_for_a_while_ends_no_stage(tmp_path):
    with lease.Lease(tmp_path / "nowhere" / "lease"):
        pass
