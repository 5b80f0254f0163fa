"""Dimensions in Optuna's terms, and values in the trainer's settings."""

import optuna
import pytest

from switchyard.components.errors import UserError
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.config import HyperparametersConfig, TrainerSettings
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.tuned import with_values
from switchyard.components.tuning.config import Dimension, TuneConfig
from switchyard.components.tuning.search import suggest

SETTINGS = TrainerSettings(
    version="0",
    bundle=0,
    framework="pytorch",
    own_preprocessing=False,
    code=None,
    model_parameters={"a": 1},
    loss=None,
    loss_code=None,
    loss_parameters={},
    hyperparameters=HyperparametersConfig(steps=100),
    accelerator=AcceleratorProfile(),
)


def distribution(given):
    asked = {}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(lambda t: asked.update(t.distributions) or float(bool(suggest(t, "x", handed_over(given)))), n_trials=1)
    return study.trials[0].distributions["x"]


def handed_over(given):
    """As the tuning stage is given it."""
    return Dimension.model_validate_json(Dimension.model_validate(given).model_dump_json())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"low": 16, "high": 64}, optuna.distributions.IntDistribution(16, 64)),
        ({"low": 16, "high": 64, "step": 16}, optuna.distributions.IntDistribution(16, 64, step=16)),
        ({"low": 1, "high": 64, "log": True}, optuna.distributions.IntDistribution(1, 64, log=True)),
        ({"low": 0.1, "high": 1}, optuna.distributions.FloatDistribution(0.1, 1.0)),
        ({"low": "1e-4", "high": "1e-1", "log": True}, optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)),
        (["1e-3", 0.01], optuna.distributions.CategoricalDistribution((0.001, 0.01))),
        ([32, 64], optuna.distributions.CategoricalDistribution((32, 64))),
        (["relu", "1x"], optuna.distributions.CategoricalDistribution(("relu", "1x"))),
        ([True, False], optuna.distributions.CategoricalDistribution((True, False))),
    ],
)
def test_a_dimension_suggests_values_of_its_kind(given, expected):
    found = distribution(given)
    assert found == expected
    assert [type(c) for c in getattr(found, "choices", ())] == [type(c) for c in getattr(expected, "choices", ())]


def test_values_replace_the_configs_and_nothing_else():
    found = with_values(SETTINGS, {"batch_size": 32, "model_parameters.b": 2.0})
    assert found == SETTINGS.model_copy(
        update={
            "hyperparameters": HyperparametersConfig(batch_size=32, steps=100),
            "model_parameters": {"a": 1, "b": 2.0},
        }
    )
    # Epochs and steps exclude each other.
    assert with_values(SETTINGS, {"epochs": 3}).hyperparameters == HyperparametersConfig(epochs=3)
    assert SETTINGS.model_parameters == {"a": 1}


def test_a_short_list_is_a_choice():
    assert TuneConfig(space={"batch_size": [32, 64]}).space["batch_size"].choices == (32, 64)


def test_a_trial_with_a_hyperparameter_that_the_trainer_lacks_is_refused(tmp_path):
    settings = SETTINGS.model_copy(update={"framework": "tests.contract.sklearn_trainer:SklearnTrainer"})
    job = TrainingJob(
        settings=with_values(settings, {"clip_norm": 1.0}),
        examples=str(tmp_path),
        transformed_examples=str(tmp_path),
        state=str(tmp_path / "state"),
    )
    with pytest.raises(UserError, match=r"trainer\.hyperparameters\.clip_norm: the trainer 'sklearn' does not support it"):
        job.run(lambda step, metrics: None)
