"""A compiled Keras model and a LightningModule are trained with their own loss, optimizer, schedule, steps and metrics."""

from dataclasses import replace

import pytest

from switchyard.components.errors import UserError
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.hooks import Hooks, may_train_itself
from switchyard.components.training.losses import named_loss
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer, _own_training
from tests.contract.test_hyperparameters import by_hand
from tests.contract.test_losses import linear
from tests.training_requests import FRAMEWORKS, Killed, killed_at, no_report

# The course of the learning rate in both models below: 0.3 / (1 + step).


def keras_model(spec):
    import keras

    model = linear(TensorflowTrainer)(spec)
    rate = keras.optimizers.schedules.InverseTimeDecay(0.3, decay_steps=1, decay_rate=1)
    model.compile(keras.optimizers.SGD(rate), keras.losses.BinaryCrossentropy(from_logits=True, name="mine"), metrics=["mse"])
    return model


def lightning_model(spec, logged="val_loss"):
    import lightning.pytorch as lightning
    import torch

    class Own(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.linear = linear(PytorchTrainer)(spec)

        def forward(self, features):
            return self.linear(features)

        def _loss(self, batch):
            features, labels = batch
            return torch.nn.functional.binary_cross_entropy_with_logits(self(features)[:, 0], labels.float())

        def training_step(self, batch, index):
            return self._loss(batch)

        def validation_step(self, batch, index):
            self.log(logged, self._loss(batch), batch_size=len(batch[1]))
            self.log("val_mse", self._loss(batch) * 2, batch_size=len(batch[1]))

        def configure_optimizers(self):
            sgd = torch.optim.SGD(self.parameters(), 0.3)
            course = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: 1 / (1 + step))
            return {"optimizer": sgd, "lr_scheduler": {"scheduler": course, "interval": "step"}}

    return Own()


BUILD = {TensorflowTrainer: keras_model, PytorchTrainer: lightning_model}
# The settings' own defaults; the fixture has others, with which these models are refused.
PLAIN = {"learning_rate": 0.001, "epochs": 3}


def curve(request, monkeypatch):
    """Returns the losses by NumPy, with the models' schedule."""
    monkeypatch.setattr("tests.contract.test_hyperparameters.factor", lambda np, schedule, step, total, warmup: 1 / (1 + step))
    return by_hand(replace(request, hyperparameters=replace(request.hyperparameters, learning_rate=0.3)))


@pytest.mark.core
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_model_with_a_training_of_its_own_is_trained_by_it(trainer, make, monkeypatch):
    request = make(build_model=BUILD[trainer], **PLAIN)
    found = trainer().train(request, no_report)
    assert [h["loss"] for h in found.history] == pytest.approx(curve(request, monkeypatch), abs=1e-4)
    assert "val_mse" in found.metrics
    assert found.used["optimizer"] == "SGD"
    assert found.used["schedule"] == ("InverseTimeDecay" if trainer is TensorflowTrainer else "LambdaLR")
    assert found.used["loss"] == ("mine" if trainer is TensorflowTrainer else "Own.training_step")
    features, labels = next(iter(request.eval.batches(1000)))
    predicted = trainer.load_predictor(request.export_dir)(features)
    assert ((predicted[:, 0] > 0.5) == labels).mean() > 0.7


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_training_of_a_models_own_resumes(trainer, make):
    whole = trainer().train(make(folder="whole", build_model=BUILD[trainer], **PLAIN), no_report)

    with pytest.raises(Killed):
        trainer().train(make(folder="cut", build_model=BUILD[trainer], **PLAIN), killed_at(26))
    resumed = trainer().train(make(folder="cut", build_model=BUILD[trainer], **PLAIN), no_report)
    assert resumed.resumed_from_epoch in (1, 2)
    assert [h["val_loss"] for h in resumed.history] == pytest.approx([h["val_loss"] for h in whole.history], abs=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": 0.1}, r"trainer\.hyperparameters\.learning_rate: received 0\.1, and build_model returned a "),
        ({"clip_norm": 1.0}, r"trainer\.hyperparameters\.clip_norm: received 1\.0"),
        ({"accumulate_steps": 2}, r"trainer\.hyperparameters\.accumulate_steps: received 2"),
        ({"class_weights": (1.0, 2.0)}, r"trainer\.hyperparameters\.class_weights: received"),
        ({"loss": named_loss("binary", "focal")}, r"trainer\.loss: received 'focal'"),
        ({"hooks": Hooks(build_optimizer=len)}, r"build_optimizer is not used, as build_model returned a "),
    ],
)
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_setting_that_a_training_of_a_models_own_does_not_follow_is_refused(trainer, given, message, make):
    with pytest.raises(UserError, match=message):
        trainer().train(make(build_model=BUILD[trainer], **{**PLAIN, **given}), no_report)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_early_stopping_by_a_metric_that_the_model_does_not_measure_is_refused(trainer, make):
    with pytest.raises(UserError, match=r"early_stopping\.metric: 'val_auc' is not measured by the model, whose metrics are "):
        trainer().train(make(build_model=BUILD[trainer], monitor="val_auc", **PLAIN), no_report)


