"""The optional functions of a user's model file: found without an import; settings that they replace are refused."""

import pytest

from switchyard.components.errors import UserError
from switchyard.components.training.hooks import Hooks, hooks_in, replaced
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.request import hooks_of, loss
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import trainer_settings
from switchyard.pipelines.preflight import check_inputs
from switchyard.pipelines.runners.tracking.record import run_record
from tests.bad_input import Case, config
from tests.contract.sklearn_trainer import SklearnTrainer

pytestmark = pytest.mark.core

MODEL = """from helper import build_optimizer
raise_if_imported = None
def build_model(spec): ...
def build_loss(spec):
    def own(labels, outputs):
        return labels
    return own
build_callbacks = lambda spec: []
"""
HELPER = "def build_optimizer(model, spec): ...\n"


def test_hooks_are_found_without_an_import(tmp_path):
    (tmp_path / "m.py").write_text(MODEL)
    assert hooks_in(tmp_path / "m.py") == ("build_loss", "build_optimizer", "build_callbacks")
    assert hooks_in(None) == ()
    (tmp_path / "below.py").write_text(
        "try:\n    from helper import build_optimizer\nexcept ImportError:\n    pass\n"
        "if True:\n    build_loss: object = len\n"
        "def build_model(spec):\n    def build_callbacks(spec): ...\n"
    )
    assert hooks_in(tmp_path / "below.py") == ("build_loss", "build_optimizer")
    assert replaced(("build_loss",)) == ("label_smoothing",)


def test_hooks_are_found_behind_an_import_of_everything(tmp_path):
    (tmp_path / "m.py").write_text("from keras.layers import *\nfrom helper import *\nfrom .package import *\n")
    (tmp_path / "helper.py").write_text("from m import *\ndef build_optimizer(model, spec): ...\ndef _build_loss(spec): ...\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").write_text("def build_callbacks(spec): ...\n")
    assert hooks_in(tmp_path / "m.py") == ("build_optimizer", "build_callbacks")


@pytest.mark.parametrize(
    ("trainer", "tune", "message"),
    [
        ({"loss": "focal"}, None, "trainer.loss: m.py has build_loss, which sets the loss; remove one of them"),
        (
            {"hyperparameters": {"learning_rate": 0.1}},
            None,
            "trainer.hyperparameters.learning_rate: m.py has build_optimizer, which does not follow it; remove one of them",
        ),
        ({"hyperparameters": {"clip_norm": 1}}, None, "trainer.hyperparameters.clip_norm: m.py has build_optimizer"),
        ({"hyperparameters": {"label_smoothing": 0.1}}, None, "trainer.hyperparameters.label_smoothing: m.py has build_loss"),
        ({}, {"space": {"learning_rate": [0.1, 0.2]}}, "tune.space.learning_rate: m.py has build_optimizer"),
    ],
)
def test_a_setting_that_a_hook_replaces_is_refused_before_a_run_starts(trainer, tune, message, tmp_path):
    given = config(trainer={"model": "m.py", **trainer}, **({"tune": tune} if tune else {}))
    case = Case("hook", message, files={"m.py": MODEL, "helper.py": HELPER}, config=given)
    with pytest.raises(UserError, match=message):
        check_inputs(load_config(case.write(tmp_path)), tmp_path / "code")


def test_callbacks_in_the_model_file_and_in_a_file_of_their_own_are_refused_together(tmp_path):
    given = config(trainer={"model": "m.py", "callbacks": "c.py"})
    files = {"m.py": MODEL, "helper.py": HELPER, "c.py": "def build_callbacks(spec): ...\n"}
    case = Case("callbacks", "", files=files, config=given)
    with pytest.raises(UserError, match=r"trainer\.callbacks: m\.py has build_callbacks, too; remove one of them"):
        check_inputs(load_config(case.write(tmp_path)), tmp_path / "code")


def test_callbacks_of_a_file_of_their_own_travel_and_are_the_hook(tmp_path):
    (tmp_path / "c.py").write_text("from helper import *\ndef mine(spec):\n    return VALUES\n")
    (tmp_path / "helper.py").write_text("VALUES = [1, 2]\n")
    loaded = load_config(None, document=config(trainer={"callbacks": {"pytorch": "c.py:mine"}}), base=tmp_path)
    assert trainer_settings(loaded, tmp_path / "code", "tensorflow").callbacks_code is None
    taken = trainer_settings(loaded, tmp_path / "code", "pytorch")
    (tmp_path / "c.py").unlink()
    assert hooks_of(taken)["build_callbacks"](None) == [1, 2]


