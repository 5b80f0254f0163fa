"""User models: both frameworks refuse one before training if it cannot be trained, exported or served."""

import keras
import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from switchyard.components.errors import UserError
from switchyard.components.failure import classify
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer
from switchyard.components.user_code.loading import load_function
from tests.training_requests import FRAMEWORKS, TASKS, no_report


class Net(nn.Module):
    def __init__(self, spec, finish=None, before=None):
        super().__init__()
        self.layer = nn.Linear(3, spec.outputs)
        self.before = before or nn.Identity()
        self.finish = finish or (lambda x: x)

    def forward(self, features):
        x = self.before(torch.cat([features["x"], features["word"].float()], 1))
        return self.finish(self.layer(x))


def torch_model(finish):
    return lambda spec: Net(spec, finish)


def keras_model(finish):
    def build(spec):
        inputs = {f.name: keras.Input(f.shape, name=f.name, dtype=f.dtype) for f in spec.features}
        x = keras.layers.Concatenate()([inputs["x"], keras.ops.cast(inputs["word"], "float32")])
        return keras.Model(inputs, finish(keras.layers.Dense(spec.outputs)(x)))

    return build


def refusal(trainer, request):
    """Returns why the model is refused; nothing was trained before."""
    epochs = []
    with pytest.raises(UserError) as refused:
        trainer().train(request, lambda step, metrics: epochs.append(step))
    assert epochs == []
    return str(refused.value)


ENDS = {
    "torch layer": (PytorchTrainer, torch_model(nn.Sigmoid()), "binary", "ends in sigmoid"),
    "torch function": (PytorchTrainer, torch_model(torch.sigmoid), "binary", "ends in sigmoid"),
    "torch, reshaped": (
        PytorchTrainer,
        torch_model(lambda x: torch.sigmoid(x).squeeze(1).unsqueeze(1)),
        "binary",
        "ends in sigmoid",
    ),
    "torch, by hand": (PytorchTrainer, torch_model(lambda x: 1 / (1 + torch.exp(-x))), "binary", "probabilities (0 to 1"),
    "torch, one class": (PytorchTrainer, torch_model(functional.relu), "binary", "ends in relu"),
    "torch softmax": (PytorchTrainer, torch_model(nn.Softmax(dim=1)), "multiclass", "ends in softmax"),
    "torch softmax by hand": (
        PytorchTrainer,
        torch_model(lambda x: x.exp() / x.exp().sum(1, keepdim=True)),
        "multiclass",
        "probabilities (all rows",
    ),
    "torch regression": (PytorchTrainer, torch_model(torch.sigmoid), "regression", "of 256 labels lie outside"),
    "keras layer": (TensorflowTrainer, keras_model(keras.layers.Activation("sigmoid")), "binary", "ends in sigmoid"),
    "keras function": (TensorflowTrainer, keras_model(keras.ops.sigmoid), "binary", "ends in sigmoid"),
    "keras, reshaped": (
        TensorflowTrainer,
        keras_model(lambda x: keras.layers.Reshape((1,))(keras.ops.sigmoid(x))),
        "binary",
        "ends in sigmoid",
    ),
    "keras, by hand": (TensorflowTrainer, keras_model(lambda x: 1 / (1 + keras.ops.exp(-x))), "binary", "probabilities (0 to 1"),
    "keras, one class": (TensorflowTrainer, keras_model(keras.layers.ReLU()), "binary", "ends in relu"),
    "keras softmax": (TensorflowTrainer, keras_model(keras.layers.Softmax()), "multiclass", "ends in softmax"),
    "keras regression": (TensorflowTrainer, keras_model(keras.ops.sigmoid), "regression", "of 256 labels lie outside"),
}


@pytest.mark.core
@pytest.mark.parametrize("name", ENDS)
def test_a_model_that_gives_no_logits_is_refused(name, make):
    trainer, build, task, message = ENDS[name]
    assert message in refusal(trainer, make(task, build_model=build))


FINE = {
    "torch, a logarithm of a softmax": (PytorchTrainer, torch_model(nn.LogSoftmax(dim=1)), "multiclass"),
    "torch, small and positive": (PytorchTrainer, torch_model(lambda x: x.tanh() * 0.01 + 0.5), "binary"),
    "keras, small and positive": (TensorflowTrainer, keras_model(lambda x: keras.ops.tanh(x) * 0.01 + 0.5), "binary"),
}


