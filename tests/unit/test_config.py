import pytest
import yaml

from switchyard.components.errors import UserError
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.pipeline import PipelineConfig

BASE = {"name": "x", "data": {"path": "a.csv"}, "label": "y"}


def load(*overrides):
    return load_config(None, document=BASE, overrides=overrides)


def test_two_keys_are_enough():
    config = load()
    assert config.task == "auto"
    assert config.trainer.framework == "tensorflow"
    assert config.data.splits == {"train": 0.7, "eval": 0.1, "test": 0.2}


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load().name = "other"


def test_the_resolved_config_loads_again():
    config = load(
        "trainer.accelerator=cpu", "evaluation.thresholds.auc.lower_bound=0.9", "data.splits={train: 7, eval: 2, test: 1}"
    )
    assert PipelineConfig.model_validate(yaml.safe_load(config.to_yaml())) == config


def test_relative_paths_are_relative_to_the_yaml(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my_trainer.py").write_text("")
    file = tmp_path / "sub" / "pipeline.yaml"
    file.write_text(
        "name: x\ndata: {path: [a.csv, /b.csv, 'gs://c/*.csv']}\nlabel: y\npreprocessing: f.py\n"
        "tokenizer: t.py\n"
        "trainer: {framework: 'my_trainer:T', model: m.py:build}\nvalidation: {schema: s.pbtxt}\n"
    )
    config = load_config(file)
    here = tmp_path / "sub"
    assert config.data.path == (str(here / "a.csv"), "/b.csv", "gs://c/*.csv")
    assert config.preprocessing == str(here / "f.py")
    assert config.tokenizer.code == str(here / "t.py")
    assert config.trainer.model == f"{here / 'm.py'}:build"
    assert config.trainer.framework == f"{here / 'my_trainer.py'}:T"
    assert config.validation.schema_path == str(here / "s.pbtxt")


def test_a_number_that_yaml_reads_as_text_is_a_number():
    assert load("trainer.hyperparameters.learning_rate=1e-3").trainer.hyperparameters.learning_rate == 0.001


def test_class_weights_are_given_by_number_or_text():
    assert load("trainer.hyperparameters.class_weights={0: 1, 1: 5}").trainer.hyperparameters.class_weights == {
        "0": 1.0,
        "1": 5.0,
    }


def test_an_override_sets_a_key_within_a_short_form():
    document = {**BASE, "trainer": {"accelerator": "cpu"}}
    config = load_config(None, document=document, overrides=["trainer.accelerator.precision=bf16"])
    assert (config.trainer.accelerator.kind, config.trainer.accelerator.precision) == ("cpu", "bf16")


def test_anomaly_actions_are_set_in_short_or_by_feature():
    document = {**BASE, "validation": {"on_anomaly": "warn"}}
    assert load_config(None, document=document).validation.on_anomaly.error == "warn"
    config = load_config(None, document=document, overrides=["validation.on_anomaly.features.x=fail"])
    assert config.validation.on_anomaly.model_dump() == {"error": "warn", "warning": "warn", "features": {"x": "fail"}}


def test_several_frameworks_have_a_model_file_each(tmp_path):
    (tmp_path / "mine.py").write_text("")
    document = {**BASE, "trainer": {"framework": ["tensorflow", "mine:T"], "model": {"tensorflow": "k.py"}}}
    trainer = load_config(None, document=document, base=tmp_path).trainer
    assert trainer.frameworks == ("tensorflow", f"{tmp_path / 'mine.py'}:T")
    assert [trainer.model_for(f) for f in trainer.frameworks] == [str(tmp_path / "k.py"), None]
    assert load("trainer.framework=[pytorch]").trainer.frameworks == ("pytorch",)


def test_the_gates_have_defaults():
    config = load()
    improvement = config.evaluation.improvement
    assert (improvement.minimum, improvement.confidence, config.validation.drift.warn) == (0.0, 0.95, 0.1)


def test_the_gates_can_be_turned_off():
    assert load("evaluation.improvement=null").evaluation.improvement is None
    assert load("evaluation.improvement.confidence=null").evaluation.improvement.confidence is None


def test_a_threshold_can_allow_a_decrease():
    assert load("evaluation.thresholds.auc.min_change=-0.01").evaluation.thresholds["auc"].min_change == -0.01


def test_a_password_is_not_written_out():
    config = load("tracking.uri=postgresql://me:secret@host/db")
    assert "secret" in config.to_yaml()
    assert "secret" not in config.public_yaml()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dat=1", "dat: unknown key. Did you mean 'data'? Allowed here: name, data"),
        ("trainer.hyperparameters.learning_rat=1", "learning_rat: unknown key. Did you mean 'learning_rate'?"),
        (
            "trainer.hyperparameters.epochs=0",
            "trainer.hyperparameters.epochs: must be greater than or equal to 1, received 0 (int)",
        ),
        ("trainer.hyperparameters.epochs=abc", "received 'abc' (str)"),
        ("trainer.hyperparameters.epochs=true", "received True (bool)"),
        ("trainer.hyperparameters={epochs: 1, steps: 2}", "epochs and steps exclude each other"),
        ("trainer.hyperparameters.learning_rate=.nan", "must be a finite number"),
        ("trainer.framework=torch", "trainer.framework: 'torch' is not a trainer; allowed: tensorflow, pytorch"),
        ("trainer.accelerator=npu", "trainer.accelerator.kind: must be 'auto', 'cpu', 'gpu' or 'tpu', received 'npu'"),
        (
            "trainer.accelerator=gpu:3",
            "batch_size: 64 rows cannot be divided equally among 3 workers (accelerator: count times nodes); try 66",
        ),
        ("trainer.model={pytorch: a.py}", "trainer.model: has no entry for the framework 'tensorflow'"),
        ("data.splits={a: 1}", "data.splits must name 'train' and 'eval'"),
        ("data.splits={train: 1, eval: e.csv}", "data.splits must be all weights or all paths"),
        ("data.splits={train: t.csv, eval: e.csv}", "data: path and splits by path exclude each other"),
        ("data.splits={train: 1, eval: -1}", "data.splits.eval must be a weight above 0"),
        ("data.path=[]", "data.path is missing"),
        ("data.exclude=y", "data.exclude: lists the label 'y'"),
        ("evaluation.thresholds.auc={}", "evaluation.thresholds.auc: give lower_bound, upper_bound or min_change"),
        ("evaluation.thresholds.auc={lower_bound: 1, upper_bound: 0}", "is above upper_bound"),
        ("task=bin", "Did you mean 'binary'?"),
        ("name=Bad Name", "lower-case letters"),
        ("label=[a]", "label: ['a'] is a list; set task to multioutput or multilabel, or give one column"),
        ("data.label_separator=|", 'data.label_separator: is empty; quote it in YAML: "|"'),
        ("data.label_separator=;", "data.label_separator: only the one label of a multilabel task is a list, and task is auto"),
        ("tracking.uri=./mlruns", "tracking.uri: './mlruns' is not a tracking server"),
        ("tracking.uri=http", "tracking.uri: 'http' is not a tracking server"),
        ("tracking.uri=https://", "tracking.uri: 'https://' is not a tracking server"),
        ("tracking.uri=http://[::1:5000", "tracking.uri: 'http://[::1:5000' is not a tracking server"),
        ("no_value", "must be key=value"),
        ("a={", "not valid YAML"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_key(override, message):
    with pytest.raises(UserError) as error:
        load(override)
    assert message in str(error.value)


def test_a_model_file_can_be_named_by_its_framework(tmp_path):
    config = load_config(None, document=BASE, overrides=["trainer.model={tensorflow: a.py}"], base=tmp_path)
    assert config.trainer.model_for("tensorflow") == str(tmp_path / "a.py")


def test_several_problems_are_reported_at_once():
    with pytest.raises(UserError, match="2 problems"):
        load("dat=1", "task=bin")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"- a\n", "must hold a mapping"), (b"a: [", "not valid YAML"), (b"\xff\xfe\x00", "not"), (b"", "must hold a mapping")],
)
def test_a_file_that_is_no_config_is_refused(content, message, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_config(file)


def test_yaml_cannot_run_code(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("name: !!python/object/apply:os.system ['touch /tmp/owned']\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(file)


@pytest.mark.parametrize("key", ["mine", "Mine", "my/trainer.py:Mine"])
def test_a_model_of_a_custom_trainer_is_found_by_its_class_and_by_its_name(key):
    config = load("trainer.framework=[tensorflow, 'my/trainer.py:Mine']", f"trainer.model={{tensorflow: t.py, '{key}': m.py}}")
    assert config.trainer.model_for(config.trainer.frameworks[1]).endswith("/m.py")
    assert config.trainer.model_for("tensorflow").endswith("/t.py")


def test_a_model_of_an_unknown_framework_is_refused():
    with pytest.raises(UserError, match=r"model: 'pytroch' is not a framework; allowed: .*Did you mean 'pytorch'"):
        load("trainer.model={tensorflow: t.py, pytroch: m.py}")


def test_models_of_frameworks_that_are_not_trained_are_kept():
    config = load("trainer.model={tensorflow: t.py, pytorch: p.py, 'my/trainer.py:Mine': m.py}")
    assert config.trainer.model_for("tensorflow").endswith("/t.py")


def test_a_champion_that_cannot_be_compared_is_kept_by_default():
    evaluation = load().evaluation
    assert (evaluation.comparable, evaluation.incomparable_champion) == (0.9, "keep")
    for override in ("evaluation.incomparable_champion=maybe", "evaluation.comparable=1.1"):
        with pytest.raises(UserError, match=override.partition("=")[0]):
            load(override)


def test_boosted_trees_refuse_a_model_file():
    for model in ("m.py", "{tensorflow: t.py, lightgbm: m.py}"):
        with pytest.raises(UserError, match=r"model: 'lightgbm' takes no model file.*trees"):
            load("trainer.framework=lightgbm", f"trainer.model={model}")
    assert load("trainer.framework=[pytorch, lightgbm]", "trainer.model={pytorch: p.py}").trainer.model_for("lightgbm") is None


@pytest.mark.parametrize(
    "value", ["leaves: 1", "row_share: 0", "feature_share: 1.1", "rounds: 0", "learning_rate: 0", "leafs: 3"]
)
def test_trees_that_cannot_grow_are_refused(value):
    with pytest.raises(UserError, match=rf"trainer\.trees\.{value.partition(':')[0]}"):
        load(f"trainer.trees={{{value}}}")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer.framework=lightgbm", "trainer.hyperparameters={epochs: 3, seed: 1}"], "epochs: not of boosted trees"),
        (["trainer.framework=[tensorflow, lightgbm]", "trainer.hyperparameters.epochs=3", "trainer.trees.leaves=3"], ""),
        (["trainer.framework=lightgbm", "trainer.hyperparameters.seed=3"], ""),
        (["trainer.trees.leaves=3"], "trainer.trees: only boosted trees (lightgbm) read it"),
        (["trainer.framework=my:Trees", "trainer.hyperparameters.epochs=3"], "epochs: not of boosted trees"),
        (["trainer.framework=my:Trees", "trainer.trees.leaves=3"], ""),
        (["trainer.framework=my:Network", "trainer.trees.leaves=3"], "trainer.trees: only boosted trees (lightgbm) read it"),
    ],
)
def test_hyperparameters_that_no_framework_of_the_run_reads_are_reported(overrides, said):
    trainer = load(*overrides).trainer
    found = trainer.unused([f for f in trainer.frameworks if f in ("lightgbm", "my:Trees")])
    assert said in found if said else not found


def test_each_framework_searches_its_own_hyperparameters():
    config = load("trainer.framework=[pytorch, lightgbm]", "tune={space: {batch_size: [32, 64], trees.leaves: [8, 16]}}")
    assert {f: list(config.tune.space_of(f)) for f in ("pytorch", "lightgbm", "m:Mine")} == {
        "pytorch": ["batch_size"],
        "lightgbm": ["trees.leaves"],
        "m:Mine": ["batch_size", "trees.leaves"],
    }


def test_a_search_that_no_custom_trainer_reads_is_refused():
    tune = load("trainer.framework=my:Own", "tune={space: {trees.leaves: [8, 16], model_parameters.a: [1, 2]}}").tune
    tune.check_read([False, True])
    with pytest.raises(UserError, match=r"tune\.space: 'trees\.leaves' is read by no trainer of the run; leave it out"):
        tune.check_read([False])
    with pytest.raises(UserError, match="'batch_size' is read by no trainer"):
        load("trainer.framework=my:Own", "tune={space: {batch_size: [32, 64]}}").tune.check_read([True])


def test_a_framework_whose_extra_is_not_installed_is_refused_with_the_extra(monkeypatch):
    from switchyard.components.training import trainers

    monkeypatch.setattr(trainers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"lightgbm is not installed; .*pip install 'switchyard\[lightgbm\]'"):
        trainers.trainer_class("lightgbm")
