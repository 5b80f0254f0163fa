"""What users get wrong, each through the command line: exit code 2, one message that says what to do, no stack trace."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.command import switchyard

GOOD = "x,word,y\n" + "".join(f"{i},{'ab'[i % 2]},{int(i > 100)}\n" for i in range(200))


@dataclass
class Case:
    name: str
    message: str
    config: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    arguments: list = field(default_factory=list)
    code: int = 2


def config(**changes):
    return {"name": "case", "data": {"path": "d.csv"}, "label": "y", **changes}


TRAINER_FILE = "class Mine:\n    pass\n"
CASES = [
    # config
    Case("no such yaml", "no such file. Give a pipeline.yaml", arguments=["nowhere.yaml"]),
    Case("a folder", "is a folder; give the pipeline's YAML", arguments=["."]),
    Case("nothing given", "give a pipeline.yaml, or both --data PATH and --label", arguments=[]),
    Case("data without label", "give a pipeline.yaml, or both --data PATH and --label", arguments=["--data", "d.csv"]),
    Case(
        "yaml and data",
        "--data and --label describe a pipeline without a YAML",
        arguments=["p.yaml", "--data", "d.csv"],
        config=config(),
    ),
    Case("unknown key", "unknown key. Did you mean 'trainer'?", config=config(trainr={})),
    Case("unknown trainer", "Did you mean 'pytorch'?", config=config(), arguments=["p.yaml", "--trainer", "pytorhc"]),
    Case("unknown runner", "is no runner; allowed: local", config=config(), arguments=["p.yaml", "--runner", "loca"]),
    Case("bad override", "must be key=value", config=config(), arguments=["p.yaml", "--set", "name"]),
    Case("label missing from config", "label: is missing and has no default", config={"name": "x", "data": {"path": "d.csv"}}),
    Case("epochs zero", "greater than or equal to 1, received 0", config=config(trainer={"hyperparameters": {"epochs": 0}})),
    Case("negative learning rate", "must be greater than 0", config=config(trainer={"hyperparameters": {"learning_rate": -1}})),
    Case("file store", "MLflow 3 refuses plain folders", config=config(tracking={"uri": "./mlruns"})),
    # data
    Case("no data file", "no file matches", config=config(data={"path": "none*.csv"})),
    Case("data is a folder", "is a folder; give its files", config=config(data={"path": "."})),
    Case("unknown format", "cannot tell the format", config=config(data={"path": "d.xlsx"}), files={"d.xlsx": "x"}),
    Case("empty file", "is empty", files={"d.csv": ""}, config=config()),
    Case("header only", "no rows", files={"d.csv": "x,y\n"}, config=config()),
    Case("no label column", "has no column 'z'. ", config=config(label="z")),
    Case("duplicate columns", "duplicate column name 'x'", files={"d.csv": "x,x,y\n1,2,3\n"}, config=config()),
    Case("label with one value", "only the value", files={"d.csv": "x,y\n1,0\n2,0\n"}, config=config()),
    Case("ragged rows", "1 bad row, data.max_bad_rows allows 0", files={"d.csv": GOOD + "1,2,3,4\n"}, config=config()),
    Case("not a parquet file", "cannot be read as Parquet", files={"d.parquet": "no"}, config=config(data={"path": "d.parquet"})),
    Case("not gzip", "cannot be read as CSV", files={"d.csv.gz": "no gzip"}, config=config(data={"path": "d.csv.gz"})),
    Case(
        "not TFRecord",
        "cannot be read as TFRecord",
        files={"d.tfrecord": "this is no TFRecord at all"},
        config=config(data={"path": "d.tfrecord"}),
    ),
    Case(
        "unknown excluded column",
        "there is no column 'wrd'. Did you mean 'word'?",
        config=config(data={"path": "d.csv", "exclude": ["wrd"]}),
    ),
    Case("unknown slice", "evaluation.slices: there is no column 'wrd'", config=config(evaluation={"slices": ["wrd"]})),
    Case(
        "unknown metric",
        "is no metric of a binary task. Did you mean 'auc'?",
        config=config(evaluation={"thresholds": {"auk": {"lower_bound": 1}}}),
    ),
    Case(
        "improvement by no direction",
        "cannot decide between two models of a binary task",
        config=config(evaluation={"improvement": {"metric": "calibration"}}),
    ),
    Case(
        "change of no direction",
        "neither more nor less of 'calibration' is better",
        config=config(evaluation={"thresholds": {"calibration": {"min_change": 0}}}),
    ),
    Case("a trainer twice", "lists a trainer twice", config=config(trainer={"framework": ["pytorch", "pytorch"]})),
    Case(
        "one model file for two trainers",
        "several frameworks need one file each",
        config=config(trainer={"framework": ["pytorch", "tensorflow"], "model": "m.py"}),
    ),
    Case("no serving sample", "validation.serving_sample: no file", config=config(validation={"serving_sample": "none.csv"})),
    Case("warn above fail", "warn 0.6 is above fail 0.5", config=config(validation={"drift": {"warn": 0.6}})),
    Case("no such action", "must be 'fail' or 'warn', received 'stop'", config=config(validation={"on_anomaly": "stop"})),
    Case(
        "no such environment",
        "the schema has no environment 'SERVING'. Allowed: none.",
        config=config(validation={"environment": "SERVING"}),
    ),
    Case("schema infer over a schema", "is there already", arguments=["schema", "infer"], files={"schema.pbtxt": ""}),
    Case("schema of a pipeline without one", "names no reviewed schema", config=config(), arguments=["schema", "show", "p.yaml"]),
    Case("models without a workspace", "there is no workspace", arguments=["models", "list", "m"]),
    Case(
        "three classes for binary",
        "Set task to multiclass",
        files={"d.csv": "x,y\n1,0\n2,1\n3,2\n"},
        config=config(task="binary"),
    ),
    Case(
        "class weight of no class",
        "are no classes of 'y'",
        config=config(trainer={"hyperparameters": {"class_weights": {"7": 2.0}, "epochs": 1}}),
    ),
    Case(
        "no Flink job server",
        "j.jar: no such file. `make flink` makes one",
        config=config(beam={"runner": "FlinkRunner", "options": {"flink_job_server_jar": "j.jar"}}),
    ),
    # code
    Case("no model file", "trainer.model: ", config=config(trainer={"model": "none.py"})),
    Case(
        "model is no Python",
        "line 1: not valid Python",
        files={"m.py": "def build_model(:\n"},
        config=config(trainer={"model": "m.py"}),
    ),
    Case("no build_model", "has no function 'build_model'", files={"m.py": "x = 1\n"}, config=config(trainer={"model": "m.py"})),
    Case(
        "model import fails",
        "m.py, line 1: ModuleNotFoundError",
        files={"m.py": "import nonexistent_module\n"},
        config=config(trainer={"model": "m.py"}),
    ),
    Case(
        "model raises",
        "build_model failed: m.py, line 2: KeyError: 'width'",
        files={"m.py": "def build_model(spec):\n    return spec.parameters['width']\n"},
        config=config(trainer={"model": "m.py"}),
    ),
    Case(
        "wrong output shape",
        "needs logits of shape (2, 1)",
        files={
            "m.py": "import keras\ndef build_model(spec):\n"
            "    i = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}\n"
            "    return keras.Model(i, keras.layers.Dense(3)(i['x']))\n"
        },
        config=config(trainer={"model": "m.py"}),
    ),
    Case(
        "preprocessing raises",
        "features.py, line 2: KeyError: 'oops'",
        files={"features.py": "def preprocessing_fn(i):\n    return i['oops']\n"},
        config=config(preprocessing="features.py"),
    ),
    Case(
        "preprocessing asks for the label",
        "The label is not handed to preprocessing_fn",
        files={"features.py": "def preprocessing_fn(inputs):\n    return {'a': inputs['y']}\n"},
        config=config(preprocessing="features.py"),
    ),
    Case(
        "preprocessing gives text",
        "a model takes dense float32 or int64",
        files={"features.py": "def preprocessing_fn(inputs):\n    return {'a': inputs['word']}\n"},
        config=config(preprocessing="features.py"),
    ),
    Case(
        "trainer class is none",
        "is not a subclass of",
        files={"mine.py": TRAINER_FILE},
        config=config(trainer={"framework": "mine:Mine"}),
    ),
    Case("trainer class missing", "cannot import 'nowhere:Mine'", config=config(trainer={"framework": "nowhere:Mine"})),
    Case(
        "schema is none",
        "is not a schema in text form",
        files={"s.pbtxt": "oops {"},
        config=config(validation={"schema": "s.pbtxt"}),
    ),
    Case("no schema file", "validation.schema: ", config=config(validation={"schema": "none.pbtxt"})),
    # devices
    Case("no gpu", "asks for 1 gpu, this machine has: ", config=config(trainer={"accelerator": "gpu"})),
    Case(
        "no gpu, pytorch",
        "asks for 1 gpu, this machine has: ",
        config=config(trainer={"accelerator": "gpu", "framework": "pytorch"}),
    ),
    Case("no tpu", "asks for 1 tpu", config=config(trainer={"accelerator": "tpu"})),
    Case("fp16 on a cpu", "needs a GPU", config=config(trainer={"accelerator": {"kind": "cpu", "precision": "fp16"}})),
    Case("fp16 on a tpu", "needs a GPU", config=config(trainer={"accelerator": {"kind": "tpu", "precision": "fp16"}})),
    Case("two gpus", "asks for 2 gpu, this machine has: ", config=config(trainer={"accelerator": "gpu:2"})),
    Case("workers and rows", "64 rows cannot be shared equally by 3 workers", config=config(trainer={"accelerator": "cpu:3"})),
    Case(
        "keras is not spread",
        "shard_model: TensorFlow copies a model",
        config=config(trainer={"accelerator": {"count": 2, "shard_model": True}}),
    ),
    # disk, permissions
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
    # training
    Case(
        "diverges",
        "training diverged",
        config=config(trainer={"hyperparameters": {"optimizer": "sgd", "learning_rate": 1e30}}, task="regression"),
        code=1,
    ),
]


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    """Cases about code share data and workspace: the stages before the code's are in the cache."""
    folder = tmp_path_factory.mktemp("common")
    (folder / "d.csv").write_text(GOOD)
    return folder


