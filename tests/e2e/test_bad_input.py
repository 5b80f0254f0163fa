"""What users get wrong, through the command line: exit code 2, one message that says what to do, no stack trace.

One or two of each way out. All others are tried in one process, in `tests/unit/test_bad_input.py` and
`tests/stages/test_bad_code.py`.
"""

import pytest
import yaml

from tests.bad_input import GOOD, Case, config
from tests.command import switchyard

CASES = [
    Case("nothing given", "or both --data PATH and --label COLUMN", arguments=[]),
    Case("unknown key", "unknown key. Did you mean 'trainer'?", config=config(trainr={})),
    Case("bad override", "must be key=value", config=config(), arguments=["p.yaml", "--set", "name"]),
    Case("no data file", "no file matches", config=config(data={"path": "none*.csv"})),
    Case("no label column", "has no column 'z'. ", config=config(label="z")),
    Case(
        "three classes for binary",
        "Set task to multiclass",
        files={"d.csv": "x,y\n1,0\n2,1\n3,2\n"},
        config=config(task="binary"),
    ),
    Case("no build_model", "has no function 'build_model'", files={"m.py": "x = 1\n"}, config=config(trainer={"model": "m.py"})),
    Case(
        "model raises",
        "build_model failed: m.py, line 2: KeyError: 'width'",
        files={"m.py": "def build_model(spec):\n    return spec.parameters['width']\n"},
        config=config(trainer={"model": "m.py"}),
    ),
    Case(
        "preprocessing raises",
        "features.py, line 2: KeyError: 'oops'",
        files={"features.py": "def preprocessing_fn(i):\n    return i['oops']\n"},
        config=config(preprocessing="features.py"),
    ),
    Case(
        "schema is none",
        "is not a schema in text form",
        files={"s.pbtxt": "oops {"},
        config=config(validation={"schema": "s.pbtxt"}),
    ),
    Case("no gpu", "requests 1 gpu, this machine has: ", config=config(trainer={"accelerator": "gpu"})),
    Case(
        "workspace is a file",
        "cannot write to it",
        files={"w": "a file"},
        config=config(),
        arguments=["p.yaml", "--workspace", "w/inside"],
    ),
    # A high learning rate's divergence is in `tests/contract`; this one needs none of the stages before training again.
    Case(
        "diverges",
        "training diverged",
        files={
            "m.py": "import keras\ndef build_model(spec):\n"
            "    i = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}\n"
            "    return keras.Model(i, keras.layers.Dense(1)(i['x']) * float('nan'))\n"
        },
        config=config(trainer={"model": "m.py", "hyperparameters": {"epochs": 1}}),
        code=1,
    ),
]


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    """Cases on the same data share the workspace: the stages before what is wrong are in the cache."""
    folder = tmp_path_factory.mktemp("common")
    (folder / "d.csv").write_text(GOOD)
    return folder


def outcome(case, common, folder, command):
    path = case.write(folder)
    arguments = case.arguments or ["p.yaml"] * bool(case.config)
    if arguments == ["p.yaml"] and case.config.get("data") == {"path": "d.csv"} and "d.csv" not in case.files:
        path.write_text(yaml.safe_dump({**case.config, "data": {"path": str(common / "d.csv")}}))
        arguments = ["p.yaml", "--workspace", str(common / "w")]
    return command("run", *arguments, cwd=folder)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_mistake_ends_the_command_with_one_message(case, common, tmp_path, warm):
    done = outcome(case, common, tmp_path, warm)
    check(case, done)


@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("no label column", "no build_model")], ids=lambda c: c.name)
def test_a_mistake_ends_a_fresh_process_with_one_message(case, common, tmp_path):
    done = outcome(case, common, tmp_path, switchyard)
    check(case, done)


def check(case, done):
    shown = done.stdout + done.stderr
    assert case.message in shown, shown
    assert shown.count(case.message) == 1, shown
    assert done.code == case.code, shown
    assert "Traceback" not in shown


def test_ui_without_a_workspace_says_what_to_do_first(tmp_path):
    done = switchyard("ui", cwd=tmp_path)
    assert done.code == 2
    assert "no workspace found below this folder. Run a pipeline first" in done.stderr


@pytest.mark.parametrize("arguments", [["rum"], ["run", "--wrokspace", "x"]], ids=["command", "option"])
def test_an_unknown_command_or_option_is_bad_input(arguments):
    done = switchyard(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.stderr
