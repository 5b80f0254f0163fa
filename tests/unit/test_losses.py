"""Losses and metrics that do not go with the task, the framework or each other are refused before a run starts."""

import pytest

from switchyard.components.errors import UserError
from switchyard.components.training.losses import LOSSES, named_loss
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import trainer_settings
from switchyard.pipelines.preflight import check_inputs
from tests.bad_input import Case, config

RANKING = {"task": "ranking", "group": "query_id"}

pytestmark = pytest.mark.core


@pytest.mark.parametrize("task", [task for task, names in LOSSES.items() if names])
def test_a_task_has_a_loss_by_default_and_every_loss_its_parameters(task):
    assert named_loss(task).name == LOSSES[task][0]
    assert dict(named_loss("regression", "huber").parameters) == {"delta": 1.0}
    assert dict(named_loss("binary", "focal", {"gamma": 1}).parameters) == {"gamma": 1}


@pytest.mark.parametrize(
    ("trainer", "why"),
    [
        ({"loss": "focall"}, r"loss: 'focall' is not a loss; allowed: cross_entropy, focal.*Did you mean 'focal'"),
        (
            {"loss": "listwis", "framework": "pytorch"},
            r"loss: 'listwis' is not a loss of a ranking task; allowed: listwise, pairwise, or .*Did you mean 'listwise'",
        ),
        ({"loss": "focal", "loss_parameters": {"gama": 1}}, "loss_parameters: focal has no parameter 'gama'; allowed: gamma"),
        ({"loss": "mse", "loss_parameters": {"delta": 1}}, "loss_parameters: mse has no parameter 'delta'; remove it"),
        (
            {"loss": "quantile", "loss_parameters": {"quantile": 1}},
            r"loss_parameters\.quantile: must be a number above 0 and below 1",
        ),
        (
            {"loss": "focal", "loss_parameters": {"gamma": True}},
            r"loss_parameters\.gamma: must be a number at least 0, received True",
        ),
        ({"loss_parameters": {"gamma": 1}}, "loss_parameters: the loss has no parameters"),
        ({"framework": ["tensorflow", "pytorch"], "loss": "l.py:f"}, "loss: several frameworks need a function each"),
        ({"loss": {"tensorflo": "l.py:f"}}, "loss: 'tensorflo' is not a framework"),
    ],
)
def test_a_loss_that_does_not_exist_or_lacks_the_parameter_is_refused(trainer, why):
    with pytest.raises(UserError, match=why):
        load_config(None, document=config(trainer=trainer, **RANKING if "listwis" in trainer.values() else {}))


@pytest.mark.parametrize(
    ("trainer", "labels", "message"),
    [
        (
            {"loss": "mse"},
            ["yes", "no"],
            "trainer.loss: 'mse' is not a loss of a binary task; allowed: cross_entropy, focal, hinge",
        ),
        ({"loss": "hinge"}, range(200), "trainer.loss: 'hinge' is not a loss of a regression task"),
        (
            {"loss": "hinge", "hyperparameters": {"label_smoothing": 0.1}},
            ["yes", "no"],
            "trainer.hyperparameters.label_smoothing: the loss hinge has none",
        ),
        (
            {"hyperparameters": {"label_smoothing": 0.1}},
            range(200),
            "trainer.hyperparameters.label_smoothing: the loss mse has none",
        ),
        ({"loss": "losses.py:f"}, ["yes", "no"], "trainer.loss: "),
    ],
)
def test_a_loss_that_is_not_of_the_task_is_refused_before_a_run_starts(trainer, labels, message, tmp_path):
    values = list(labels) * (200 // len(labels))
    data = "x,word,y\n" + "".join(f"{i % 7}.5,a,{y}\n" for i, y in enumerate(values))
    case = Case("loss", message, files={"d.csv": data}, config=config(trainer=trainer))
    with pytest.raises(UserError, match=message):
        check_inputs(load_config(case.write(tmp_path)), tmp_path / "code")


@pytest.mark.parametrize("section", ["hyperparameters", "trees"])
@pytest.mark.parametrize(
    ("labels", "metric", "allowed"),
    [(["yes", "no"], "val_mae", "val_loss, val_accuracy, val_auc"), (range(200), "val_auc", "val_loss, val_mae")],
)
def test_a_monitored_metric_that_the_task_lacks_is_refused_before_a_run_starts(section, labels, metric, allowed, tmp_path):
    values = list(labels) * (200 // len(labels))
    data = "x,word,y\n" + "".join(f"{i % 7}.5,a,{y}\n" for i, y in enumerate(values))
    given = {"framework": ["tensorflow", "lightgbm"], section: {"early_stopping": {"metric": metric}}}
    case = Case("metric", "", files={"d.csv": data}, config=config(trainer=given))
    with pytest.raises(
        UserError, match=f"{section}.early_stopping.metric: '{metric}' is not measured in a .* task; allowed: {allowed}"
    ):
        check_inputs(load_config(case.write(tmp_path)), tmp_path / "code")


def test_a_loss_in_a_file_is_carried_with_the_files_that_it_imports(tmp_path):
    (tmp_path / "losses.py").write_text(
        "import helper\n\ndef my_loss(labels, outputs):\n    return helper.error(labels, outputs)\n"
    )
    (tmp_path / "helper.py").write_text("def error(labels, outputs):\n    return (outputs[:, 0] - labels) ** 2\n")
    loaded = load_config(None, document=config(trainer={"loss": "losses.py:my_loss"}), base=tmp_path)
    taken = trainer_settings(loaded, tmp_path / "code", "tensorflow")
    assert taken.loss == "losses.py:my_loss"
    assert taken.loss_code.load().__name__ == "my_loss"
    (tmp_path / "helper.py").write_text("def error(labels, outputs):\n    return abs(outputs[:, 0] - labels)\n")
    assert trainer_settings(loaded, tmp_path / "code", "tensorflow").loss_code != taken.loss_code


def test_a_loss_by_name_is_no_path(tmp_path):
    assert load_config(None, document=config(trainer={"loss": "focal"}), base=tmp_path).trainer.loss == "focal"


def test_parameters_of_a_loss_are_refused_for_frameworks_without_it(tmp_path):
    trainer = {"framework": ["tensorflow", "lightgbm"], "loss": {"tensorflow": "focal"}, "loss_parameters": {"gamma": 1}}
    loaded = load_config(None, document=config(trainer=trainer), base=tmp_path)
    parameters = [trainer_settings(loaded, tmp_path / "code", f).loss_parameters for f in loaded.trainer.frameworks]
    assert parameters == [{"gamma": 1}, {}]
