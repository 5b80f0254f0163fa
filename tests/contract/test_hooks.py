"""The optional functions of a user's model file train as the settings that they replace, in every framework."""

from pathlib import Path

import pytest

from switchyard.components.errors import UserError
from switchyard.components.training.hooks import Hooks
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer
from tests.contract.test_hyperparameters import by_hand
from tests.contract.test_losses import linear
from tests.training_requests import FRAMEWORKS, Killed, killed_at, no_report


def optimizer(trainer):
    if trainer is TensorflowTrainer:
        import keras

        return lambda model, spec: keras.optimizers.SGD(0.3)
    import torch

    return lambda model, spec: torch.optim.SGD(model.parameters(), 0.3)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_custom_optimizer_trains_as_numpy_does(trainer, make):
    request = make(build_model=linear(trainer), hooks=Hooks(build_optimizer=optimizer(trainer)), epochs=3, learning_rate=0.3)
    losses = [h["loss"] for h in trainer().train(request, no_report).history]
    assert losses == pytest.approx(by_hand(request), abs=1e-4)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_custom_optimizer_resumes(trainer, make):
    hooks = Hooks(build_optimizer=optimizer(trainer))
    whole = trainer().train(make(folder="whole", build_model=linear(trainer), hooks=hooks), no_report)

    with pytest.raises(Killed):
        trainer().train(make(folder="cut", build_model=linear(trainer), hooks=hooks), killed_at(39))
    resumed = trainer().train(make(folder="cut", build_model=linear(trainer), hooks=hooks), no_report)
    assert [h["val_loss"] for h in resumed.history] == pytest.approx([h["val_loss"] for h in whole.history], abs=1e-6)


def torch_scheduled(model, spec):
    import torch

    sgd = torch.optim.SGD(model.parameters(), 0.3)
    course = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: 1 / (1 + step))
    return {"optimizer": sgd, "lr_scheduler": {"scheduler": course, "interval": "step"}}


def keras_scheduled(model, spec):
    import keras

    return keras.optimizers.SGD(keras.optimizers.schedules.InverseTimeDecay(0.3, decay_steps=1, decay_rate=1))


def test_a_custom_schedule_gives_the_same_rates_in_both_frameworks(make):
    curves = []
    for trainer, build in zip(FRAMEWORKS, (keras_scheduled, torch_scheduled), strict=True):
        request = make(folder=trainer.name, build_model=linear(trainer), hooks=Hooks(build_optimizer=build), epochs=3)
        curves.append([h["loss"] for h in trainer().train(request, no_report).history])
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def keras_stop(seen):
    import keras

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["val_loss"])
            self.model.stop_training = len(seen) == 2

    return lambda spec: [Stop()]


def torch_stop(seen):
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(float(trainer.callback_metrics["val_loss"]))
            trainer.should_stop = len(seen) == 2

    return lambda spec: [Stop()]


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_callback_reads_the_metrics_and_stops_the_training(trainer, make):
    seen, stop = [], keras_stop if trainer is TensorflowTrainer else torch_stop
    found = trainer().train(make(hooks=Hooks(build_callbacks=stop(seen))), no_report)
    assert seen == pytest.approx([h["val_loss"] for h in found.history], abs=1e-6)
    assert found.epochs == 2
    again = trainer().train(make(hooks=Hooks(build_callbacks=stop([]))), no_report)
    assert (again.epochs, again.resumed_from_epoch) == (2, 2)


@pytest.mark.parametrize(("together", "steps"), [(1, 13), (2, 7)])
def test_keras_callbacks_see_every_step_and_the_evaluation(together, steps, make):
    import keras

    seen, batches = [], []

    class Sees(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            batches.append(batch)

        def on_test_begin(self, logs=None):
            seen.append("test")

        def on_test_end(self, logs=None):
            seen.append(logs["loss"])

        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["val_loss"])

    request = make(hooks=Hooks(build_callbacks=lambda spec: [Sees()]), epochs=2, accumulate_steps=together)
    found = TensorflowTrainer().train(request, no_report)
    first, second = (h["val_loss"] for h in found.history)
    assert seen == ["test", first, first, "test", second, second]
    assert batches == [*range(steps)] * 2


def test_lightnings_early_stopping_stops_the_training(make):
    from lightning.pytorch.callbacks import EarlyStopping

    hooks = Hooks(build_callbacks=lambda spec: [EarlyStopping("val_loss", patience=1, min_delta=10)])
    found, again = (PytorchTrainer().train(make(hooks=hooks), no_report) for _ in range(2))
    assert (found.epochs, again.epochs, again.resumed_from_epoch) == (2, 2, 2)


def test_state_that_a_resumed_training_would_refuse_ends_the_first_epoch(make):
    from lightning.pytorch.callbacks import Callback

    class Remembers(Callback):
        def state_dict(self):
            return {"best": Path("somewhere")}

    request = make(hooks=Hooks(build_callbacks=lambda spec: [Remembers()]))
    with pytest.raises(UserError, match=r"the state of its optimizer, callbacks or module holds pathlib\.\w+, which a resumed"):
        PytorchTrainer().train(request, no_report)
    assert not list(request.checkpoint_dir.glob("epoch*.ckpt"))


