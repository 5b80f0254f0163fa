import pytest

from components.errors import UserError
from components.user_code import snapshot


def put(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def test_only_files_that_are_imported_change_a_snapshot(tmp_path):
    put(tmp_path, model="import helper\ndef build_model(spec): return helper.X\n", helper="X = 1\n", other="Y = 1\n")

    def take():
        return snapshot(str(tmp_path / "model.py"), "build_model", tmp_path / "store", key="k")

    first = take()
    put(tmp_path, other="Y = 2\n")
    assert take() == first
    put(tmp_path, helper="X = 2\n")
    assert take().path != first.path
    assert not list((tmp_path / "store").glob("*/other.py"))


def test_a_snapshot_outlives_the_file(tmp_path):
    put(tmp_path, alone="def f(): return 7\n")
    code = snapshot(f"{tmp_path / 'alone.py'}:f", "build_model", tmp_path / "store", key="k")
    (tmp_path / "alone.py").unlink()
    assert code.load()() == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", "line 1: not valid Python"),
        ("x = 1/0\n", "broken.py, line 1: ZeroDivisionError"),
        ("y = 1\n", "has no function 'f'"),
    ],
)
def test_broken_code_is_refused_with_its_line(text, message, tmp_path):
    put(tmp_path, broken=text)
    with pytest.raises(UserError, match=message):
        snapshot(f"{tmp_path / 'broken.py'}:f", "f", tmp_path / "store", key="k").load()


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        snapshot(str(tmp_path / "none.py"), "f", tmp_path / "store", key="k")


@pytest.mark.parametrize("name", ["keras", "json", "math"])
def test_a_file_named_like_an_installed_module_is_refused(name, tmp_path):
    put(tmp_path, **{name: "def f(): pass\n", "model": f"import {name}\ndef f(): pass\n"})
    for file in (name, "model"):
        with pytest.raises(UserError, match=f"'{name}' is also an installed module .* Rename the file"):
            snapshot(str(tmp_path / f"{file}.py"), "f", tmp_path / "store", key="k")


def test_two_snapshots_with_helpers_of_the_same_name_in_one_process(tmp_path):
    found = []
    for value in (1, 2):
        put(tmp_path, own_model="from own_helper import X\ndef f(): return X\n", own_helper=f"X = {value}\n")
        found.append(snapshot(str(tmp_path / "own_model.py"), "f", tmp_path / "store", key="k"))
    assert [code.load()() for code in found] == [1, 2]
    assert found[0].load()() == 1