@pytest.mark.parametrize("name", FINE)
def test_logits_that_resemble_probabilities_are_accepted(name, make):
    trainer, build, task = FINE[name]
    assert trainer().train(make(task, build_model=build, epochs=1), no_report).epochs == 1


def eager(spec):
    model = keras_model(lambda x: x)(spec)
    model.compile(optimizer="sgd", loss=keras.losses.BinaryFocalCrossentropy(from_logits=True), run_eagerly=True)
    return model


class Lightning(lightning.LightningModule):
    def __init__(self, spec):
        super().__init__()
        self.net = Net(spec)

    def forward(self, features):
        return self.net(features)


class WithSteps(Lightning):
    def training_step(self, batch, index):
        return 2 * functional.binary_cross_entropy_with_logits(self(batch[0])[:, 0], batch[1].float())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)


class WithHook(Lightning):
    def on_train_epoch_end(self):
        raise AssertionError


class PlainWithStep(Net):
    def training_step(self, batch, index):
        raise AssertionError


@pytest.mark.core
@pytest.mark.parametrize(
    ("trainer", "build", "parts"),
    [
        (TensorflowTrainer, eager, "its own run_eagerly, which"),
        (
            PytorchTrainer,
            WithSteps,
            "the LightningModule has a training_step and no validation_step; define it",
        ),
        (PytorchTrainer, WithHook, "its own on_train_epoch_end, which"),
        (PytorchTrainer, PlainWithStep, "its own training_step, which"),
    ],
)
def test_a_part_of_a_training_of_a_models_own_is_refused(trainer, build, parts, make):
    assert parts in refusal(trainer, make(build_model=build, learning_rate=0.001))


def test_a_keras_model_with_its_own_step_is_refused_where_the_step_is_not_called(make):
    class OwnStep(keras.Model):
        def train_step(self, data):
            raise AssertionError

    def build(spec):
        plain = keras_model(lambda x: x)(spec)
        return OwnStep(plain.inputs, plain.outputs[0])

    message = refusal(TensorflowTrainer, make(build_model=build, accumulate_steps=2))
    assert "its own train_step (on a TPU, on several devices, or with accumulate_steps), which" in message


def test_a_lightning_module_that_only_computes_is_a_module_like_any_other(make):
    assert PytorchTrainer().train(make(build_model=Lightning, epochs=1), no_report).epochs == 1


class Branching(Net):
    def forward(self, features):
        output = super().forward(features)
        return output if output.sum().item() > -1e9 else -output


class OnlyPython(keras.Model):
    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(1)

    def call(self, features):
        if isinstance(features["x"], np.ndarray) or hasattr(features["x"], "numpy"):
            return self.layer(keras.ops.convert_to_tensor(features["x"]))
        raise TypeError("numbers are needed")


@pytest.mark.core
@pytest.mark.parametrize(
    ("trainer", "build", "message"),
    [
        (PytorchTrainer, Branching, "torch.export cannot export the model"),
        (TensorflowTrainer, lambda spec: OnlyPython(), "numbers are needed"),
    ],
)
def test_a_model_that_cannot_be_exported_is_refused_before_it_is_trained(trainer, build, message, make):
    assert message in refusal(trainer, make(build_model=build))


class Picky(Net):
    def forward(self, features):
        if features["x"].abs().max() > 0:
            raise ValueError("only zeros")
        return super().forward(features)


def test_a_model_that_fails_on_real_rows_is_refused_with_the_line(make):
    message = refusal(PytorchTrainer, make(build_model=Picky))
    assert "fails on the first rows of the training data" in message
    assert "ValueError: only zeros" in message


def torch_batch_norm(spec):
    return Net(spec, before=nn.BatchNorm1d(3))


def keras_batch_norm(spec):
    inputs = {f.name: keras.Input(f.shape, name=f.name, dtype=f.dtype) for f in spec.features}
    x = keras.layers.Concatenate()([inputs["x"], keras.ops.cast(inputs["word"], "float32")])
    return keras.Model(inputs, keras.layers.Dense(spec.outputs)(keras.layers.BatchNormalization()(x)))


