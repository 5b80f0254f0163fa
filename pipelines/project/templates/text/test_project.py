"""Quick checks of this project's code, without data and training: `pytest`."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import switchyard
import tokenizer

CONFIG = switchyard.load_config(Path(__file__).parent / "pipeline.yaml")
COLUMNS = CONFIG.tokenizer.columns
TEXTS = ["", "not bad", "Not bad!", "bad " * 1000]
ROWS, OUTPUTS = len(TEXTS), 3
# What tokenizer.py makes of each text, a number, and a column whose text is one word of ten.
FEATURES = (
    *(switchyard.FeatureSpec(name, "int64", (tokenizer.LENGTH,), vocabulary_size=tokenizer.SIZE) for name in COLUMNS),
    switchyard.FeatureSpec("number", "float32", (1,)),
    switchyard.FeatureSpec("word", "int64", (1,), vocabulary_size=10),
)
SPEC = switchyard.ModelSpec(FEATURES, "multiclass", OUTPUTS, CONFIG.trainer.model_parameters)


def tokens():
    texts = {name: np.array(TEXTS, dtype=object) for name in COLUMNS}
    spec = SimpleNamespace(features=[switchyard.FeatureSpec(name, "string", (1,)) for name in COLUMNS])
    return tokenizer.build_tokenizer(spec)(texts)


def pytorch_model():
    # Before TensorFlow, beside which parts of PyTorch cannot be imported.
    import torch
    import torch_model

    return torch_model.build_model(SPEC).eval(), {name: torch.from_numpy(values) for name, values in batch().items()}


def batch():
    return {**tokens(), "number": np.ones((ROWS, 1), np.float32), "word": np.ones((ROWS, 1), np.int64)}


def test_a_word_has_the_same_index_in_every_text_and_case():
    for words in tokens().values():
        assert words.shape == (ROWS, tokenizer.LENGTH)
        assert not words[0].any()
        assert (words[1] == words[2]).all()
        assert (words[3] == words[1, 1]).all()


def test_the_pytorch_model_returns_an_output_per_class():
    model, features = pytorch_model()
    assert model(features).shape == (ROWS, OUTPUTS)


# The names of inputs are positions.
@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning")
def test_both_models_are_the_same_network():
    pytorch, _ = pytorch_model()
    import keras_model

    keras = keras_model.build_model(SPEC)
    assert keras(batch()).shape == (ROWS, OUTPUTS)
    assert keras.count_params() == sum(weight.numel() for weight in pytorch.parameters())