def outcome(case, common, folder, command):
    for name, text in {"d.csv": GOOD, **case.files}.items():
        Path(folder, name).write_text(text)
    described = dict(case.config)
    arguments = case.arguments or (["p.yaml"] if described else [])
    if arguments == ["p.yaml"] and described.get("data") == {"path": "d.csv"} and "d.csv" not in case.files:
        described["data"] = {"path": str(common / "d.csv")}
        arguments = ["p.yaml", "--workspace", str(common / "w")]
    Path(folder, "p.yaml").write_text(yaml.safe_dump(described))
    if arguments[:1] in (["schema"], ["models"]):
        return command(*arguments, *(["p.yaml"] if arguments[-1] == "infer" else []), cwd=folder)
    return command("run", *arguments, cwd=folder)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_bad_input(case, common, tmp_path, warm):
    done = outcome(case, common, tmp_path, warm)
    check(case, done)


@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("no label column", "model raises")], ids=lambda c: c.name)
def test_bad_input_in_a_fresh_process(case, common, tmp_path):
    check(case, outcome(case, common, tmp_path, switchyard))


def check(case, done):
    shown = done.stdout + done.stderr
    assert case.message in shown, shown
    assert done.code == case.code, shown
    assert "Traceback" not in shown


def test_ui_without_a_workspace(tmp_path):
    done = switchyard("ui", cwd=tmp_path)
    assert done.code == 2
    assert "there is no workspace here. Run a pipeline first" in done.stderr


def test_unknown_command_and_option():
    assert switchyard("rum").code == 2
    assert switchyard("run", "--wrokspace", "x").code == 2
