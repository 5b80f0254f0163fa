"""The shared input as PyTorch's batches: what `tf.data` reads, handed over without a copy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from switchyard.components.errors import UserError
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.ledger import TrainingLedger

# Rows that are taken from TensorFlow at once; at least a batch.
_BLOCK_ROWS = 4096


class TrainBatches(torch.utils.data.IterableDataset):
    """This worker's part of one epoch a pass.

    There is one `tf.data` iterator over all epochs: building one takes longer than a small epoch. TensorFlow hands over
    blocks of several batches, PyTorch cuts them: what `tf.data` costs for each element would be a third of a small
    model's step.
    """

    def __init__(self, request: TrainRequest, ledger: TrainingLedger) -> None:
        hyper, shard = request.hyperparameters, request.shard
        batch, rows = hyper.batch_size, request.train.rows
        if rows < shard.count:
            raise UserError(f"trainer.accelerator: {shard.count} workers cannot share {rows} training examples; ask for fewer")
        self._own = batch // shard.count
        self._length = math.ceil(rows / batch)
        self._steps_left = None if hyper.steps is None else hyper.steps - ledger.steps
        left = hyper.epochs - ledger.epochs
        self._block = max(1, _BLOCK_ROWS // batch)
        dataset = request.train.dataset(self._block * batch, seed=hyper.seed, first_epoch=ledger.epochs, epochs=left, shard=shard)
        self._blocks = iter(dataset)

    def __iter__(self) -> Iterator[Any]:
        # Lightning's own max_steps would leave the last, cut epoch without validation.
        length = self._length if self._steps_left is None else min(self._length, self._steps_left)
        yield from itertools.islice(self._batches(), length)
        if self._steps_left is not None:
            self._steps_left -= length

    def _batches(self) -> Iterator[Any]:
        """Yields one epoch's batches."""
        left = self._length
        for block in map(_to_torch, itertools.islice(self._blocks, math.ceil(self._length / self._block))):
            count = min(left, self._block)
            left -= count
            yield from self._cut(block, count)

    def _cut(self, block: Any, count: int) -> Iterator[Any]:
        features, labels = block
        cut = {name: values.split(self._own) for name, values in features.items()}
        parts = labels.split(self._own)
        for i in range(count):
            if i < len(parts):
                yield {name: each[i] for name, each in cut.items()}, parts[i]
            else:  # no row of the last batch is this worker's: any row does, it does not count
                yield {name: values[:1] for name, values in features.items()}, labels[:1]


class EvalBatches(torch.utils.data.IterableDataset):
    """The eval split, the same in every pass; this worker's part of it."""

    def __init__(self, request: TrainRequest) -> None:
        size = request.hyperparameters.eval_batch_size(request.shard.count)
        self._dataset = request.eval.dataset(size, shard=request.shard)

    def __iter__(self) -> Iterator[Any]:
        return map(_to_torch, self._dataset)


def _to_torch(batch: Any) -> Any:
    """Hands TensorFlow's tensors over without a copy."""
    features, labels = batch
    return {k: from_dlpack(v) for k, v in features.items()}, from_dlpack(labels)


def loader(batches: Any) -> Any:
    """Returns what Lightning takes: the batches as they are, in this process."""
    return torch.utils.data.DataLoader(batches, batch_size=None, num_workers=0)
