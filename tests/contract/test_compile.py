"""Compiled models, and memory that runs out: a fallback, or an error that says what to change."""

import pytest
import tensorflow as tf

from switchyard.components.errors import TrainingError
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer
from tests.training_requests import FRAMEWORKS, no_report

COMPILED = AcceleratorProfile("cpu", compile=True)


def torch_model(of=lambda x: x, also=lambda x: 0):
    def build_model(spec):
        import torch

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, spec.outputs)

            def forward(self, features):
                return self.layer(of(features["x"])) + also(features["x"])

        return Model()

    return build_model


def keras_model(of=None):
    def build_model(spec):
        import keras

        inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}
        x = keras.layers.Lambda(of, output_shape=(2,))(inputs["x"]) if of else inputs["x"]
        return keras.Model(inputs, keras.layers.Dense(spec.outputs)(x))

    return build_model


def much_torch(x):
    import torch

    # Two rows, as the trainer tries a model, take 64 MB; 32 rows take terabytes.
    return torch.zeros(len(x) ** 4, 1 << 20, device=x.device).sum()


def much_tensorflow(x):
    return x + tf.reduce_sum(tf.fill([tf.shape(x)[0] ** 4, 1 << 20], x[0, 0]))


@pytest.mark.parametrize(
    ("trainer", "build_model"),
    [(TensorflowTrainer, keras_model(of=much_tensorflow)), (PytorchTrainer, torch_model(also=much_torch))],
)
def test_out_of_memory_is_an_error_that_names_the_batch_size(trainer, build_model, make):
    with pytest.raises(
        TrainingError, match=r"ran out of memory on the cpu with trainer.hyperparameters.batch_size 32: .*alloc.*smaller"
    ):
        trainer().train(make(build_model=build_model), no_report)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_compiled_models_learn_the_same(trainer, make, said):
    build_model = torch_model() if trainer is PytorchTrainer else keras_model()
    as_it_is = trainer().train(make(folder="as it is", build_model=build_model, epochs=2), no_report)
    compiled = trainer().train(make(folder="compiled", build_model=build_model, epochs=2, accelerator=COMPILED), no_report)
    assert said == []
    for a, b in zip(as_it_is.history, compiled.history, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-4)


def test_without_a_compiler_pytorch_falls_back_to_eager_mode_with_a_warning(make, said, monkeypatch):
    import torch

    torch.compiler.reset()
    monkeypatch.setenv("CXX", "/there/is/no/compiler")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/there/is/no/compiler"))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    PytorchTrainer().train(make(build_model=torch_model(), epochs=1, accelerator=COMPILED), no_report)
    assert len(said) == 1
    assert "torch.compile failed for this model, falling back to eager mode" in said[0]


def test_what_xla_cannot_compile_falls_back_to_eager_mode_with_a_warning(make, said):
    build_model = keras_model(of=lambda x: tf.strings.to_number(tf.strings.as_string(x)))
    TensorflowTrainer().train(make(build_model=build_model, epochs=1, accelerator=COMPILED), no_report)
    assert len(said) == 1
    assert "XLA failed for this model, falling back to training without it" in said[0]
