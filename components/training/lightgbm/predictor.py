"""Loads models exported by the LightGBM trainer. Mirrors `pytorch/predictor.py`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from switchyard.components.training.contract import Predictor
from switchyard.components.training.lightgbm.columns import table
from switchyard.components.training.lightgbm.library import lightgbm
from switchyard.components.training.lightgbm.model_file import FILE, load_model
from switchyard.components.training.positional import load_names

# A single row does not use a second core.
_THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))


class LightgbmPredictor:
    """The predictor that bundles refer to."""

    @classmethod
    def load_predictor(cls, export_dir: Path) -> Predictor:
        """See Trainer."""
        names = load_names(export_dir)
        booster = lightgbm.Booster(model_str=load_model(export_dir / FILE))

        def predict(features: Mapping[str, np.ndarray]) -> np.ndarray:
            rows = table(features, names)
            scores = booster.predict(rows, num_threads=_THREADS)
            return np.asarray(scores, dtype=np.float32).reshape(len(rows), -1)

        return predict
