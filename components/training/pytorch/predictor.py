"""What the PyTorch trainer exported, loaded without Lightning. The mirror image of `tensorflow_predictor.py`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from switchyard.components.import_order import import_torch_first
from switchyard.components.training.contract import Predictor
from switchyard.components.training.positional import load_names, positional

import_torch_first()

import torch  # noqa: E402 (after Triton's matter is settled)
from torch.export.passes import move_to_device_pass  # noqa: E402

from switchyard.components.training.pytorch.archive import MODEL_FILE, load_program  # noqa: E402
from switchyard.components.training.pytorch.numerics import allow_tf32  # noqa: E402

_log = logging.getLogger(__name__)
# One row at a time keeps no second core busy.
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))


class PytorchPredictor:
    """Named in bundles: what serves a model needs not be able to train one."""

    @classmethod
    def load_predictor(cls, export_dir: Path) -> Predictor:
        """See Trainer."""
        _hide_gpus_from_tensorflow()
        torch.set_num_threads(THREADS)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        names = load_names(export_dir)
        program = load_program(export_dir / MODEL_FILE, features=len(names))
        if device == "cuda":
            allow_tf32(False)  # another size of a batch would give other answers
            program = move_to_device_pass(program, device)  # tensors that its code makes, too
        # Guards are Python source that is made of the archive's texts; what is asked is checked before it comes here.
        serve = program.module(check_guards=False)

        @torch.inference_mode()
        def predict(features: Mapping[str, np.ndarray]) -> np.ndarray:
            tensors = {k: torch.tensor(v, device=device) for k, v in positional(features, names).items()}
            return np.asarray(serve(tensors).cpu().numpy())

        return predict


def _hide_gpus_from_tensorflow() -> None:
    """TensorFlow transforms what is asked, where a bundle is loaded; the GPUs' memory is PyTorch's."""
    tf = sys.modules.get("tensorflow")
    if tf is None:
        return
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        # Someone else's process, which has used TensorFlow already: it keeps what it took.
        _log.warning("TensorFlow was used before; it may hold GPU memory that PyTorch could use")
