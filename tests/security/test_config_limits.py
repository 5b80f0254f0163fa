"""A config may come from anybody: whatever its YAML holds, it is read within limits or refused with a message."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from switchyard.components.errors import UserError
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.tracking.record import run_record
from tests.command import REPOSITORY, environment

pytestmark = pytest.mark.core
BASE = "name: x\ndata: {path: a.csv}\nlabel: y\n"
DOCUMENT = {"name": "x", "data": {"path": "a.csv"}, "label": "y"}


def bomb(levels):
    lines = ["a0: &a0 [" + ",".join(["xxxxxxxx"] * 9) + "]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def parameters(text):
    return f"{BASE}trainer: {{model_parameters: {text}}}\n"


@pytest.fixture
def load(tmp_path):
    def loaded(text):
        file = tmp_path / "pipeline.yaml"
        file.write_text(text, encoding="utf-8")
        return load_config(file)

    return loaded


REFUSED = {
    "an alias bomb": (BASE + bomb(9), "with its aliases"),
    "an alias bomb of merged mappings": (
        BASE + "m0: &m0 {" + ", ".join(f"k{n}: xxxxxxxx" for n in range(99)) + "}\n"
        "" + "".join(f"m{n}: &m{n} {{<<: [{','.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 9)),
        "with its aliases",
    ),
    "nesting by aliases": (
        BASE + "l0: &l0 [x]\n" + "".join(f"l{n}: &l{n} [*l{n - 1}]\n" for n in range(1, 60)),
        "nested deeper than 50",
    ),
    "a value that refers to itself": (parameters("&a {x: *a}"), "line 4: an alias (*) refers to a value that contains it"),
    "a list that refers to itself": (parameters("{x: &a [*a]}"), "refers to a value that contains it"),
    "deep lists": (parameters("[" * 51 + "]" * 51), "line 4: is nested deeper than 50 levels"),
    "deep mappings": ("".join(" " * n + "a:\n" for n in range(700)), "nested deeper than 50"),
    "very deep lists": ("[" * 500_000, "nested deeper than 50"),
    "a file of more than a mebibyte": (BASE + "#" * (1 << 20), "larger than 1,048,576 bytes"),
    "a key twice": (BASE + "label: z\n", "line 4: the key 'label' is a duplicate of line 3"),
    "a key twice, deep inside": (parameters("{a: 1, b: 2, a: 3}"), "line 4: the key 'a' is a duplicate"),
    "a key as number and as text": (parameters("{1: a, '1': b}"), "the key '1' is a duplicate"),
    "a merge key twice": (parameters("{x: &a {k: 1}, y: {<<: *a, <<: *a}}"), "the key '<<' is a duplicate"),
    "a list as key": (BASE + "? [a]\n: 2\n", "line 4: a key must be a text"),
    "an integer of 5000 digits": (parameters("{a: " + "9" * 5000 + "}"), "too long; whole numbers have at most 63 bits"),
    "an integer of 65 bits": (parameters("{a: 18446744073709551616}"), "at most 63 bits"),
    "a hexadecimal integer of a mebibit": (parameters("{a: 0x" + "f" * 250_000 + "}"), "at most 63 bits"),
    "a sexagesimal integer without end": (parameters("{a: 1" + ":59" * 300_000 + "}"), "at most 63 bits"),
    "a sexagesimal float without end": (parameters("{a: 1" + ":59" * 300_000 + ".5}"), "too long"),
    "more epochs than can be counted": (
        BASE + "trainer: {hyperparameters: {epochs: 9000000000}}",
        "trainer.hyperparameters.epochs: must be less than or equal to 2147483647",
    ),
    "more devices than digits can be read": (
        BASE + f"trainer: {{accelerator: 'gpu:{'9' * 5000}'}}",
        "trainer.accelerator.count: must be a valid integer",
    ),
    "NUL in a path": (BASE.replace("a.csv", '"a\\0.csv"'), "line 2: 'a\\x00.csv' holds a character that no text can hold"),
    "NUL in a key": (parameters('{"a\\0": 1}'), "holds a character that no text can hold"),
    "half of a surrogate pair": (BASE.replace("a.csv", '"\\ud800.csv"'), "holds a character that no text can hold"),
    "a Python object": (
        parameters("!!python/object/apply:os.getcwd []"),
        "the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd'",
    ),
    "a tag of somebody's": (parameters("{a: !mine x}"), "the tag '!mine' is not valid YAML for a config"),
    "bytes": (parameters("{a: !!binary aGk=}"), "is not valid YAML for a config"),
    "a set": (parameters("{a: !!set {b, c}}"), "is not valid YAML for a config"),
    "what is no number": (parameters("{a: !!int x}"), "line 4: 'x' is not a number"),
    "what is no boolean": (parameters("{a: !!bool x}"), "line 4: 'x' is not a boolean"),
    "a tag that does not fit": (parameters("{a: !!map [1]}"), "not valid YAML"),
    "values without end": (parameters("{a: [" + "1," * 60_000 + "]}"), "line 4: holds more than 50,000 keys and values"),
    "keys without end": (BASE + "".join(f"k{n}: 1\n" for n in range(60_000)), "holds more than 50,000 keys and values"),
    "thousands of unknown keys": (BASE + "".join(f"k{n}: 1\n" for n in range(9_000)), "9000 problems, the first of them:"),
    "a key of half a mebibyte": (BASE + f"? {'a' * 500_000}\n: 1\n", "aaa...: unknown key"),
    "a long key in a section": (BASE + f"data: {{? {'a' * 500_000} : 1}}\n".replace("data", "trainer"), "aaa...: unknown key"),
    "a name of half a mebibyte": (BASE.replace("name: x", f"name: {'a' * 500_000}"), "name: 'aaa"),
    "a number beyond any float": (parameters("{a: 1.0e+400}"), "line 4: the number '1.0e+400' is larger than any"),
    "two documents": (BASE + "---\n" + BASE, "not valid YAML"),
    "a key that is no text": (BASE + "1: 2\n", "1: unknown key"),
    "a time where a number may stand": (parameters("{a: 12:30}"), "trainer.model_parameters.a: YAML reads 12:30 in another base"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_config_beyond_a_limit_is_refused_with_its_place_and_the_fix(load, text, message):
    with pytest.raises(UserError) as refused:
        load(text)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 6000


@pytest.mark.parametrize("size", [9, 30])
def test_an_alias_bomb_takes_little_memory_and_time(tmp_path, size):
    (tmp_path / "pipeline.yaml").write_text(BASE + bomb(size))
    done = subprocess.run(
        ["prlimit", f"--data={1 << 29}", sys.executable, "-m", "switchyard", "schema", "show", tmp_path / "pipeline.yaml"],
        cwd=REPOSITORY,
        env=environment(PYTHONPATH=REPOSITORY),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "with its aliases (*) expanded this is larger than" in done.stderr


def test_an_endless_device_file_is_refused():
    with pytest.raises(UserError, match="larger than"):
        load_config(Path("/dev/zero"))


def test_a_path_that_no_file_system_accepts_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        load_config(tmp_path / ("a" * 5000))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.model_parameters={a: 1, a: 2}", "the key 'a' is a duplicate"),
        ("trainer.model_parameters=&a {x: *a}", "refers to a value that contains it"),
        ("trainer.model_parameters.x=" + "[" * 60 + "]" * 60, "nested deeper than 50 levels"),
        ("trainer.hyperparameters.epochs=" + "9" * 5000, "too long"),
        ('data.path="a\\0b"', "holds a character that no text can hold"),
        (".".join("a" * 3000) + "=1", "the key is nested deeper than 50 levels"),
        ("label=\udcff", "value: is not valid YAML"),
        ("a\udcff=1", "is not UTF-8 text"),
    ],
)
def test_values_on_the_command_line_have_the_same_limits(override, message):
    with pytest.raises(UserError) as refused:
        load_config(None, document=DOCUMENT, overrides=[override])
    assert str(refused.value).startswith(("--set ", "the command line"))
    assert message in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_bytes_that_are_no_text_are_refused_on_the_command_line():
    with pytest.raises(UserError, match="is not UTF-8 text"):
        load_config(None, document={**DOCUMENT, "data": {"path": ["\udcff.csv"]}})


def test_thousands_of_declared_columns_are_one_parameter_in_mlflow(load):
    text = "name: p\nlabel: y\ntask: binary\ndata:\n  path: d.csv\n  columns:\n"
    columns = "".join(f"    c{i}: {{type: number}}\n" for i in range(5000))
    params = run_record(load(text + columns), "tensorflow", None).params

    assert len(params) < 200
    assert params["data.columns"].startswith("5,000 keys, sha256 ")
    other = run_record(load(text + columns.replace("c7: {type: number}", "c7: {type: text}")), "tensorflow", None).params
    assert other["data.columns"] != params["data.columns"]


def test_a_config_within_the_limits_is_read(load):
    many = "[" + ", ".join(f"part-{n}.csv" for n in range(2000)) + "]"
    config = load(
        f"shared: &s {{a: 1}}\n{BASE}".replace("shared: &s {a: 1}\n", "")
        + "trainer:\n  framework: &f pytorch\n"
        + "  model_parameters: {base: &s {a: 1, b: [x, y]}, copy: *s, merged: {<<: *s, a: 2}, day: 2024-01-01, deep: "
        + "[" * 40
        + "]" * 40
        + f", many: {many}, big: 9223372036854775807, hex: 0xff, small: 1.5e-3, none: null, 'yes': true}}\n"
    )
    parameters = config.trainer.model_parameters
    assert parameters["copy"] == {"a": 1, "b": ["x", "y"]}
    assert parameters["merged"] == {"a": 2, "b": ["x", "y"]}
    assert (parameters["day"], parameters["hex"], parameters["big"]) == ("2024-01-01", 255, 2**63 - 1)
    assert len(parameters["many"]) == 2000


_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.dates(),
    st.sampled_from(["\0", "=", "<<", "2001-99-99", "a" * 5000]),
)
_values = st.recursive(
    _leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), v, max_size=3)
)
PLACES = """name label data.path data.splits task trainer trainer.accelerator trainer.model_parameters
trainer.hyperparameters.epochs trainer.hyperparameters.class_weights tune tune.space evaluation.thresholds
evaluation.slices validation.drift serving.model_name tracking.uri tracking.experiment beam.options kubeflow.stages kubeflow"""


@settings(max_examples=300)
@given(st.sampled_from(PLACES.split()), _values)
@example("data.path", "\ud800")
def test_any_value_of_any_key_is_accepted_or_refused(place, value):
    text = yaml.dump(value, allow_unicode=True)
    with suppress(UserError):
        load_config(None, document=DOCUMENT, overrides=[f"{place}={text}"]).to_yaml()


@settings(max_examples=300)
@given(st.text(alphabet="ab0:.,-[]{}&*!<>|%@\"'\\#? \n\t1\0\x85", max_size=60))
def test_any_text_is_accepted_or_refused(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError):  # none of these has all that a config needs
        load_config(file)
