"""Checkpoints are written beside the next epoch."""

import threading

import pytest

from switchyard.components.training.beside import Beside
from switchyard.components.training.hyperparameters import Hyperparameters
from switchyard.components.training.ledger import TrainingLedger


@pytest.mark.core
def test_a_write_runs_beside_what_follows_and_the_next_one_waits_for_it():
    released, done = threading.Event(), []

    def slow():
        released.wait(30)
        done.append("first")

    with Beside() as writer:
        writer.submit(slow)
        assert not done
        released.set()
        writer.submit(lambda: done.append("second"))
        assert done[0] == "first"
    assert done == ["first", "second"], "the end of the block waits"


@pytest.mark.core
def test_the_error_of_a_write_is_raised():
    def fail():
        raise OSError("no space left")

    writer = Beside()
    writer.submit(fail)
    with pytest.raises(OSError, match="no space left"):
        writer.submit(lambda: None)
    with pytest.raises(OSError, match="no space left"), Beside() as other:
        other.submit(fail)


@pytest.mark.core
@pytest.mark.parametrize("links", [True, False])
def test_the_best_epoch_is_a_link_to_its_checkpoint_or_a_copy(links, tmp_path, monkeypatch):
    if not links:

        def refuse(*_):
            raise OSError("no hard links")

        monkeypatch.setattr("os.link", refuse)
    ledger = TrainingLedger(tmp_path, Hyperparameters(9, None, 32, 0.1, "adam", 1, None, 0.0, None))
    for epoch, loss in enumerate((0.5, 0.3, 0.4), start=1):
        ledger.record(epoch, {"loss": loss, "val_loss": loss})
        ledger.last(".weights.h5").write_text(f"epoch {epoch}")
        ledger.copy().save()
        ledger.copy().save()  # as after a kill behind it
    assert ledger.best(".weights.h5").read_text() == "epoch 2"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["best-2.weights.h5", "last-3.weights.h5", "ledger.json"]
