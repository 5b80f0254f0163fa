"""Schedules, weight decay and clipping: the same weights in every framework, and as NumPy computes them."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from switchyard.components.errors import UserError
from switchyard.components.training.examples import Examples
from switchyard.components.training.schedule import factor
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer
from tests.contract.sklearn_trainer import SklearnTrainer
from tests.contract.test_losses import linear
from tests.training_requests import FRAMEWORKS, Killed, killed_at, no_report

EPOCHS, BATCH, RATE = 3, 32, 0.3


def keras_embedding(spec):
    import keras

    inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}
    embedded = keras.layers.Embedding(4, 1, embeddings_initializer="zeros")(inputs["word"])
    return keras.Model(inputs, keras.layers.Flatten()(embedded))


def torch_embedding(spec):
    import torch

    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(4, 1)
            torch.nn.init.zeros_(self.embedding.weight)

        def forward(self, features):
            return self.embedding(features["word"])[:, 0]

    return Words()


def numbers(features):
    return np.column_stack([features["x"], np.ones(len(features["x"]))]).astype(np.float64)


def words(features):
    return np.eye(4)[features["word"][:, 0]]


def by_hand(request, inputs=numbers):
    """Returns the loss of each epoch: logistic regression by SGD, in NumPy and float64."""
    hyper, weights = request.hyperparameters, np.zeros(inputs(next(iter(request.train.batches(1)))[0]).shape[1])
    total, losses, step, together = hyper.total_steps(request.train.rows), [], 0, hyper.accumulate_steps
    for epoch in range(hyper.epochs):
        found = []
        batches = list(request.train.batches(hyper.batch_size, seed=hyper.seed, epoch=epoch))
        for group in (batches[i : i + together] for i in range(0, len(batches), together)):
            x = np.concatenate([inputs(features) for features, _ in group])
            labels = np.concatenate([labels for _, labels in group])
            logits = x @ weights
            found += list(np.logaddexp(0, logits) - labels * logits)
            gradient = x.T @ (1 / (1 + np.exp(-logits)) - labels) / len(labels)
            if hyper.clip_norm:
                gradient *= min(1.0, hyper.clip_norm / np.linalg.norm(gradient))
            rate = hyper.learning_rate * factor(np, hyper.schedule, float(step), total, hyper.warmup_steps)
            weights = weights - rate * (gradient + hyper.weight_decay * weights)
            step += 1
        losses.append(np.mean(found))
    return losses


CASES = {
    "constant": {},
    "cosine after a warm-up": {"schedule": "cosine", "warmup_steps": 7},
    "linear": {"schedule": "linear"},
    "step": {"schedule": "step"},
    "one_cycle": {"schedule": "one_cycle"},
    "clipped": {"clip_norm": 0.05},
    "decayed": {"weight_decay": 0.2},
    # 13 batches in an epoch, the last one of 16 rows: steps of 5, 5 and 3 batches.
    "accumulated": {"accumulate_steps": 5},
    "accumulated, all": {"accumulate_steps": 3, "schedule": "cosine", "warmup_steps": 2, "clip_norm": 0.1, "weight_decay": 0.1},
    "all": {"schedule": "cosine", "warmup_steps": 5, "clip_norm": 0.1, "weight_decay": 0.1},
}


# `make test` runs those that have everything in them; each schedule's factor is a unit test (tests/unit/test_schedule.py).
CORE = {"constant", "all", "accumulated, all"}


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.core] if c in CORE else []) for c in CASES])
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_every_framework_trains_as_numpy_does(trainer, case, make):
    build_model = linear(trainer)
    given = {"optimizer": "sgd", "learning_rate": RATE, "epochs": EPOCHS, "batch_size": BATCH, **CASES[case]}
    request = make(build_model=build_model, **given)
    losses = [h["loss"] for h in trainer().train(request, no_report).history]
    assert losses == pytest.approx(by_hand(request), abs=1e-4)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_split_beyond_memory_trains_as_numpy_does(trainer, make):
    build_model = linear(trainer)
    request = make(build_model=build_model, optimizer="sgd", learning_rate=RATE, epochs=EPOCHS, batch_size=BATCH)
    train, held_out = (Examples(s.blocks, [s.resident], memory_bytes=0) for s in (request.train, request.eval))
    result = trainer().train(replace(request, train=train, eval=held_out), no_report)
    assert [h["loss"] for h in result.history] == pytest.approx(by_hand(replace(request, train=train)), abs=1e-4)


@pytest.mark.core
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_the_norm_of_an_embeddings_gradient_is_that_of_its_rows_added_up(trainer, make):
    build_model = keras_embedding if trainer is TensorflowTrainer else torch_embedding
    request = make(build_model=build_model, optimizer="sgd", learning_rate=1.0, epochs=EPOCHS, batch_size=BATCH, clip_norm=0.05)
    losses = [h["loss"] for h in trainer().train(request, no_report).history]
    assert losses == pytest.approx(by_hand(request, words), abs=1e-4)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_an_interrupted_training_resumes_its_schedule(trainer, make):
    given = {"schedule": "cosine", "warmup_steps": 5, "clip_norm": 0.5, "optimizer": "adamw", "weight_decay": 0.05}
    given["build_model"] = linear(trainer)
    whole = trainer().train(make(folder="whole", **given), no_report)

    with pytest.raises(Killed):
        trainer().train(make(folder="cut", **given), killed_at(39))
    resumed = trainer().train(make(folder="cut", **given), no_report)
    assert [h["val_loss"] for h in resumed.history] == pytest.approx([h["val_loss"] for h in whole.history], abs=1e-6)


class Late:
    """A `Beside` that writes each checkpoint after the next epoch, and raises `Killed` after the second write."""

    def __init__(self):
        self.pending, self.written = None, 0

    def submit(self, write):
        self.wait()
        self.pending = write

    def wait(self):
        pending, self.pending = self.pending, None
        if pending:
            pending()
            self.written += 1
            if self.written == 2:
                raise Killed

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wait()


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_checkpoint_written_beside_the_next_epoch_has_nothing_of_that_epoch(trainer, make, monkeypatch):
    given = {"optimizer": "adam", "build_model": linear(trainer)}
    whole = trainer().train(make(folder="whole", **given), no_report)
    monkeypatch.setattr(sys.modules[trainer.__module__], "Beside", Late)
    with pytest.raises(Killed):
        trainer().train(make(folder="cut", **given), no_report)
    monkeypatch.undo()
    resumed = trainer().train(make(folder="cut", **given), no_report)
    assert resumed.resumed_from_epoch == 2
    assert [h["val_loss"] for h in resumed.history] == pytest.approx([h["val_loss"] for h in whole.history], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schedule", "cosine"),
        ("warmup_steps", 3),
        ("weight_decay", 0.1),
        ("clip_norm", 1.0),
        ("label_smoothing", 0.1),
        ("accumulate_steps", 2),
    ],
)
def test_a_trainer_refuses_hyperparameters_that_it_does_not_support(name, value):
    with pytest.raises(UserError, match=rf"trainer\.hyperparameters\.{name}: the trainer 'sklearn' does not support it"):
        SklearnTrainer().check_settings({"loss": None, "code": None, "hyperparameters": {name: value}})
