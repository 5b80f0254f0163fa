"""What users get wrong and is known without a framework: one message that says what to do, in milliseconds.

What needs TensorFlow or PyTorch is in `tests/stages/test_bad_code.py`, what needs the command's process in
`tests/e2e/test_bad_input.py`.
"""

import sys

import pytest
import yaml

from switchyard.components.errors import DataGateError, StageError, TrainingError, UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.scan import scan
from switchyard.pipelines.commands.options import handle_errors
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import input_spec
from switchyard.pipelines.preflight import check_code_loads, check_environment, check_inputs
from switchyard.pipelines.runners.local.flink import find_jar
from tests.bad_input import GOOD, Case, command_in_this_process, config
from tests.command import BREAST_CANCER

CONFIG = [
    Case("unknown key", "unknown key. Did you mean 'trainer'?", config=config(trainr={})),
    Case("label missing from config", "label: is missing and has no default", config={"name": "x", "data": {"path": "d.csv"}}),
    Case("epochs zero", "greater than or equal to 1, received 0", config=config(trainer={"hyperparameters": {"epochs": 0}})),
    Case("negative learning rate", "must be greater than 0", config=config(trainer={"hyperparameters": {"learning_rate": -1}})),
    Case("file store", "MLflow 3 refuses plain folders", config=config(tracking={"uri": "./mlruns"})),
    Case("a trainer twice", "lists a trainer twice", config=config(trainer={"framework": ["pytorch", "pytorch"]})),
    Case(
        "one model file for two trainers",
        "several frameworks need one file each",
        config=config(trainer={"framework": ["pytorch", "tensorflow"], "model": "m.py"}),
    ),
    Case(
        "columns for a tokenizer behind a preprocessing_fn",
        "tokenizer.columns: only the default preprocessing reads it; remove it",
        config=config(preprocessing="features.py", tokenizer={"code": "words.py", "columns": ["word"]}),
    ),
    Case("warn above fail", "warn 0.6 is above fail 0.5", config=config(validation={"drift": {"warn": 0.6}})),
    Case("no such action", "must be 'fail' or 'warn', received 'stop'", config=config(validation={"on_anomaly": "stop"})),
    Case("fp16 on a cpu", "needs a GPU", config=config(trainer={"accelerator": {"kind": "cpu", "precision": "fp16"}})),
    Case("fp16 on a tpu", "needs a GPU", config=config(trainer={"accelerator": {"kind": "tpu", "precision": "fp16"}})),
    Case(
        "workers and rows", "64 rows cannot be divided equally among 3 workers", config=config(trainer={"accelerator": "cpu:3"})
    ),
]


@pytest.mark.parametrize("case", CONFIG, ids=lambda c: c.name)
def test_a_config_that_cannot_work_is_refused_when_it_is_read(case, tmp_path):
    path = case.write(tmp_path)
    with pytest.raises(UserError) as refused:
        load_config(path)
    assert case.message in str(refused.value)


