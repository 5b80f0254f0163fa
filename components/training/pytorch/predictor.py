"""Loads models exported by the PyTorch trainer, without Lightning. Mirrors `tensorflow/predictor.py`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from switchyard.components.import_order import hide_gpus_from_tensorflow, import_torch_first
from switchyard.components.training.contract import Predictor
from switchyard.components.training.positional import load_names, positional

import_torch_first()

import torch  # noqa: E402 (import_torch_first() must run before)
from torch.export.passes import move_to_device_pass  # noqa: E402

from switchyard.components.training.pytorch.archive import MODEL_FILE, load_program  # noqa: E402
from switchyard.components.training.pytorch.numerics import allow_tf32  # noqa: E402

_MOST_SHAPES = 10_000
# A single row does not use a second core.
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))


class PytorchPredictor:
    """The predictor that bundles refer to, so that serving does not need the training dependencies."""

    @classmethod
    def load_predictor(cls, export_dir: Path) -> Predictor:
        """See Trainer."""
        hide_gpus_from_tensorflow()
        torch.set_num_threads(THREADS)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        names = load_names(export_dir)
        program = load_program(export_dir / MODEL_FILE, features=len(names))
        if device == "cuda":
            allow_tf32(False)  # TF32 makes scores depend on the batch size
            program = move_to_device_pass(program, device)  # also moves tensors created inside the graph
        # Guards are Python source built from the archive's strings; inputs are validated before this call.
        serve = program.module(check_guards=False)
        checked: set[tuple[torch.Size, ...]] = set()

        @torch.inference_mode()
        def predict(features: Mapping[str, np.ndarray]) -> np.ndarray:
            tensors = {k: torch.tensor(v, device=device) for k, v in positional(features, names).items()}
            shapes = tuple(t.shape for t in tensors.values())
            # The module's hook checks the shapes by symbolic algebra, which takes longer than a small model.
            scores = serve.forward(tensors) if shapes in checked else serve(tensors)
            if len(checked) < _MOST_SHAPES:
                checked.add(shapes)
            return np.asarray(scores.cpu().numpy())

        return predict
