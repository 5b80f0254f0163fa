"""Where Lightning puts a model: on one device, copied to several (DDP), or spread over them (FSDP)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from safetensors.torch import save_file, save_model
from torch import nn

from components.training.contract import TrainRequest


def placement(request: TrainRequest) -> dict[str, Any]:
    """Returns Lightning's `strategy`, `devices` and `num_nodes`, by the launcher's variables where there are several workers."""
    if request.shard.count == 1:
        return {"devices": 1}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    kind = request.accelerator.kind
    nodes = request.shard.count // here
    if kind == "tpu":
        return {"devices": here, "num_nodes": nodes}
    strategy: Any
    if request.accelerator.shard_model:
        strategy = ModelParallelStrategy(
            data_parallel_size=request.shard.count, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    else:
        # As with one device, parts of the model may lie idle in a step. PyTorch logs a warning where none does.
        strategy = DDPStrategy(process_group_backend="nccl" if kind == "gpu" else "gloo", find_unused_parameters=True)
    return {"strategy": strategy, "devices": here, "num_nodes": nodes}


def spread(model: nn.Module, mesh: Any) -> None:
    """Spreads a model's weights over the workers of a device mesh (FSDP2): part by part, so that one at a time is whole."""
    from torch.distributed.fsdp import fully_shard

    for part in (*_parts(model), model):
        fully_shard(part, mesh=mesh["data_parallel"])


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    for child in model.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential):
            yield from _parts(child)  # these are only lists of parts
        elif any(True for _ in child.parameters()):
            yield child


def save_weights(model: nn.Module, path: Path, *, first: bool) -> None:
    """Writes the whole model's weights, whole or not at all. All workers take part, the first writes."""
    temporary = path.with_name(f"new_{path.name}")
    if any(hasattr(p, "full_tensor") for p in model.parameters()):
        weights = {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in model.state_dict().items()}
        if first:
            save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, temporary)
    elif first:
        save_model(model, temporary)
    if first:
        os.replace(temporary, path)