INPUT = [
    Case("no data file", "no file matches", config=config(data={"path": "none*.csv"})),
    Case("data is a folder of other files", "cannot infer the format of", config=config(data={"path": "."})),
    Case("unknown format", "cannot infer the format", config=config(data={"path": "d.xlsx"}), files={"d.xlsx": "x"}),
    Case("empty file", "is empty", files={"d.csv": ""}, config=config()),
    Case("header only", "no rows", files={"d.csv": "x,y\n"}, config=config()),
    Case("no label column", "has no column 'z'. ", config=config(label="z")),
    Case("duplicate columns", "duplicate column name 'x'", files={"d.csv": "x,x,y\n1,2,3\n"}, config=config()),
    Case("ragged rows", "1 bad row, data.max_bad_rows allows 0", files={"d.csv": GOOD + "1,2,3,4\n"}, config=config()),
    Case("not a parquet file", "cannot be read as Parquet", files={"d.parquet": "no"}, config=config(data={"path": "d.parquet"})),
    Case("not gzip", "cannot be read as CSV", files={"d.csv.gz": "no gzip"}, config=config(data={"path": "d.csv.gz"})),
    Case(
        "unknown excluded column",
        "unknown column 'wrd'. Did you mean 'word'?",
        config=config(data={"path": "d.csv", "exclude": ["wrd"]}),
    ),
    Case("unknown slice", "evaluation.slices: unknown column 'wrd'", config=config(evaluation={"slices": ["wrd"]})),
    Case(
        "unknown metric",
        "is not a metric of a binary task. Did you mean 'auc'?",
        config=config(evaluation={"thresholds": {"auk": {"lower_bound": 1}}}),
    ),
    Case(
        "improvement by no direction",
        "cannot decide between two models of a binary task",
        config=config(evaluation={"improvement": {"metric": "calibration"}}),
    ),
    Case(
        "improvement by a metric that no file defines",
        "recall, f1, or a function in the file of evaluation.metrics.",
        config=config(evaluation={"improvement": {"metric": "cost", "better": "lower"}}),
    ),
    Case(
        "change of no direction",
        "'calibration' has no direction",
        config=config(evaluation={"thresholds": {"calibration": {"min_change": 0}}}),
    ),
    Case("no tokenizer file", "tokenizer: ", config=config(tokenizer="none.py")),
    Case(
        "tokenizer named like a module of Python's",
        "'tokenize' is also an installed module",
        files={"tokenize.py": "def build_tokenizer(spec): ...\n"},
        config=config(tokenizer="tokenize.py"),
    ),
    Case("no serving sample", "validation.serving_sample: no file", config=config(validation={"serving_sample": "none.csv"})),
    Case("no model file", "trainer.model: ", config=config(trainer={"model": "none.py"})),
    Case(
        "model is no Python",
        "line 1: not valid Python",
        files={"m.py": "def build_model(:\n"},
        config=config(trainer={"model": "m.py"}),
    ),
    Case("no schema file", "validation.schema: ", config=config(validation={"schema": "none.pbtxt"})),
]


@pytest.mark.parametrize("case", INPUT, ids=lambda c: c.name)
def test_files_and_columns_that_do_not_fit_are_refused_by_their_first_rows(case, tmp_path):
    loaded = load_config(case.write(tmp_path))
    with pytest.raises(UserError) as refused:
        check_inputs(loaded, tmp_path / "code")
    assert case.message in str(refused.value)


ROWS = [
    Case("label with one value", "only the value", files={"d.csv": "x,y\n1,0\n2,0\n"}, config=config()),
    Case(
        "three classes for binary",
        "Set task to multiclass",
        files={"d.csv": "x,y\n1,0\n2,1\n3,2\n"},
        config=config(task="binary"),
    ),
]


@pytest.mark.parametrize("case", ROWS, ids=lambda c: c.name)
def test_labels_without_a_task_are_refused_after_all_rows_are_read(case, tmp_path):
    loaded = load_config(case.write(tmp_path))
    with pytest.raises(UserError) as refused:
        scan(input_spec(loaded), BadRows(loaded.data.max_bad_rows))
    assert case.message in str(refused.value)


@pytest.fixture
def _imports_put_back():
    """What loading a user's code leaves behind."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in {"m", "mine"} & (sys.modules.keys() - modules):
        del sys.modules[name]


MODEL = [
    Case("no build_model", "has no function 'build_model'", files={"m.py": "x = 1\n"}, config=config(trainer={"model": "m.py"})),
    Case(
        "model import fails",
        "m.py, line 1: ModuleNotFoundError",
        files={"m.py": "import nonexistent_module\n"},
        config=config(trainer={"model": "m.py"}),
    ),
    Case(
        "metrics import fails",
        "measures.py, line 1: ModuleNotFoundError",
        files={"measures.py": "import nonexistent_module\n\n\ndef gain(labels, scores): return 1.0\n"},
        config=config(evaluation={"metrics": "measures.py"}),
    ),
]


@pytest.mark.usefixtures("_imports_put_back")
@pytest.mark.parametrize("case", MODEL, ids=lambda c: c.name)
def test_a_model_file_that_cannot_be_loaded_is_refused_with_its_line(case, tmp_path):
    loaded = load_config(case.write(tmp_path))
    with pytest.raises(UserError) as refused:
        check_code_loads(loaded, tmp_path / "code")
    assert case.message in str(refused.value)


TREES = """
from switchyard import Trainer
class Mine(Trainer):
    name, boosts_trees = "mine", True
    supports = frozenset({"early_stopping"})
    def available_devices(self):
        return {"cpu": 1}
    def fit(self, request, report):
        pass
    def load_predictor(cls, export_dir):
        pass
