"""Writes a trained model by `torch.export`. Mirrors `tensorflow/export.py`."""

from __future__ import annotations

import torch
from safetensors.torch import save_model
from torch import nn

from switchyard.components.errors import UserError, first_line
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.examples import placeholder_batch
from switchyard.components.training.positional import by_name, positional, save_names
from switchyard.components.training.pytorch.archive import MODEL_FILE, save_program
from switchyard.components.training.pytorch.metrics import activated
from switchyard.components.training.start import WEIGHTS


def export(model: nn.Module, request: TrainRequest) -> None:
    """Writes the model with its activation, and its weights as safetensors, to the request's `export_dir`.

    Raises:
        UserError: `torch.export` does not support the model.
    """
    names = [f.name for f in request.spec.features]

    class Served(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
            served = activated(self.model(by_name(features, names)).float(), request)
            return served.flatten(1) if request.spec.output_shape else served

    example = positional({k: torch.from_numpy(v) for k, v in placeholder_batch(request.spec, 4).items()}, names)
    shapes = {k: {0: torch.export.Dim.DYNAMIC} for k in example}
    try:
        program = torch.export.export(Served().eval(), (example,), dynamic_shapes=(shapes,))
    except Exception as error:
        raise UserError(
            f"trainer.model: torch.export cannot export the model: {first_line(error)}. Keep Python control flow on "
            "tensor values, and shapes fixed to one batch size, out of forward."
        ) from error
    save_program(program, request.export_dir / MODEL_FILE, features=len(names))
    save_names(request.export_dir, names)
    save_model(model, request.export_dir / WEIGHTS)
