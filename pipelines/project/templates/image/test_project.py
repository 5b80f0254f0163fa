"""Quick checks of this project's code, without data and training: `pytest`."""

from pathlib import Path

import numpy as np
import pytest
import switchyard

CONFIG = switchyard.load_config(Path(__file__).parent / "pipeline.yaml")
ROWS, OUTPUTS = 4, 3
# The pictures in their sizes, a number, and a column whose text is one word of ten.
FEATURES = (
    *(
        switchyard.FeatureSpec(name, "float32", column.shape)
        for name, column in CONFIG.data.columns.items()
        if column.type == "image"
    ),
    switchyard.FeatureSpec("number", "float32", (1,)),
    switchyard.FeatureSpec("word", "int64", (1,), vocabulary_size=10),
)
SPEC = switchyard.ModelSpec(FEATURES, "multiclass", OUTPUTS, CONFIG.trainer.model_parameters)
BATCH = {feature.name: np.ones((ROWS, *feature.shape), feature.dtype) for feature in FEATURES}


def pytorch_model():
    # Before TensorFlow, beside which parts of PyTorch cannot be imported.
    import torch
    import torch_model

    return torch_model.build_model(SPEC).eval(), {name: torch.from_numpy(values) for name, values in BATCH.items()}


def test_the_pytorch_model_returns_an_output_per_class():
    model, batch = pytorch_model()
    assert model(batch).shape == (ROWS, OUTPUTS)


# The names of inputs are positions.
@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning")
def test_both_models_are_the_same_network():
    pytorch, _ = pytorch_model()
    import keras_model

    keras = keras_model.build_model(SPEC)
    assert keras(BATCH).shape == (ROWS, OUTPUTS)
    assert keras.count_params() == sum(weight.numel() for weight in pytorch.parameters())