"""
TRAINER = [
    Case(
        "augment, and trees of one's own",
        "data.columns.photo.augment: boosted trees have no use for it; remove it",
        files={"mine.py": TREES},
        config=config(
            data={"path": "d.csv", "columns": {"photo": {"type": "image", "size": [8, 8], "augment": {"flip": "both"}}}},
            trainer={"framework": "mine:Mine"},
        ),
    ),
    Case(
        "trainer class is none",
        "is not a subclass of",
        files={"mine.py": "class Mine:\n    pass\n"},
        config=config(trainer={"framework": "mine:Mine"}),
    ),
    Case("trainer class missing", "cannot import 'nowhere:Mine'", config=config(trainer={"framework": "nowhere:Mine"})),
]


@pytest.mark.usefixtures("_imports_put_back")
@pytest.mark.parametrize("case", TRAINER, ids=lambda c: c.name)
def test_a_class_that_is_no_trainer_or_that_would_ignore_a_key_is_refused(case, tmp_path):
    loaded = load_config(case.write(tmp_path))
    with pytest.raises(UserError) as refused:
        check_environment((loaded, tmp_path / "code"))
    assert case.message in str(refused.value)


def test_an_unreachable_flink_job_server_is_refused(tmp_path):
    beam = {"runner": "FlinkRunner", "options": {"flink_job_server_jar": "j.jar"}}
    loaded = load_config(Case("no Flink job server", "", config=config(beam=beam)).write(tmp_path))
    with pytest.raises(UserError, match=r"j.jar: no such file; remove this option"):
        find_jar(loaded.beam)


@pytest.fixture
def command():
    with command_in_this_process() as command:
        yield command


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": {"thresholds": {"mae": {"upper_bound": 1}}}}, "'mae' is not a metric of a binary task"),
        ({"trainer": {"loss": "mse"}}, "trainer.loss: 'mse' is not a loss of a binary task"),
        ({"tune": {"space": {"epochs": [1, 2]}, "metric": "val_mae"}}, "tune.metric: 'val_mae' does not exist for a binary task"),
    ],
)
def test_compile_refuses_what_the_task_lacks_when_only_the_cluster_can_read_the_data(changes, message, command, tmp_path):
    case = Case("", message, config(task="binary", data={"path": "gs://bucket/d.csv"}, **changes))
    done = command("compile", case.write(tmp_path), "--output", tmp_path / "out.yaml", "--workspace", tmp_path / "w")
    assert done.exit_code == 2
    assert message in done.output


ARGUMENTS = [
    Case("no such yaml", "no such file. Give a pipeline's YAML; `switchyard init` writes one.", arguments=["nowhere.yaml"]),
    Case("a folder", "is a folder; give the pipeline's YAML", arguments=["."]),
    Case("nothing given", "give a pipeline.yaml, which `switchyard init` writes, or both --data PATH and --label", arguments=[]),
    Case("data without label", "or both --data PATH and --label", arguments=["--data", "d.csv"]),
    Case(
        "yaml and data",
        "--data and --label replace a pipeline's YAML",
        arguments=["p.yaml", "--data", "d.csv"],
        config=config(),
    ),
    Case("unknown trainer", "Did you mean 'pytorch'?", config=config(), arguments=["p.yaml", "--trainer", "pytorhc"]),
    Case("unknown runner", "is not a runner; allowed: local", config=config(), arguments=["p.yaml", "--runner", "loca"]),
    Case("bad override", "must be key=value", config=config(), arguments=["p.yaml", "--set", "name"]),
    Case(
        "workspace is a file",
        "cannot write to it",
        files={"w": "a file"},
        config=config(),
        arguments=["p.yaml", "--workspace", "w/inside"],
    ),
    Case(
        "workspace on a read-only file system",
        "cannot write to it",
        config=config(),
        arguments=["p.yaml", "--workspace", "/proc/switchyard"],
    ),
    Case("schema infer over a schema", "already exists", arguments=["schema", "infer", "p.yaml"], files={"schema.pbtxt": ""}),
    Case("schema of a pipeline without one", "has no reviewed schema", config=config(), arguments=["schema", "show", "p.yaml"]),
    Case("models without a workspace", "no workspace found", arguments=["models", "list", "m"]),
]


@pytest.mark.parametrize("case", ARGUMENTS, ids=lambda c: c.name)
def test_arguments_that_cannot_work_are_refused_with_one_message(case, command, tmp_path, monkeypatch):
    case.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    group = ["run"] if case.arguments[:1] not in (["schema"], ["models"]) else []
    done = command(*group, *case.arguments)
    assert (done.exit_code, done.stdout) == (case.code, "")
    assert done.stderr.startswith("error: ")
    assert case.message in done.stderr


@pytest.mark.parametrize(("kind", "code"), [(UserError, 2), (DataGateError, 3), (StageError, 1), (TrainingError, 1)])
def test_each_kind_of_error_ends_the_command_with_its_code_and_no_stack_trace(kind, code, capsys):
    @handle_errors
    def fails():
        raise kind("what is wrong")

    with pytest.raises(SystemExit) as ended:
        fails()
    assert ended.value.code == code
    assert capsys.readouterr().err == "error: what is wrong\n"


RATES = {"low": 0.0001, "high": 1.0, "log": True}


@pytest.mark.parametrize(
    ("tune", "words"),
    [
        ({"space": {}}, ["space: is empty"]),
        ({"space": {"learning_rat": RATES}}, ["'learning_rat' cannot be searched", "Did you mean 'learning_rate'"]),
        ({"space": {"learning_rate": {"low": 1, "high": 0.1}}}, ["low 1", "must be below high 0.1"]),
        ({"space": {"learning_rate": {"low": 0, "high": 0.1, "log": True}}}, ["log: low must be above 0"]),
        ({"space": {"optimizer": ["adam", "adagrad"]}}, ["must be choices of adam", "adagrad"]),
        ({"space": {"batch_size": {"low": 1.5, "high": 8}}}, ["batch_size", "whole numbers"]),
        ({"space": {"batch_size": [32]}}, ["two different values"]),
        ({"space": {"batch_size": [32, 64]}, "trials": 0}, ["tune.trials"]),
        ({"space": {"model_parameters.width": [32, 64]}}, ["model_parameters.width", "the default model has none"]),
        ({"space": {"trees.leaves": [8, 16]}}, ["tune.space: holds nothing of tensorflow", "add one of learning_rate"]),
        (
            {"space": {"learning_rate": RATES, "trees.leaves": [8, 16]}},
            ["'trees.leaves' is read by no framework of the run", "train lightgbm"],
        ),
        ({"space": {"trees.leaves": [1, 16]}}, ["trees.leaves", "whole numbers from 2"]),
        ({"space": {"trees.row_share": [0.5, 1.5]}}, ["trees.row_share", "up to 1"]),
        ({"space": {"batch_size": [32, 64]}, "metric": "auc"}, ["tune.metric", "val_auc"]),
        ({"space": {"batch_size": [32, 64]}, "metric": "val_mae"}, ["tune.metric", "binary task", "val_auc"]),
    ],
)
def test_a_search_that_cannot_work_is_refused_before_anything_runs(tune, words, tmp_path):
    document = yaml.safe_load(BREAST_CANCER.read_text())
    document["data"]["path"] = str(BREAST_CANCER.parent / "data.csv")
    document |= {"validation": {}, "trainer": {}, "tune": tune}
    with pytest.raises(UserError) as refused:
        check_inputs(load_config(None, document=document, base=tmp_path), tmp_path / "code")
    for word in words:
        assert word in str(refused.value)
