"""Adapts the shared input to PyTorch: NumPy arrays are converted and split without a copy, or gathered in a GPU's memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from switchyard.components.errors import UserError
from switchyard.components.training.columns import nbytes
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.example_source import Block, ExampleSource
from switchyard.components.training.ledger import TrainingLedger

# Share of a GPU's free memory that a split may occupy; the rest is for activations.
_SHARE = 0.25
# Bytes that are gathered in a GPU's memory at once.
_GATHERED_BYTES = 32 << 20

# Features by name, labels, and any weights, see `example_source.Batch`.
Batches = Iterator[tuple[Any, ...]]


class TrainBatches:
    """This worker's part of the train split; each pass is one epoch."""

    def __init__(self, request: TrainRequest, ledger: TrainingLedger) -> None:
        self._request = request
        rows = request.train.rows
        if rows < request.shard.count:
            raise UserError(
                f"trainer.accelerator: {request.shard.count} workers are too many for {rows} training examples; request fewer"
            )
        steps = request.hyperparameters.steps
        self._steps_left = None if steps is None else steps - ledger.steps
        self._epoch = ledger.epochs
        self._reader = _Reader(request.train, request.accelerator.kind)

    def __iter__(self) -> Batches:
        hyper = self._request.hyperparameters
        epoch = self._reader.batches(hyper.batch_size, seed=hyper.seed, epoch=self._epoch, shard=self._request.shard)
        self._epoch += 1
        # Lightning's max_steps would skip validation of the last, truncated epoch.
        together = hyper.accumulate_steps
        for number, batch in enumerate(itertools.islice(epoch, self._steps_left and self._steps_left * together)):
            if self._steps_left is not None and number % together == 0:
                self._steps_left -= 1
            yield batch


class EvalBatches:
    """This worker's part of the eval split, in the same order in every pass."""

    def __init__(self, request: TrainRequest) -> None:
        self._request = request
        self._reader = _Reader(request.eval, request.accelerator.kind)

    def __iter__(self) -> Batches:
        shard = self._request.shard
        return self._reader.batches(self._request.hyperparameters.eval_batch_size(shard.count), shard=shard)


class _Reader:
    """Reads a split for a kind of device. What a GPU holds is copied on the first pass, when the model is on the device."""

    def __init__(self, source: ExampleSource, kind: str) -> None:
        self._source, self._kind = source, kind
        self._read: Callable[..., Batches] | None = None

    def batches(self, batch_size: int, **order: Any) -> Batches:
        if self._read is None:
            self._read = self._choose()
        return self._read(batch_size, **order)

    def _choose(self) -> Callable[..., Batches]:
        if self._kind != "gpu":
            return partial(batches, self._source)
        device = torch.device("cuda", torch.cuda.current_device())
        if fits(self._source, torch.cuda.mem_get_info(device)[0]):
            return DeviceColumns(self._source, device).batches
        return partial(copied_ahead, self._source, device)


def fits(source: ExampleSource, free_bytes: int) -> bool:
    """Returns whether a split may live in the memory of a device with so many free bytes."""
    return source.resident is not None and nbytes(source.resident) <= _SHARE * free_bytes


class DeviceColumns:
    """A split in a device's memory, where its batches are gathered: of an epoch only the order of the rows is copied."""

    def __init__(self, source: ExampleSource, device: torch.device) -> None:
        assert source.resident is not None
        arrays, labels = source.resident
        self._source, self._device = source, device
        weights = source.resident_weights
        columns = (*arrays, labels, *([] if weights is None else [weights]))
        self._arrays = [torch.tensor(array, device=device) for array in columns]
        self._row_bytes = max(1, nbytes(source.resident) // max(1, source.rows))

    def batches(self, batch_size: int, **order: Any) -> Batches:
        """Yields the batches of `source.batches` as tensors on the device."""
        rows, sizes = self._source.order(batch_size, **order)
        index = torch.from_numpy(rows)
        index = index.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else index
        at_once = max(1, _GATHERED_BYTES // self._row_bytes // batch_size)
        start = 0
        for group in (sizes[i : i + at_once] for i in range(0, len(sizes), at_once)):
            chosen = index[start : start + sum(group)]
            start += sum(group)
            yield from _cut(self._source.blocks, [array.index_select(0, chosen) for array in self._arrays], group)


def copied_ahead(source: ExampleSource, device: torch.device, batch_size: int, **order: Any) -> Batches:
    """Yields the batches of `source.batches` as tensors on a GPU; a stream of its own copies the next ones from pinned memory."""
    stream = torch.cuda.Stream(device)

    def sent() -> Iterator[tuple[list[torch.Tensor], tuple[int, ...], Any]]:
        for stretch in source.stretches(batch_size, **order):
            pinned = [torch.from_numpy(array).pin_memory() for array in (*stretch.arrays, *stretch.of_rows)]
            with torch.cuda.stream(stream):
                tensors = [tensor.to(device, non_blocking=True) for tensor in pinned]
            yield tensors, stretch.sizes, stream.record_event()

    for tensors, sizes, event in one_ahead(sent()):
        current = torch.cuda.current_stream(device)
        current.wait_event(event)
        for tensor in tensors:
            tensor.record_stream(current)  # its memory is not reused before the steps that read it
        yield from _cut(source.blocks, tensors, sizes)


def one_ahead(items: Iterable[Any]) -> Iterator[Any]:
    """Yields the items; each is requested before the one in front of it is used."""
    waiting: list[Any] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def batches(source: ExampleSource, batch_size: int, **order: Any) -> Batches:
    """Yields the batches of `source.batches` as tensors. One call splits a block into its features, whatever their number."""
    for stretch in source.stretches(batch_size, **order):
        yield from _cut(source.blocks, [torch.from_numpy(array) for array in (*stretch.arrays, *stretch.of_rows)], stretch.sizes)


def _cut(blocks: tuple[Block, ...], columns: Sequence[torch.Tensor], sizes: Sequence[int]) -> Batches:
    """Yields batches of columns: one array per block, then labels, then any weights."""
    for parts in zip(*(column.split(list(sizes)) for column in columns), strict=True):
        features: dict[str, torch.Tensor] = {}
        for block, part in zip(blocks, parts[: len(blocks)], strict=True):
            if len(block.names) > 1:
                features.update(zip(block.names, part.split(1, dim=1), strict=True))
            else:
                features[block.names[0]] = part.reshape(-1, *block.shape)
        yield features, *parts[len(blocks) :]
