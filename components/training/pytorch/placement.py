"""Places a model for Lightning: on one device, replicated to several (DDP), or sharded over them (FSDP)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.accelerators import XLAAccelerator
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn

from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.pytorch.devices import allow_metadata, xla_on_cpu


def placement(request: TrainRequest) -> dict[str, Any]:
    """Returns Lightning's `accelerator`, `strategy`, `devices` and `num_nodes`.

    With several workers these follow the launcher's environment variables.
    """
    allow_metadata()  # Lightning looks for TPUs whatever the kind
    kind = request.accelerator.kind
    accelerator = {"gpu": "cuda", "tpu": _CpuAsTpu() if xla_on_cpu() else "tpu"}.get(kind, kind)
    if request.shard.count == 1:
        return {"accelerator": accelerator, "devices": 1}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    nodes = request.shard.count // here
    strategy: Any
    if request.accelerator.shard_model:
        strategy = ModelParallelStrategy(
            data_parallel_size=request.shard.count, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    else:
        # As on one device, parts of the model may be unused in a step. PyTorch logs a warning if none is.
        strategy = DDPStrategy(process_group_backend="nccl" if kind == "gpu" else "gloo", find_unused_parameters=True)
    return {"accelerator": accelerator, "strategy": strategy, "devices": here, "num_nodes": nodes}


class _CpuAsTpu(XLAAccelerator):
    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device("xla", 0)]

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def auto_device_count() -> int:
        return 1


def spread(model: nn.Module, mesh: Any) -> None:
    """Shards a model's weights over the workers of a device mesh (FSDP2), per submodule, so that one at a time is gathered."""
    from torch.distributed.fsdp import fully_shard

    for part in (*_parts(model), model):
        fully_shard(part, mesh=mesh["data_parallel"])


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    for child in model.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential):
            yield from _parts(child)  # plain containers
        elif any(True for _ in child.parameters()):
            yield child