def test_a_lightning_module_that_logs_no_val_loss_is_refused(make):
    with pytest.raises(UserError, match="the LightningModule logs no val_loss"):
        PytorchTrainer().train(make(build_model=lambda spec: lightning_model(spec, "val_los"), **PLAIN), no_report)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_training_of_a_models_own_is_in_the_precision_of_the_config(trainer, make):
    dtypes = set()

    def build(spec):
        model = BUILD[trainer](spec)
        if trainer is TensorflowTrainer:
            dtypes.add(model.compute_dtype)
        else:
            model.linear.register_forward_hook(lambda module, given, output: dtypes.add(str(output.dtype).removeprefix("torch.")))
        return model

    request = make(build_model=build, accelerator=AcceleratorProfile("cpu", 1, "bf16"), **PLAIN)
    assert trainer().train(request, no_report).metrics["val_loss"] < 0.7
    assert "bfloat16" in dtypes


def test_a_compiled_model_in_fp16_has_the_learning_rate_of_the_optimizer_inside(make):
    import keras

    model = linear(TensorflowTrainer)(make(**PLAIN).spec)
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.25)), "mse")
    assert _own_training(model) == {"loss": "mse", "optimizer": "SGD", "learning_rate": 0.25}


def test_the_results_of_compute_metrics_of_a_models_own_are_measured(make):
    import keras

    class Measured(keras.Model):
        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            return {**super().compute_metrics(x, y, y_pred, sample_weight), "two": 2.0}

    def build(spec):
        inner = keras_model(spec)
        model = Measured(inner.inputs, inner.outputs)
        model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
        return model

    assert TensorflowTrainer().train(make(build_model=build, **PLAIN), no_report).metrics["val_two"] == 2


def test_a_lightning_module_may_save_its_hyperparameters(make):
    def build(spec):
        model = lightning_model(spec)
        model.save_hyperparameters({"spec": spec, "width": 8})
        return model

    assert PytorchTrainer().train(make(build_model=build, **PLAIN), no_report).epochs == 3


def test_a_metric_of_a_compiled_model_that_is_no_number_is_refused(make):
    import keras

    def build(spec):
        model = linear(TensorflowTrainer)(spec)
        of_both = keras.metrics.F1Score(average=None, threshold=0.5)
        of_both.result = lambda: keras.ops.zeros((2,))
        model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True), metrics=[of_both])
        return model

    with pytest.raises(UserError, match=r"the metric 'f1_score' must be one number, received .*; average it"):
        TensorflowTrainer().train(make(build_model=build, **PLAIN), no_report)


