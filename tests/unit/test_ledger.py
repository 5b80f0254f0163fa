import pytest

from components.errors import TrainingError
from components.training.contract import Hyperparameters
from components.training.ledger import TrainingLedger


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


def test_training_stops_when_the_loss_has_not_become_better_by_min_delta(tmp_path):
    book = ledger(tmp_path)
    best = [book.record(i, {"loss": 1, "val_loss": v}) for i, v in enumerate([1.0, 0.5, 0.45, 0.44], 1)]
    assert best == [True, True, False, False]
    assert book.best_epoch == 2
    assert book.finished


def test_what_was_saved_survives_a_kill(tmp_path):
    book = ledger(tmp_path)
    book.record(5, {"loss": 1, "val_loss": 1})
    book.save()
    book.record(10, {"loss": 1, "val_loss": 0.1})  # not saved: the kill
    again = ledger(tmp_path)
    assert (again.epochs, again.steps, again.resumed_from_epoch) == (1, 5, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training(value, tmp_path):
    with pytest.raises(TrainingError, match="diverged: val_loss"):
        ledger(tmp_path).record(1, {"loss": 1, "val_loss": value})
