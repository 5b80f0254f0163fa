"""Adapts the shared input to PyTorch: NumPy arrays are converted and split without a copy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from switchyard.components.errors import UserError
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.example_source import Block, ExampleSource, Stretch
from switchyard.components.training.ledger import TrainingLedger


class TrainBatches(torch.utils.data.IterableDataset):
    """A dataset of this worker's part of the train split; each pass is one epoch."""

    def __init__(self, request: TrainRequest, ledger: TrainingLedger) -> None:
        self._request = request
        rows = request.train.rows
        if rows < request.shard.count:
            raise UserError(
                f"trainer.accelerator: {request.shard.count} workers cannot share {rows} training examples; ask for fewer"
            )
        steps = request.hyperparameters.steps
        self._steps_left = None if steps is None else steps - ledger.steps
        self._epoch = ledger.epochs

    def __iter__(self) -> Iterator[Any]:
        hyper = self._request.hyperparameters
        epoch = batches(self._request.train, hyper.batch_size, seed=hyper.seed, epoch=self._epoch, shard=self._request.shard)
        self._epoch += 1
        # Lightning's max_steps would skip validation of the last, truncated epoch.
        for batch in itertools.islice(epoch, self._steps_left):
            if self._steps_left is not None:
                self._steps_left -= 1
            yield batch


class EvalBatches(torch.utils.data.IterableDataset):
    """A dataset of this worker's part of the eval split, in the same order in every pass."""

    def __init__(self, request: TrainRequest) -> None:
        self._request = request

    def __iter__(self) -> Iterator[Any]:
        shard = self._request.shard
        return batches(self._request.eval, self._request.hyperparameters.eval_batch_size(shard.count), shard=shard)


def batches(source: ExampleSource, batch_size: int, **order: Any) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Yields the batches of `source.batches` as tensors. One call splits a block into its features, whatever their number."""
    for stretch in source.stretches(batch_size, **order):
        yield from _cut(source.blocks, stretch)


def _cut(blocks: tuple[Block, ...], stretch: Stretch) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    sizes = list(stretch.sizes)
    arrays = [torch.from_numpy(array).split(sizes) for array in stretch.arrays]
    for labels, *parts in zip(torch.from_numpy(stretch.labels).split(sizes), *arrays, strict=True):
        features: dict[str, torch.Tensor] = {}
        for block, part in zip(blocks, parts, strict=True):
            if len(block.names) > 1:
                features.update(zip(block.names, part.split(1, dim=1), strict=True))
            else:
                features[block.names[0]] = part.reshape(-1, *block.shape)
        yield features, labels


def loader(batches: Any) -> Any:
    """Returns a data loader for Lightning that passes batches through in this process."""
    return torch.utils.data.DataLoader(batches, batch_size=None, num_workers=0)