def test_averages_of_weights_that_the_exported_epoch_would_lack_are_refused(make):
    import keras
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    averages = Hooks(build_optimizer=lambda model, spec: keras.optimizers.SGD(0.1, use_ema=True))
    with pytest.raises(UserError, match="with use_ema Keras replaces the weights after the last epoch"):
        TensorflowTrainer().train(make(hooks=averages), no_report)
    averages = Hooks(build_callbacks=lambda spec: [StochasticWeightAveraging(0.1)])
    with pytest.raises(UserError, match="StochasticWeightAveraging replaces the weights after the last epoch"):
        PytorchTrainer().train(make(hooks=averages), no_report)


@pytest.mark.parametrize("steps", [None, 20])
def test_a_lightning_module_knows_the_number_of_steps(make, steps):
    """As `OneCycleLR` needs it, also when the last epoch is cut by `steps`."""
    import torch

    totals = []

    def build(spec):
        class Own(type(lightning_model(spec))):
            def configure_optimizers(self):
                sgd = torch.optim.SGD(self.parameters(), 0.1)
                totals.append(self.trainer.estimated_stepping_batches)
                course = torch.optim.lr_scheduler.OneCycleLR(sgd, 0.3, total_steps=totals[-1])
                return {"optimizer": sgd, "lr_scheduler": {"scheduler": course, "interval": "step"}}

        return Own()

    found = PytorchTrainer().train(make(build_model=build, **PLAIN, steps=steps), no_report)
    assert totals[-1] == found.steps == (steps or 39)
    assert found.used["schedule"] == "OneCycleLR"


@pytest.mark.parametrize("resumed", [False, True])
def test_a_step_of_a_lightning_module_with_two_optimizers_is_a_batch(make, resumed):
    import torch

    def build(spec):
        class Own(type(lightning_model(spec))):
            def __init__(self):
                super().__init__()
                self.automatic_optimization = False

            def training_step(self, batch, index):
                loss = self._loss(batch)
                for optimizer in self.optimizers():
                    optimizer.zero_grad()
                self.manual_backward(loss)
                for optimizer in self.optimizers():
                    optimizer.step()
                return loss

            def configure_optimizers(self):
                weight, bias = self.parameters()
                return [torch.optim.SGD([weight], 0.3), torch.optim.SGD([bias], 0.3)]

        return Own()

    request = make(build_model=build, **PLAIN, steps=30)
    if resumed:
        with pytest.raises(Killed):
            PytorchTrainer().train(request, killed_at(26))
    found = PytorchTrainer().train(request, no_report)
    assert (found.steps, len(found.history)) == (30, 3)


def test_the_learning_rate_of_a_lightning_module_is_recorded_as_a_number(make):
    import torch

    def build(spec):
        model = lightning_model(spec)
        type(model).configure_optimizers = lambda self: torch.optim.SGD(self.parameters(), torch.tensor(0.25))
        return model

    assert PytorchTrainer().train(make(build_model=build, **PLAIN), no_report).used["learning_rate"] == 0.25


def test_a_lightning_module_with_data_of_its_own_is_refused(make):
    def build(spec):
        model = lightning_model(spec)
        type(model).train_dataloader = lambda self: []
        return model

    with pytest.raises(UserError, match=r"a model with its own train_dataloader, which the trainer would ignore. Remove it"):
        PytorchTrainer().train(make(build_model=build, **PLAIN), no_report)


def test_a_file_with_a_compiled_model_or_a_lightning_module_is_known_without_an_import(tmp_path):
    (tmp_path / "a.py").write_text("def build_model(spec):\n    model.compile('sgd')\n")
    (tmp_path / "b.py").write_text("import lightning\nclass A(lightning.LightningModule): ...\n")
    (tmp_path / "c.py").write_text("def build_model(spec): ...\n")
    (tmp_path / "d.py").write_text("from nets.b import A as B\n\ndef build_model(spec): ...\n")
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "b.py").write_text("import d\nfrom c import build_model\nfrom . import last\n")
    assert not may_train_itself(tmp_path / "d.py")
    (tmp_path / "nets" / "last.py").write_text("from lightning.pytorch import LightningModule as Module\n")
    assert [may_train_itself(tmp_path / f"{name}.py") for name in "abcd"] == [True, True, False, True]
    assert not may_train_itself(None)