def test_callbacks_are_refused_by_a_trainer_without_them(tmp_path):
    (tmp_path / "c.py").write_text("def build_callbacks(spec): ...\n")
    message = refused_by(SklearnTrainer, tmp_path, callbacks="c.py")
    assert message.startswith("trainer.callbacks.build_callbacks: the trainer 'sklearn' does not support it, received 'c.py'")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([int], "build_metrics must return a dict of name to int, received"),
        ({"auc": 1}, "build_metrics: 'auc' is no name for a metric; use letters, digits and _, none of .*auc"),
        ({"val_x": 1}, "build_metrics: 'val_x' is no name for a metric"),
        ({"a b": 1}, "build_metrics: 'a b' is no name for a metric"),
    ],
)
def test_metrics_of_the_users_own_have_names_of_their_own(made, message):
    with pytest.raises(UserError, match=message):
        Hooks(build_metrics=lambda spec: made).metrics(None, int)


def settings(tmp_path, model=MODEL):
    (tmp_path / "m.py").write_text(model)
    (tmp_path / "helper.py").write_text(HELPER)
    loaded = load_config(None, document=config(trainer={"model": "m.py"}), base=tmp_path)
    return trainer_settings(loaded, tmp_path / "code", "tensorflow")


def test_build_loss_returns_the_loss(tmp_path):
    found = loss(settings(tmp_path), ModelSpec((), "binary", 1))
    assert found.name == "m.py:build_loss"
    assert found.function([1], [2]) == [1]


def test_build_loss_that_returns_no_function_is_refused(tmp_path):
    model = MODEL.replace("return own", "return 'mse'")
    with pytest.raises(UserError, match="build_loss must return a function of labels and outputs, received 'mse'"):
        loss(settings(tmp_path, model), ModelSpec((), "binary", 1))


def test_a_trainer_refuses_a_hook_that_it_does_not_support(tmp_path):
    with pytest.raises(UserError, match=r"trainer\.model\.build_loss: the trainer 'sklearn' does not support it"):
        SklearnTrainer().check_settings(settings(tmp_path).model_dump(mode="json"))


def refused_by(trainer, tmp_path, **given):
    loaded = load_config(None, document=config(trainer=given), base=tmp_path)
    taken = trainer_settings(loaded, tmp_path / "code", trainer.name)
    with pytest.raises(UserError) as error:
        trainer().check_settings(taken.model_dump(mode="json", exclude_defaults=True))
    return str(error.value)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"hyperparameters": {"class_weights": "balanced"}}, "hyperparameters.class_weights"),
        ({"hyperparameters": {"early_stopping": {"patience": 3}}}, "hyperparameters.early_stopping"),
        ({"model": "m.py"}, "model"),
    ],
)
def test_a_trainer_refuses_settings_that_it_does_not_follow(given, key, tmp_path):
    (tmp_path / "m.py").write_text("def build_model(spec): ...\n")
    message = refused_by(SklearnTrainer, tmp_path, **given)
    assert message.startswith(f"trainer.{key}: the trainer 'sklearn' does not support it, received ")
    assert message.endswith("to the trainer's `supports` and follow it")


def test_a_loss_that_trees_do_not_have_is_left_to_the_networks(tmp_path):
    from switchyard.components.training.lightgbm.trainer import LightgbmTrainer

    message = refused_by(LightgbmTrainer, tmp_path, loss="focal")
    assert message.endswith("leave it out, or give it to another framework by its name, as {tensorflow: focal}")


def test_a_runs_parameters_omit_settings_that_the_model_file_replaces(tmp_path):
    (tmp_path / "m.py").write_text(MODEL)
    given = load_config(None, document=config(trainer={"model": "m.py"}), base=tmp_path)
    assert "batch_size" in run_record(given, "tensorflow", None).params
    assert not {"optimizer", "learning_rate", "label_smoothing"} & set(run_record(given, "tensorflow", None).params)