@pytest.mark.core
@pytest.mark.parametrize(("trainer", "build"), [(TensorflowTrainer, keras_batch_norm), (PytorchTrainer, torch_batch_norm)])
def test_a_last_batch_of_one_row_is_trained_beside_batch_normalization(trainer, build, make):
    request = make(build_model=build, batch_size=57, epochs=6)
    assert request.train.rows % 57 == 1
    result = trainer().train(request, no_report)
    assert result.steps == 6 * 8
    assert result.metrics["val_auc"] > 0.6


def test_one_row_leaves_the_statistics_of_batch_normalization_as_they_are():
    from switchyard.components.training.pytorch.steps import batch_norm_at_rest

    layer = nn.BatchNorm1d(3)
    layer(torch.randn(50, 3))
    before = layer.running_var.clone()
    with batch_norm_at_rest(nn.Sequential(layer)):
        assert layer(torch.randn(1, 3)).isfinite().all()
    assert torch.equal(layer.running_var, before)
    assert layer.training


@pytest.mark.parametrize("trainer", FRAMEWORKS)
@pytest.mark.parametrize("task", TASKS)
def test_inspecting_a_model_does_not_change_its_training(trainer, task, make, monkeypatch):
    build = (torch_model if trainer is PytorchTrainer else keras_model)(lambda x: x)
    looked_at = trainer().train(make(task, folder="a", build_model=build, epochs=2), no_report)
    monkeypatch.setattr(trainer, "_try_out", lambda *arguments, **named: None)
    not_looked_at = trainer().train(make(task, folder="b", build_model=build, epochs=2), no_report)
    assert looked_at.history == not_looked_at.history


@pytest.mark.core
def test_a_large_step_takes_all_cores_and_a_small_one_a_single_thread(monkeypatch):
    from switchyard.components.training.pytorch import trainer as pytorch_trainer

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pytorch_trainer.joblib, "cpu_count", lambda: 8)
    assert pytorch_trainer.threads(nn.Linear(100, 100), 64) == 1
    assert pytorch_trainer.threads(nn.Linear(1000, 1000), 64) == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(pytorch_trainer, "THREADS", 3)
    assert pytorch_trainer.threads(nn.Linear(1000, 1000), 64) == 3


def words_only(finish):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(4, 1)

        def forward(self, features):
            return finish(self.embedding(features["word"])[:, 0])

    return lambda spec: Words()


def test_probabilities_found_only_in_training_are_refused_before_the_export(make):
    """Indices cannot be scaled up, and nothing says what a formula of one's own is."""
    request = make(build_model=words_only(lambda x: 1 / (1 + torch.exp(-x))), epochs=60, learning_rate=2.0)
    with pytest.raises(UserError, match="ends in probabilities"):
        PytorchTrainer().train(request, no_report)
    assert PytorchTrainer().train(make(folder="b", build_model=words_only(lambda x: x), epochs=30), no_report).epochs == 30


FAILING = {
    "keras": (
        "import keras\n"
        "class Model(keras.Model):\n"
        "    def __init__(self):\n        super().__init__()\n        self.layer = keras.layers.Dense(1)\n"
        "    def call(self, features, training=False):\n"
        "        if training:\n            {raising}\n"
        "        return self.layer(features['x'])\n"
        "def build_model(spec):\n    return Model()\n"
    ),
    "pytorch": (
        "import torch\n"
        "class Model(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.layer = torch.nn.Linear(2, 1)\n"
        "    def forward(self, features):\n"
        "        if self.training:\n            {raising}\n"
        "        return self.layer(features['x'])\n"
        "def build_model(spec):\n    return Model()\n"
    ),
}


@pytest.mark.parametrize("raising", ["raise ValueError('no such luck')", "import sys; sys.exit(3)"], ids=["error", "exit"])
@pytest.mark.parametrize(("framework", "trainer"), [("keras", TensorflowTrainer), ("pytorch", PytorchTrainer)])
def test_a_model_that_fails_in_training_is_a_user_error_with_its_line(framework, trainer, raising, make, tmp_path):
    (tmp_path / "mine.py").write_text(FAILING[framework].format(raising=raising))
    request = make(build_model=load_function(str(tmp_path / "mine.py"), "build_model"))
    with pytest.raises((Exception, SystemExit), match=r"no such luck|^3$|line 8") as caught:
        trainer().train(request, no_report)
    found = classify(caught.value, None)
    message = found.message
    assert found.kind == "user"
    assert "mine.py, line 8" in message
    assert ("no such luck" if "luck" in raising else "SystemExit") in message
    assert "\n" not in message
