"""Dimensions in Optuna's terms, and values in the trainer's settings."""

import optuna
import pytest

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.hyperparameters_config import HyperparametersConfig
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.ledger import TrainingLedger
from switchyard.components.training.settings import TrainerSettings
from switchyard.components.training.tuned import with_values
from switchyard.components.tuning.config import Dimension, TuneConfig
from switchyard.components.tuning.search import Inputs, Search, suggest
from tests.training_inputs import Killed

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


class Trials:
    """Runs trials here: `val_loss` is the epoch times the learning rate, `val_auc` the rate; trial `cut` dies in epoch 3."""

    processes = 1

    def __init__(self, cut=None):
        self.cut, self.started, self.reported = cut, 0, []

    def run(self, job, report):
        self.started += 1
        ledger = TrainingLedger.open(job.checkpoint_dir, job.hyperparameters)
        job.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        self.reported = []
        while not ledger.finished:
            rate = job.hyperparameters.learning_rate
            metrics = {"loss": 0.0, "val_loss": (ledger.epochs + 1) * rate, "val_auc": rate}
            if self.started == self.cut and ledger.epochs == 2:
                raise Killed
            ledger.record(ledger.epochs, metrics)
            ledger.last(".npz").write_text("")
            ledger.save()
            self.reported.append(ledger.epochs)
            if report(ledger.epochs, metrics):
                return None
        return {"metrics": ledger.history[-1], "epochs": ledger.epochs, "best_epoch": ledger.best_epoch}


def search(folder, settings, **tune):
    DatasetSummary("f", [], {}, {}, {"train": 200, "eval": 50}, 0, [], [], "y", "binary", [0, 1], {"0": 100, "1": 100}).save(
        str(folder)
    )
    space = {"learning_rate": {"low": 0.1, "high": 1.0}}
    return Search(TuneConfig(space=space, **tune), Inputs(settings, str(folder), str(folder)), folder / "search")


@pytest.mark.core
def test_a_trial_that_resumes_keeps_the_numbers_of_its_epochs(tmp_path):
    settings = SETTINGS.model_copy(update={"hyperparameters": HyperparametersConfig(epochs=4)})
    with pytest.raises(Killed):
        search(tmp_path, settings, trials=2).run(Trials(cut=1))
    trials, resumed = Trials(), search(tmp_path, settings, trials=1)
    resumed.run(trials)
    assert trials.reported == [3, 4]
    [trial] = resumed.finished
    rate = trial.params["learning_rate"]
    assert trial.intermediate_values == pytest.approx({n: n * rate for n in (1, 2, 3, 4)})
    assert resumed.result().trials[0].epochs == 4


@pytest.mark.core
@pytest.mark.parametrize(("given", "epochs"), [({"epochs": 4}, 4), ({"steps": 14}, 4), ({"early_stopping": None}, 20)])
def test_a_trial_in_its_last_epoch_is_complete_whatever_its_value(given, epochs, tmp_path, monkeypatch):
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda self, study, trial: len(trial.intermediate_values) == epochs)
    settings = SETTINGS.model_copy(update={"hyperparameters": HyperparametersConfig(**given)})
    found = search(tmp_path, settings, trials=1)
    found.run(Trials())
    assert [t.state for t in found.finished] == [optuna.trial.TrialState.COMPLETE]


@pytest.mark.core
@pytest.mark.parametrize(("metric", "best"), [("val_loss", min), ("val_auc", max)])
def test_the_best_trial_has_the_lowest_loss_or_the_highest_auc(metric, best, tmp_path):
    settings = SETTINGS.model_copy(update={"hyperparameters": HyperparametersConfig(epochs=1)})
    found = search(tmp_path, settings, trials=4, metric=metric)
    found.run(Trials())
    rates = [t.params["learning_rate"] for t in found.finished]
    assert len(set(rates)) == 4
    assert found.result().values == {"learning_rate": best(rates)}
