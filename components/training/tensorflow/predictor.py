"""What the TensorFlow trainer exported, loaded without Keras. The mirror image of `pytorch_predictor.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from switchyard.components.training.contract import Predictor
from switchyard.components.training.positional import load_names, positional


class TensorflowPredictor:
    """Named in bundles: what serves a model needs not be able to train one."""

    @classmethod
    def load_predictor(cls, export_dir: Path) -> Predictor:
        """See Trainer."""
        # Full float32 on a GPU, too: by default it rounds, and another size of a batch gives other answers.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        # The whole object, not its function alone: the variables die with it.
        names = load_names(export_dir)
        loaded = tf.saved_model.load(str(export_dir))

        def predict(features: Mapping[str, np.ndarray]) -> np.ndarray:
            return np.asarray(loaded.serve({k: tf.constant(v) for k, v in positional(features, names).items()}))

        return predict
