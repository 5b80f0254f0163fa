"""Data-parallel input: every row of every batch goes to one worker, whatever the number of workers."""

import functools

import numpy as np
import pytest

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.training.example_source import Shard
from tests.training_requests import in_memory

pytestmark = pytest.mark.core

ROWS = 103


@pytest.fixture(scope="module", params=["memory", "windows"])
def source(request):
    rows = np.arange(ROWS)
    # Rows of 16 bytes: pieces of 3 rows, windows of all 64.
    limits = {} if request.param == "memory" else {"memory_bytes": 0, "window_bytes": 64 * 3 * 16}
    return in_memory({"x": rows[:, None]}, rows, [FeatureSpec("x", "int64", (1,))], **limits)


@functools.cache
def in_one_process(source, batch, seed, epoch):
    """One epoch's rows by batch, as a worker that is alone has them."""
    return [labels.tolist() for _, labels in source.batches(batch, seed=seed, epoch=epoch)]


def of_shard(source, batch, shard, **order):
    """One epoch of a shard's rows, without what stands in where it has none."""
    found = []
    for i, (features, labels) in enumerate(source.batches(batch, shard=shard, **order)):
        np.testing.assert_array_equal(features["x"][:, 0], labels)
        own = shard.rows(min(batch, ROWS - i * batch))
        assert len(labels) == max(1, own)
        found.append(labels[:own].tolist())
    return found


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize(
    "order", [{}, {"seed": 1, "epoch": 0}, {"seed": 1, "epoch": 2}], ids=["as in the files", "epoch 0", "epoch 2"]
)
@pytest.mark.parametrize("batch", [6, 24, 102, 120])
def test_no_row_is_lost_or_seen_twice(source, workers, order, batch):
    whole = in_one_process(source, batch, order.get("seed"), order.get("epoch", 0))
    shards = [of_shard(source, batch, Shard(i, workers), **order) for i in range(workers)]
    assert sorted(row for shard in shards for part in shard for row in part) == list(range(ROWS))
    for step, rows in enumerate(whole):
        # The same batches, too.
        assert sorted(row for shard in shards for row in shard[step]) == sorted(rows)


def test_a_worker_without_rows_in_the_last_batch_counts_none(source):
    # 103 = 17 * 6 + 1: one worker of three has a row.
    sizes = [len(of_shard(source, 6, Shard(i, 3))[-1]) for i in range(3)]
    assert sizes == [1, 0, 0]


def test_a_shard_knows_how_many_rows_of_a_batch_are_its_own():
    assert [Shard(i, 3).rows(7) for i in range(3)] == [3, 2, 2]
    assert [Shard(i, 3).rows(1) for i in range(3)] == [1, 0, 0]
    assert Shard().rows(5) == 5
