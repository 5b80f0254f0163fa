"""PyTorch models are trained without Lightning where nothing needs it, and bit for bit as by Lightning."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.hooks import Hooks
from switchyard.components.training.pytorch import lightning_loop
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from tests.training_inputs import Killed, killed_at, no_report, request, sources

SETTINGS = {
    "plain": {},
    "of every kind": {
        "accumulate_steps": 3,  # 13 batches: the last step of an epoch has one
        "clip_norm": 0.5,
        "schedule": "cosine",
        "warmup_steps": 2,
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "label_smoothing": 0.1,
        "class_weights": (1.0, 2.0, 0.5),
        "steps": 13,  # ends within the third epoch
    },
}


def lightnings():
    from lightning.pytorch.callbacks import Callback

    return Hooks(build_callbacks=lambda spec: [Callback()])


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Trains; returns the history, the weights and the number of trainings by Lightning."""
    calls, by_lightning = [], lightning_loop.train
    monkeypatch.setattr(lightning_loop, "train", lambda *args, **options: calls.append(1) or by_lightning(*args, **options))

    def run(name, hooks=None, *, precision="float32", kill=None, begun=None, **hyper):
        calls.clear()
        devices = AcceleratorProfile("cpu", precision=precision)
        options = {"epochs": 3, **hyper, **({"hooks": hooks} if hooks else {})}
        made = request(sources("multiclass"), tmp_path / name, "multiclass", accelerator=devices, **options)
        if kill:
            with pytest.raises(Killed):
                PytorchTrainer().train(replace(made, hooks=begun or made.hooks), killed_at(kill))
        found = PytorchTrainer().train(made, no_report)
        assert bool(found.resumed_from_epoch) == bool(kill)
        return found.history, load_file(made.export_dir / "weights.safetensors"), len(calls)

    return run


@pytest.mark.core
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_training_is_the_same_by_lightning_and_after_a_kill(settings, trained):
    history, weights, lightning = trained("loop", **SETTINGS[settings])
    assert lightning == 0
    second = 26 if settings == "plain" else 10
    for name, options in {"lightning": {"hooks": lightnings()}, "killed": {"kill": second}}.items():
        other_history, other_weights, lightning = trained(name, **options, **SETTINGS[settings])
        assert lightning == (name == "lightning")
        assert other_history == history
        assert all(np.array_equal(other_weights[key], value) for key, value in weights.items())


def test_a_training_in_bf16_is_the_same_by_lightning(trained):
    history, _, lightning = trained("loop", precision="bf16")
    assert (lightning, trained("lightning", lightnings(), precision="bf16")[0]) == (0, history)


def test_a_training_that_lightning_began_goes_on_without_it(trained):
    settings = SETTINGS["of every kind"]
    history, weights, _ = trained("loop", **settings)
    # As after an update from a version in which Lightning trained all models.
    other_history, other_weights, lightning = trained("begun", kill=10, begun=lightnings(), **settings)
    assert lightning == 1, "of the part before the kill"
    assert other_history == history
    assert all(np.array_equal(other_weights[key], value) for key, value in weights.items())
