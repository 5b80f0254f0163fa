"""A training starts from the weights of a version, and leaves frozen ones as they are, in both frameworks alike."""

from dataclasses import replace

import numpy as np
import pytest

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.training.start import WEIGHTS, Start, read_weights
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer
from switchyard.components.training.vocabularies import Vocabulary, moved
from tests.training_requests import FRAMEWORKS, Killed, killed_at, no_report

WORDS = np.arange(4)[:, np.newaxis]
NUMBERS = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)


def build(trainer):
    """Returns a `build_model`: an encoder with batch normalization, and a head."""

    def keras_model(spec):
        import keras

        inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}
        encoder = keras.Sequential(
            [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.ReLU()], name="encoder"
        )
        return keras.Model(inputs, keras.layers.Dense(spec.outputs, name=spec.parameters["head"])(encoder(inputs["x"])))

    def torch_model(spec):
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU())
                self.add_module(spec.parameters["head"], nn.Linear(8, spec.outputs))

            def forward(self, features):
                return getattr(self, spec.parameters["head"])(self.encoder(features["x"]))

        return Net()

    return keras_model if trainer is TensorflowTrainer else torch_model


def with_head(make, name="head"):
    return replace(make().spec, parameters={"head": name})


def trained(trainer, request, **changes):
    """Returns the weights after a training."""
    trainer().train(replace(request, **changes), no_report)
    return read_weights(request.export_dir / WEIGHTS)


def start(request, how=None, **more):
    return Start("taxi version 3", request.export_dir / WEIGHTS, {"word": how} if how else {}, **more)


def scores(trainer, request, words):
    return trainer.load_predictor(request.export_dir)({"word": words, "x": NUMBERS})


@pytest.mark.core
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_without_a_step_the_scores_are_those_of_the_version(trainer, make):
    first, second = make(folder="first", epochs=2), make(folder="second", epochs=1, learning_rate=0.0)
    trained(trainer, first)
    trained(trainer, second, start=start(first))
    np.testing.assert_array_equal(scores(trainer, first, WORDS), scores(trainer, second, WORDS))


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_vocabulary_that_grew_keeps_the_rows_of_its_words(trainer, make):
    spec = ModelSpec((FeatureSpec("word", "int64", (1,), 30), FeatureSpec("x", "float32", (2,))), "binary", 1)
    first, second = make(folder="first", epochs=2), make(folder="second", spec=spec, epochs=1, learning_rate=0.0)
    trained(trainer, first)
    how = moved(Vocabulary(4, ("a", "b", "c")), Vocabulary(30, ("d", "c", "b", "a", *map(str, range(25)))))
    trained(trainer, second, start=start(first, how))
    # a, b, c and an unknown word.
    now = np.array([[3], [2], [1], [29]])
    np.testing.assert_allclose(scores(trainer, first, WORDS), scores(trainer, second, now), rtol=1e-6)


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_frozen_weights_stay_to_the_bit_and_so_do_their_statistics(trainer, together, make):
    spec, own = with_head(make), build(trainer)
    first = make(folder="first", epochs=1, spec=spec, build_model=own)
    before = trained(trainer, first)
    second = make(folder="second", epochs=2, spec=spec, build_model=own, accumulate_steps=together)
    after = trained(trainer, second, start=start(first), freeze=("encoder*",))
    assert before.keys() == after.keys()
    assert len(before) >= 8
    for name in before:
        assert np.array_equal(before[name], after[name]) == name.startswith("encoder"), name


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_another_model_is_refused_unless_its_new_weights_are_listed(trainer, make):
    own = build(trainer)
    first = make(folder="first", epochs=1, spec=with_head(make), build_model=own)
    before = trained(trainer, first)
    second = make(folder="second", epochs=1, learning_rate=0.0, spec=with_head(make, "other"), build_model=own)
    with pytest.raises(UserError, match=r"only in the model: other.*, other.*; only in the version: head.*, head"):
        trained(trainer, second, start=start(first))
    after = trained(trainer, second, start=start(first, initialize=("other*", "head*")))
    kept = [name for name in after if name in before and "moving" not in name and "running" not in name and "num_" not in name]
    assert len(kept) >= 4
    assert all(np.array_equal(before[name], after[name]) for name in kept)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_pattern_without_a_weight_is_refused_and_so_is_freezing_all(trainer, make):
    with pytest.raises(UserError, match=r"trainer.freeze: 'nothing\*' matches no weight; the weights: "):
        trained(trainer, make(), freeze=("nothing*",))
    with pytest.raises(UserError, match=r"trainer.freeze: .* freezes all 7 weights"):
        trained(trainer, make(), freeze=("*",))


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_killed_training_resumes_from_its_own_weights(trainer, make):
    own = {"spec": with_head(make), "build_model": build(trainer)}
    first = make(folder="first", epochs=1, **own)
    trained(trainer, first)
    whole = trainer().train(replace(make(folder="whole", epochs=3, **own), start=start(first)), no_report)
    cut = replace(make(folder="cut", epochs=3, **own), start=start(first))
    with pytest.raises(Killed):
        trainer().train(cut, killed_at(26))
    resumed = trainer().train(cut, no_report)
    assert resumed.resumed_from_epoch > 0
    assert [h["val_loss"] for h in resumed.history] == pytest.approx([h["val_loss"] for h in whole.history], abs=1e-6)


def test_a_weight_with_two_names_is_stored_once_and_found_under_both(make):
    import torch
    from torch import nn

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.out = nn.Linear(2, 2), nn.Linear(2, 1)
            self.two = self.one

        def forward(self, features):
            return self.out(self.two(torch.tanh(self.one(features["x"]))))

    first, second = (
        make(folder="first", build_model=lambda spec: Tied(), epochs=1),
        make(folder="second", epochs=1, learning_rate=0.0),
    )
    trained(PytorchTrainer, first)
    trained(PytorchTrainer, second, build_model=first.build_model, start=start(first))
    np.testing.assert_array_equal(scores(PytorchTrainer, first, WORDS), scores(PytorchTrainer, second, WORDS))