def test_training_resumes_from_its_own_checkpoint_beside_one_of_a_lightning_callback(make, tmp_path):
    import torch
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint

    class Saves(Callback):
        def on_train_batch_end(self, trainer, *arguments):
            if trainer.global_step % 5 == 0:
                trainer.save_checkpoint(tmp_path / "own.ckpt")

    hooks = Hooks(build_callbacks=lambda spec: [Saves(), ModelCheckpoint(tmp_path / "kept", "last")])
    request = make(hooks=hooks)
    found = PytorchTrainer().train(request, no_report)
    steps = {p: torch.load(p, weights_only=False)["global_step"] for p in (tmp_path / "own.ckpt", tmp_path / "kept/last.ckpt")}
    assert list(steps.values()) == [75, 78]
    [ours] = request.checkpoint_dir.glob("last-*")
    assert torch.load(ours, weights_only=True)["global_step"] == found.steps == 78


def test_a_custom_schedule_reads_the_metrics_of_an_epoch(make):
    import torch

    seen = []

    def plateau(model, spec):
        seen.append(torch.optim.SGD(model.parameters(), 0.3))
        course = torch.optim.lr_scheduler.ReduceLROnPlateau(seen[-1], patience=0, threshold=10, threshold_mode="abs", factor=0.5)
        return {"optimizer": seen[-1], "lr_scheduler": {"scheduler": course, "monitor": "val_loss"}}

    request = make(hooks=Hooks(build_optimizer=plateau), epochs=3)
    PytorchTrainer().train(request, no_report)
    assert seen[-1].param_groups[0]["lr"] == 0.3 / 4
    [checkpoint] = request.checkpoint_dir.glob("last-*")
    assert torch.load(checkpoint, weights_only=True)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.3 / 4


def own_metrics(trainer):
    """Returns the mean absolute error of probabilities, which is no metric of a classification."""
    if trainer is TensorflowTrainer:
        import keras

        return lambda spec: {"distance": keras.metrics.MeanAbsoluteError()}
    import torchmetrics

    return lambda spec: {"distance": torchmetrics.MeanAbsoluteError()}


@pytest.mark.parametrize("task", ["binary", "regression", "multioutput", "multilabel"])
@pytest.mark.parametrize("together", [1, 2], ids=["fit", "accumulated"])
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_metrics_of_the_users_own_are_measured_on_both_splits_from_predictions(trainer, together, task, make):
    request = make(task, hooks=Hooks(build_metrics=own_metrics(trainer)), epochs=2, patience=None, accumulate_steps=together)
    found = trainer().train(request, no_report)
    features, labels = next(iter(request.eval.batches(1000)))
    predicted = trainer.load_predictor(request.export_dir)(features)
    assert set(found.history[-1]) > {"loss", "val_loss", "distance", "val_distance"}
    distance = abs(predicted - labels.reshape(predicted.shape)).mean()
    assert found.metrics["val_distance"] == pytest.approx(distance, abs=1e-4)


@pytest.mark.parametrize("together", [1, 2], ids=["fit", "accumulated"])
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_metric_of_the_users_own_that_is_no_number_is_refused(trainer, together, make):
    def by_label(spec):
        if trainer is TensorflowTrainer:
            import keras

            return {"f1": keras.metrics.F1Score(threshold=0.5)}
        from torchmetrics.classification import MultilabelF1Score

        return {"f1": MultilabelF1Score(spec.outputs, average=None)}

    request = make("multilabel", hooks=Hooks(build_metrics=by_label), epochs=1, accumulate_steps=together)
    with pytest.raises(UserError, match=r"trainer\.model: the metric '(val_)?f1' must be one number, received .*; average it"):
        trainer().train(request, no_report)


def test_a_keras_metric_without_weights_is_refused(make):
    import keras

    from switchyard.components.training.tensorflow.metrics import metrics

    class Rows(keras.metrics.Sum):
        def update_state(self, y_true, y_pred):
            return super().update_state(y_pred)

    with pytest.raises(UserError, match="update_state of the metric 'rows' has no parameter sample_weight; add"):
        metrics(make(hooks=Hooks(build_metrics=lambda spec: {"rows": Rows()})))
    made = metrics(make(hooks=Hooks(build_metrics=lambda spec: {"rows": keras.metrics.Sum()})))
    assert made[-1].name == "rows"


@pytest.mark.parametrize("name", ["loss", "auc", "val_auc", "steps", "best_epoch", "val_mine", "a metric", "1"])
def test_a_name_that_a_training_reports_itself_is_no_name_for_a_metric(name):
    with pytest.raises(UserError, match=f"build_metrics: {name!r} is no name for a metric; use letters"):
        Hooks(build_metrics=lambda spec: {name: 1.0}).metrics(None, float)


def broken(*arguments):
    raise ValueError("nothing")


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        (Hooks(build_optimizer=lambda model, spec: "adam"), "build_optimizer must return an optimizer, received str"),
        (Hooks(build_optimizer=broken), r"build_optimizer failed: test_hooks\.py, line \d+: ValueError: nothing"),
        (Hooks(build_callbacks=lambda spec: None), "build_callbacks must return a list of Callbacks, received None"),
        (Hooks(build_metrics=broken), r"build_metrics failed: test_hooks\.py, line \d+: ValueError: nothing"),
        (Hooks(build_callbacks=broken), r"build_callbacks failed: test_hooks\.py, line \d+: ValueError: nothing"),
    ],
)
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_function_that_fails_or_returns_something_else_is_refused_before_training(trainer, hooks, message, make):
    epochs = []
    with pytest.raises(UserError, match=message):
        trainer().train(make(hooks=hooks), lambda step, metrics: epochs.append(step))
    assert epochs == []
