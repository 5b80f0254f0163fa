import pytest

from switchyard.components.errors import TrainingError
from switchyard.components.training.hyperparameters import Hyperparameters
from switchyard.components.training.ledger import TrainingLedger, diverged


def ledger(folder, **settings):
    hyper = dict(
        epochs=10,
        steps=None,
        batch_size=1,
        learning_rate=1,
        optimizer="sgd",
        seed=0,
        patience=2,
        min_delta=0.1,
        class_weights=None,
    )
    return TrainingLedger.open(folder, Hyperparameters(**{**hyper, **settings}))


def test_training_stops_when_the_loss_does_not_improve_by_min_delta(tmp_path):
    book = ledger(tmp_path)
    best = [book.record(i, {"loss": 1, "val_loss": v}) for i, v in enumerate([1.0, 0.5, 0.45, 0.44], 1)]
    assert best == [True, True, False, False]
    assert book.best_epoch == 2
    assert book.finished


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("val_auc", [0.5, 0.7, 0.9, 0.95], 3),
        ("val_mae", [0.9, 0.7, 0.5, 0.45], 3),
        ("val_auc", [float("nan"), 0.5, float("nan"), 0.3], 2),
    ],
)
def test_the_best_epoch_is_that_of_the_monitored_metric(monitor, values, best, tmp_path):
    book = ledger(tmp_path, monitor=monitor)
    for i, value in enumerate(values, 1):
        book.record(i, {"loss": 1, "val_loss": i, monitor: value})
    assert book.best_epoch == best


def test_the_saved_ledger_survives_a_kill(tmp_path):
    book = ledger(tmp_path)
    book.record(5, {"loss": 1, "val_loss": 1})
    book.save()
    book.record(10, {"loss": 1, "val_loss": 0.1})  # not saved: the kill
    again = ledger(tmp_path)
    assert (again.epochs, again.steps, again.resumed_from_epoch) == (1, 5, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_nan_loss_ends_the_training(value, tmp_path):
    with pytest.raises(TrainingError, match="diverged: val_loss"):
        ledger(tmp_path).record(1, {"loss": 1, "val_loss": value})


@pytest.mark.parametrize(
    ("loss", "outputs", "metrics", "is_diverged"),
    [
        ("cross_entropy", 2, {"loss": 3e20, "val_loss": 5.6e28}, True),
        ("cross_entropy", 10, {"loss": 1e3, "val_loss": 1e3}, True),
        # One extreme row of the eval split, or a model that is sure of itself and wrong.
        ("cross_entropy", 2, {"loss": 0.4, "val_loss": 5.6e28}, False),
        ("cross_entropy", 2, {"loss": 2.0, "val_loss": 16.0}, False),
        # Its scale is the label's: the trivial predictor, the mean, tells.
        ("mse", 0, {"loss": 1e9, "val_loss": 1e9}, False),
    ],
)
def test_an_absurd_finite_loss_is_a_divergence(loss, outputs, metrics, is_diverged):
    assert bool(diverged(loss, outputs, metrics)) == is_diverged
