"""Loads models exported by the TensorFlow trainer, without Keras. Mirrors `pytorch/predictor.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from switchyard.components.training.contract import Predictor
from switchyard.components.training.positional import load_names, positional


class TensorflowPredictor:
    """The predictor that bundles refer to, so that serving does not need the training dependencies."""

    @classmethod
    def load_predictor(cls, export_dir: Path) -> Predictor:
        """See Trainer."""
        # Full float32 also on GPUs: by default TensorFlow uses TF32, which makes scores depend on the batch size.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        # The loaded object is kept, not only its function: it owns the variables.
        names = load_names(export_dir)
        loaded = tf.saved_model.load(str(export_dir))

        def predict(features: Mapping[str, np.ndarray]) -> np.ndarray:
            return np.asarray(loaded.serve({k: tf.constant(v) for k, v in positional(features, names).items()}))

        return predict
