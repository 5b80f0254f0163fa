"""Pictures of three noisy patterns, 28 by 28, for convolutions."""

import numpy as np

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.training.model_spec import ModelSpec
from tests.training_inputs import in_memory

SPEC = ModelSpec((FeatureSpec("image", "float32", (28, 28, 1)),), "multiclass", 3)


def images(rows, seed):
    """Returns an example source."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 3, size=rows)
    patterns = np.random.default_rng(0).normal(size=(3, 28, 28, 1))
    image = (patterns[label] + random.normal(size=(rows, 28, 28, 1)) * 2).astype(np.float32)
    return in_memory({"image": image}, label, SPEC.features)
