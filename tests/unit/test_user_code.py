from pathlib import Path

import pytest

from switchyard.components.errors import UserError
from switchyard.components.user_code.loading import snapshot
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import preprocessing_code


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


def test_a_missing_file_is_refused(tmp_path):
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


OPENS = {
    "beside the file": ("open(Path(__file__).parent / 'words.txt')", "words.txt"),
    "in a folder": ("open(Path(__file__).parent / 'data' / 'words.txt')", "data/words.txt"),
    "in a folder, one literal": ("open(Path(__file__).parent / 'data/words.txt')", "data/words.txt"),
    "by os.path": ("open(os.path.join(os.path.dirname(__file__), 'data', 'words.txt'))", "data/words.txt"),
    "by joinpath": ("open(Path(__file__).parent.joinpath('data', 'words.txt'))", "data/words.txt"),
    "by a constant": ("open(Path(__file__).parent / NAME)", "words.txt"),
}


@pytest.mark.parametrize("case", OPENS)
def test_a_file_that_the_code_names_travels_with_it(case, tmp_path):
    expression, name = OPENS[case]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a b")
    put(tmp_path, model=f"import os\nfrom pathlib import Path\nNAME = 'words.txt'\ndef f(): return {expression}.read()\n")
    code = snapshot(str(tmp_path / "model.py"), "f", tmp_path / "store", key="k")
    (tmp_path / name).unlink()
    assert code.load()() == "a b"


def test_a_file_that_a_helper_names_travels_too_and_changes_the_snapshot(tmp_path):
    (tmp_path / "inner").mkdir()
    put(tmp_path, model="from inner import words\ndef f(): return words.WORDS\n")
    put(tmp_path / "inner", words="from pathlib import Path\nWORDS = (Path(__file__).parent / 'words.txt').read_text()\n")
    (tmp_path / "inner" / "words.txt").write_text("a")
    first = snapshot(str(tmp_path / "model.py"), "f", tmp_path / "store", key="k")
    (tmp_path / "inner" / "words.txt").write_text("b")
    assert snapshot(str(tmp_path / "model.py"), "f", tmp_path / "store", key="k") != first
    (tmp_path / "inner" / "words.txt").write_text("a")
    assert first.load()() == "a"


def test_a_file_named_only_in_a_docstring_does_not_travel(tmp_path):
    put(tmp_path, model='"""words.txt"""\ndef f():\n    "words.txt"\n    return 1\n')
    (tmp_path / "words.txt").write_text("a")
    snapshot(str(tmp_path / "model.py"), "f", tmp_path / "store", key="k")
    assert not list((tmp_path / "store").rglob("words.txt"))


def test_a_file_outside_the_codes_folder_is_refused(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "words.txt").write_text("a")
    put(tmp_path / "code", model="from pathlib import Path\ndef f(): return Path(__file__).parent / '../words.txt'\n")
    with pytest.raises(UserError, match=r"model\.py names '\.\./words\.txt', which is outside"):
        snapshot(str(tmp_path / "code" / "model.py"), "f", tmp_path / "store", key="k")


def test_a_file_that_did_not_travel_is_an_error_that_names_the_key(tmp_path):
    put(tmp_path, model="from pathlib import Path\nX = (Path(__file__).parent / ('words' + '.txt')).read_text()\ndef f(): pass\n")
    (tmp_path / "words.txt").write_text("a")
    with pytest.raises(UserError, match=r"line 2: FileNotFoundError: .*files: \["):
        snapshot(str(tmp_path / "model.py"), "f", tmp_path / "store", key="k").load()


def project(folder, files):
    put(folder, features="from pathlib import Path\ndef preprocessing_fn(inputs): return inputs\n")
    (folder / "words").mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / "words" / name).write_text(name)
    (folder / "pipeline.yaml").write_text(
        f"name: x\ndata: {{path: d.csv}}\nlabel: y\npreprocessing: features.py\nfiles: {files}\n"
    )
    return load_config(folder / "pipeline.yaml")


@pytest.mark.parametrize(
    ("files", "taken"), [("words", {"a.txt", "b.txt"}), ("[words/a.txt]", {"a.txt"}), ("words/b*", {"b.txt"})]
)
def test_files_folders_and_globs_of_the_config_travel_with_the_code(files, taken, tmp_path):
    code = preprocessing_code(project(tmp_path, files), tmp_path / "store")
    assert {f.name for f in (Path(code.path).parent / "words").iterdir()} == taken


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("nothing.txt", "files: no file at .*nothing.txt"),
        ("../outside.txt", "files: .*outside.txt is outside the folders of the code"),
    ],
)
def test_a_listed_file_that_cannot_travel_is_refused(files, message, tmp_path):
    (tmp_path / "outside.txt").touch()
    (tmp_path / "project").mkdir()
    with pytest.raises(UserError, match=message):
        preprocessing_code(project(tmp_path / "project", files), tmp_path / "store")


def test_a_listed_file_whose_path_leaves_the_codes_folder_is_refused(tmp_path):
    (tmp_path / "outside.txt").touch()
    (tmp_path / "project").mkdir()
    with pytest.raises(UserError, match=r"outside\.txt is outside the folders of the code"):
        preprocessing_code(project(tmp_path / "project", f"{tmp_path}/project/../outside.txt"), tmp_path / "store")
