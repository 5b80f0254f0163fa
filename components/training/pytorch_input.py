"""The shared input as PyTorch's batches: what `tf.data` reads, handed over without a copy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from components.training.contract import TrainRequest
from components.training.ledger import TrainingLedger

# Rows that are taken from TensorFlow at once; at least a batch.
_BLOCK_ROWS = 4096


class TrainBatches(torch.utils.data.IterableDataset):
    """One epoch a pass, from one `tf.data` iterator over all epochs (building one takes longer than a small epoch).

    TensorFlow hands over blocks of several batches, PyTorch cuts them: what `tf.data` costs for each element would be a
    third of a small model's step.
    """

    def __init__(self, request: TrainRequest, ledger: TrainingLedger) -> None:
        hyper = request.hyperparameters
        self._batch = hyper.batch_size
        self._length = math.ceil(request.train.rows / self._batch)
        self._steps_left = None if hyper.steps is None else hyper.steps - ledger.steps
        left = hyper.epochs - ledger.epochs
        self._block = max(1, _BLOCK_ROWS // self._batch)
        rows = self._block * self._batch
        dataset = request.train.dataset(rows, seed=hyper.seed, first_epoch=ledger.epochs, epochs=left)
        self._blocks = iter(dataset)

    def __iter__(self) -> Iterator[Any]:
        # Lightning's own max_steps would leave the last, cut epoch without validation.
        length = self._length if self._steps_left is None else min(self._length, self._steps_left)
        blocks = map(_to_torch, itertools.islice(self._blocks, math.ceil(self._length / self._block)))
        yield from itertools.islice(itertools.chain.from_iterable(map(self._cut, blocks)), length)
        if self._steps_left is not None:
            self._steps_left -= length

    def _cut(self, block: Any) -> Iterator[Any]:
        features, labels = block
        cut = {name: values.split(self._batch) for name, values in features.items()}
        for i, batch_labels in enumerate(labels.split(self._batch)):
            yield {name: parts[i] for name, parts in cut.items()}, batch_labels


class EvalBatches(torch.utils.data.IterableDataset):
    """The eval split, the same in every pass."""

    def __init__(self, request: TrainRequest) -> None:
        self._dataset = request.eval.dataset(max(request.hyperparameters.batch_size, 1024))

    def __iter__(self) -> Iterator[Any]:
        return map(_to_torch, self._dataset)


def _to_torch(batch: Any) -> Any:
    """Hands TensorFlow's tensors over without a copy."""
    features, labels = batch
    return {k: from_dlpack(v) for k, v in features.items()}, from_dlpack(labels)


def loader(batches: Any) -> Any:
    """Returns what Lightning takes: the batches as they are, in this process."""
    return torch.utils.data.DataLoader(batches, batch_size=None, num_workers=0)
