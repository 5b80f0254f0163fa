"""Whatever the user's code raises, and wherever: one clear line with the file and the line of that code, exit code 2."""

import os
import re
import sys
from pathlib import Path

import pytest

from switchyard.components.errors import TerminatedError, UserError
from switchyard.components.failure import classify
from switchyard.components.user_code import loading as user_code
from switchyard.components.user_code.loading import blamed, folder_of, load_function, users_error

RAISES = {
    "an error": ("raise ValueError('no such luck')", "ValueError: no such luck"),
    "no message": ("raise ValueError", "ValueError"),
    "several lines": ("raise ValueError('one\\n\\n  two\\x1b[1mthree\\x1b[0m')", "ValueError: one twothree"),
    "a huge message": ("raise ValueError('x' * 50_000_000)", "ValueError: " + "x" * 500 + "…"),
    "no str": (
        "raise type('E', (Exception,), {'__str__': lambda s: 1 / 0})()",
        "E: (it has no message: its __str__ raises ZeroDivisionError)",
    ),
    "str exits": ("raise type('E', (Exception,), {'__str__': lambda s: exit()})()", "E: (it has no message: its __str__ raises"),
    "exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "exit of argparse": ("import argparse; argparse.ArgumentParser().parse_args(['--oops'])", "SystemExit: 2"),
    "a class of its own": ("raise type('Stop', (BaseException,), {})('bye')", "Stop: bye"),
    "a lone surrogate": ("raise ValueError('\\ud800')", "ValueError: "),
    "a library's": ("import json; json.loads('{')", "JSONDecodeError: Expecting property name"),
    "too deep": ("f = lambda: f(); f()", "RecursionError: "),
    "not there": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "an old bytes string": ("raise UnicodeDecodeError('utf-8', b'x', 0, 1, 'no')", "UnicodeDecodeError: "),
}


@pytest.fixture(autouse=True)
def no_folders(monkeypatch):
    monkeypatch.setattr(user_code, "_folders", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    # A file of the same name in another test is another module.
    for name in set(sys.modules) - before:
        if os.path.dirname(getattr(sys.modules[name], "__file__", None) or "") in user_code._folders:
            del sys.modules[name]


def written(tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    return str(tmp_path / "mine.py")


@pytest.mark.parametrize("kind", RAISES)
def test_an_error_on_import_is_reported_in_one_line_with_its_place(kind, tmp_path):
    raising, message = RAISES[kind]
    with pytest.raises(UserError) as caught:
        load_function(written(tmp_path, f"x = 1\n{raising}\ndef build_model(spec): pass\n"), "build_model")
    said = str(caught.value)
    assert said.startswith(f"mine.py: mine.py, line 2: {message}")
    assert len(said) < 700
    assert "\n" not in said


@pytest.mark.parametrize("kind", RAISES)
def test_an_error_of_user_code_within_a_stage_is_a_user_error_with_its_line(kind, tmp_path):
    raising, message = RAISES[kind]
    call = load_function(written(tmp_path, f"def call():\n    {raising}\n"), "call")
    try:
        call()
    except BaseException as error:
        found = classify(error, Path("x.log"))
    said = found.message
    assert found.kind == "user"
    assert said.startswith(f"mine.py, line 2: {message}")
    assert said.endswith("Log: x.log")
    assert "\n" not in said


@pytest.mark.parametrize("kind", RAISES)
def test_an_error_in_a_call_is_reported_with_the_caller(kind, tmp_path):
    raising, message = RAISES[kind]
    call = load_function(written(tmp_path, f"def call():\n    {raising}\n"), "call")
    with pytest.raises(UserError) as caught, blamed("trainer.model: build_model failed: ", folder_of(call)):
        call()
    assert str(caught.value).startswith(f"trainer.model: build_model failed: mine.py, line 2: {message}")


def test_ctrl_c_is_not_attributed_to_the_running_code(tmp_path):
    path = written(tmp_path, "raise KeyboardInterrupt\ndef f(): pass\n")
    with pytest.raises(KeyboardInterrupt):
        load_function(path, "f")


def test_a_termination_is_not_attributed_to_the_running_code(tmp_path):
    call = load_function(written(tmp_path, "def call(raising):\n    raising()\n"), "call")

    def terminated():
        raise TerminatedError

    with pytest.raises(UserError) as caught, blamed("", folder_of(call)):
        call(terminated)
    assert classify(caught.value, None).kind == "stage"


def test_an_error_outside_user_code_is_not_attributed_to_it(tmp_path):
    load_function(written(tmp_path, "def call(): pass\n"), "call")
    beside = tmp_path.with_name(tmp_path.name + "_2")
    beside.mkdir()
    raising = compile("1 / 0", str(beside / "library.py"), "exec")
    with pytest.raises(ZeroDivisionError) as caught:
        exec(raising, {})
    assert users_error(caught.value) == ""
    assert classify(caught.value, None).kind == "stage"


def test_of_a_failed_worker_only_errors_raised_by_user_code_are_user_errors(tmp_path):
    text = "def own():\n    raise ValueError('mine')\ndef through(f):\n    f()\n"
    own = load_function(written(tmp_path, text), "own")

    def peer_is_gone():
        raise ConnectionError("peer is gone")

    def error_of(call, *arguments):
        try:
            call(*arguments)
        except Exception as error:
            return users_error(error, directly=True)

    assert error_of(own) == "mine.py, line 2: ValueError: mine"
    assert error_of(load_function(str(tmp_path / "mine.py"), "through"), peer_is_gone) == ""


def test_the_line_that_autograph_reports_is_used(tmp_path):
    path = written(tmp_path, "def call(): pass\n")
    load_function(path, "call")
    # As TensorFlow's AutoGraph raises it: the trace has generated files only.
    error = RuntimeError(
        f'in user code:\n\n    File "{path}", line 7, in call  *\n        raise ValueError()\n\n    ValueError: x\n'
    )
    assert users_error(error).startswith("mine.py, line 7: RuntimeError: in user code: File")


@pytest.mark.parametrize("kind", ["function", "partial", "class", "instance", "wrapped"])
def test_the_folder_of_any_callable_of_a_file_is_found(kind, tmp_path):
    text = (
        "import functools\n"
        "def function(): pass\n"
        "partial = functools.partial(function)\n"
        "class class_:\n    def __call__(self): pass\n"
        "instance = class_()\n"
        "@functools.wraps(function)\ndef wrapped(): pass\n"
    )
    found = load_function(written(tmp_path, text), {"class": "class_"}.get(kind, kind))
    assert folder_of(found) == str(tmp_path)


def test_a_callable_without_a_file_has_no_folder():
    assert folder_of(len) == ""
    assert not re.search("x", folder_of(None))
