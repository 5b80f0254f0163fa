"""`switchyard init`: what it writes for data and without, what it infers and why, and what it refuses."""

import io
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from switchyard.components.errors import UserError
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.project.write import write_project
from tests.bad_input import GOOD, command_in_this_process

SENTENCES = [f"the film number {i} was {'good' if i % 2 else 'bad'}" for i in range(60)]
CODE = ["keras_model.py", "torch_model.py", "test_project.py", ".gitignore"]


@pytest.fixture
def command():
    with command_in_this_process() as command:
        yield command


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, with good rows in `d.csv`: the features `x` and `word`, and `y`, 0 or 1."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text(GOOD)
    return tmp_path


def init(place, *data, output="project", told=None, **options):
    told = [] if told is None else told
    return write_project([str(d) for d in data], folder=place / output, tell=told.append, **options)


def png(size=(12, 9), mode="RGB"):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)).convert(mode).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("template", "task", "files"),
    [
        ("tabular", "binary", ["rides.csv"]),
        ("text", "binary", ["reviews.csv", "tokenizer.py"]),
        ("image", "multiclass", ["shapes.parquet"]),
    ],
)
def test_without_data_a_template_comes_with_invented_rows(template, task, files, place):
    project = init(place, template=template)
    assert set(project.files) == {"pipeline.yaml", *CODE, *files}
    assert sorted(project.files) == sorted(p.name for p in project.folder.iterdir())
    config = load_config(project.folder / "pipeline.yaml")
    assert (config.task, config.data.path) == (task, (str(project.folder / files[0]),))
    again = init(place, template=template, output="again")
    assert all((project.folder / name).read_bytes() == (again.folder / name).read_bytes() for name in project.files)


def test_the_yaml_says_what_was_found_and_why(place):
    init(place, "d.csv")
    text = (place / "project" / "pipeline.yaml").read_text()
    assert text.startswith("# Predicts y from ../d.csv. Written by `switchyard init`, which read its 200 rows.\n")
    assert "  #   x: integer\n  #   word: text\n" in text
    assert re.search(r"^label: y +# the column to predict, found by its name$", text, re.MULTILINE)
    assert re.search(r"^task: binary +# 2 values: 0 \(104 rows\), 1 \(96 rows\)$", text, re.MULTILINE)
    assert re.search(r"^# positive_class: '1' +# .*by its name$", text, re.MULTILINE)
    config = load_config(place / "project" / "pipeline.yaml")
    assert (config.name, config.label, config.data.path) == ("d", "y", (str(place / "d.csv"),))
    assert config.trainer.model == {
        n: str(place / "project" / f"{f}_model.py") for n, f in (("tensorflow", "keras"), ("pytorch", "torch"))
    }


def test_what_is_commented_out_in_the_yaml_is_accepted_as_well(place):
    pd.DataFrame({"text": SENTENCES, "word": ["a", "b"] * 30, "id": range(60), "label": [0, 1] * 30}).to_csv("t.csv", index=False)
    for data, ending in (("d.csv", "\n"), ("t.csv", "\n")):
        folder = init(place, data, output=f"of_{data}").folder
        lines = (folder / "pipeline.yaml").read_text().split(ending)
        keys = [re.sub(r"^( *)# ", r"\1", line) if re.match(r" *# [a-z_]+: ", line) else line for line in lines]
        keys = [line for line in keys if not re.match(r" *(preprocessing|schema): ", line)]
        keys = [line.replace("[id]", "[word]").replace("{zip:", "{id:").replace("key: user", "key: id") for line in keys]
        if data == "d.csv":
            keys = [line for line in keys if not line.startswith("  columns: {id") and "split_key" not in line]
        (folder / "pipeline.yaml").write_text("\n".join(keys))
        config = load_config(folder / "pipeline.yaml")
        assert (config.data.exclude, config.tune.trials, bool(config.evaluation.thresholds)) == (("word",), 20, True)


def test_columns_without_equal_values_are_suggested_as_ids_and_not_as_slices(place):
    rows = {"Customer ID": [f"C-{i}" for i in range(60)], "No.": range(60), "x": [i / 7 for i in range(60)]}
    dates = pd.date_range("2024-01-01", periods=60).date
    pd.DataFrame(rows | {"since": dates, "plan": ["a", "b"] * 30, "label": [0, 1] * 30}).to_csv("t.csv", index=False)
    init(place, "t.csv")
    text = (place / "project" / "pipeline.yaml").read_text()
    assert "\n  # exclude: [Customer ID, No.]  " in text
    assert "\n  # slices: [plan]  " in text


@pytest.mark.parametrize("name", ["no", "1", "a: #b", 'it\'s "so"', "{x}", "a\nb", "ä ü", "- x", "{{ x }}"])
def test_every_name_of_a_column_is_written_as_it_is(name, place):
    rows = {"x": list(range(60)), f"{name}2": ["u", "v"] * 30, name: ["no", "yes"] * 30}
    pd.DataFrame(rows).to_json("d.jsonl", orient="records", lines=True)
    init(place, "d.jsonl", label=name)
    text = (place / "project" / "pipeline.yaml").read_text()
    assert load_config(place / "project" / "pipeline.yaml").label == name
    assert yaml.safe_load(text)["label"] == name


def test_texts_of_several_words_are_read_by_a_tokenizer_and_other_words_are_not(place):
    pd.DataFrame({"said": SENTENCES, "word": ["a", "b"] * 30, "label": [0.5, 1.25] * 30}).to_parquet("t.parquet")
    project = init(place, "t.parquet")
    config = load_config(project.folder / "pipeline.yaml")
    assert (project.found.template, config.task) == ("text", "regression")
    assert config.tokenizer.columns == ("said",)
    assert "tokenizer.py" in project.files


@pytest.mark.parametrize("kind", ["binary", "paths"])
def test_columns_of_pictures_are_found_and_declared(kind, place):
    (place / "photos").mkdir()
    (place / "photos" / "1.png").write_bytes(png(mode="L"))
    values = [png(mode="L")] * 40 if kind == "binary" else ["photos/1.png"] * 40
    pd.DataFrame({"photo": values, "class": ["cat", "dog"] * 20}).to_parquet("p.parquet")
    project = init(place, "p.parquet")
    assert project.found.template_by == "pictures in photo"
    column = load_config(project.folder / "pipeline.yaml").data.columns["photo"]
    assert (column.type, column.shape) == ("image", (9, 12, 1))


def test_a_folder_of_pictures_for_each_class_becomes_a_file_of_the_project(place):
    for name in ("cats", "dogs"):
        (place / "pets" / name).mkdir(parents=True)
        for i in range(3):
            (place / "pets" / name / f"{i}.png").write_bytes(png())
    told = []
    project = init(place, "pets", told=told)
    config = load_config(project.folder / "pipeline.yaml")
    assert (config.name, config.label, config.task) == ("pets", "class", "binary")
    assert config.data.path == (str(project.folder / "pets.parquet"),)
    text = (project.folder / "pipeline.yaml").read_text()
    assert "\n  # It was made of the pictures in pets; `switchyard init` makes it again" in text
    assert told == ["6 pictures, resized to 9 x 12 (data.columns.image.size): cats 3, dogs 3"]


def test_lists_of_different_lengths_are_declared_as_sequences(place):
    rows = [{"seen": list(range(i % 5)), "target": i % 2} for i in range(60)]
    pd.DataFrame(rows).to_json("s.jsonl", orient="records", lines=True)
    init(place, "s.jsonl")
    assert load_config(place / "project" / "pipeline.yaml").data.columns["seen"].length == 4


def test_how_the_data_are_read_is_written_into_the_yaml(place):
    (place / "semi.csv").write_text(GOOD.replace(",", ";"))
    with pytest.raises(UserError, match=r'Set data\.csv\.separator: ";"'):
        init(place, "semi.csv")
    init(place, "semi.csv", overrides=["data.csv.separator=';'", "data.exclude=[word]"])
    data = load_config(place / "project" / "pipeline.yaml").data
    assert (data.csv.separator, data.exclude) == (";", ("word",))


def test_paths_are_relative_to_the_yaml_and_absolute_ones_and_globs_stay(place):
    (place / "parts").mkdir()
    for i in range(2):
        (place / "parts" / f"{i}.csv").write_text(GOOD)
    init(place, "parts/*.csv", output="deep/er")
    assert yaml.safe_load((place / "deep/er/pipeline.yaml").read_text())["data"]["path"] == "../../parts/*.csv"
    init(place, place / "d.csv", "parts", output="other")
    assert yaml.safe_load((place / "other/pipeline.yaml").read_text())["data"]["path"] == [str(place / "d.csv"), "../parts"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["e.csv"], "--label: name the column to predict. Columns: x, word, answer."),
        (["e.csv", "--label", "anser"], "label: "),
        (["e.csv", "--label", "anser"], "Did you mean 'answer'?"),
        (["d.csv", "--template", "image"], "--template: no column holds PNG or JPEG pictures"),
        (["n.csv", "--template", "text"], "--template: no column holds texts"),
        (["nowhere.csv"], "nowhere.csv. Check the path"),
        (["d.csv", "--set", "trainer.framework=pytorch"], "--set: trainer.framework does not decide how DATA is read"),
        (["d.csv", "--set", "data.path=e.csv"], "--set: data.path does not decide how DATA is read"),
        (["--label", "y"], "--label: describes DATA, and none is given"),
        (["d.csv", "-o", "e.csv"], "--output: e.csv is a file"),
        (["one.csv"], "there is nothing to learn"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_sentence_and_leaves_nothing(arguments, message, command, place):
    (place / "e.csv").write_text(GOOD.replace("x,word,y", "x,word,answer"))
    (place / "n.csv").write_text("x,y\n1,0\n2,1\n3,0\n")
    (place / "one.csv").write_text("x,y\n1,0\n2,0\n3,0\n")
    before = sorted(place.rglob("*"))
    done = command("init", *(["-o", "new/project"] if "-o" not in arguments else []), *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert sorted(place.rglob("*")) == before


def test_files_that_exist_are_named_and_stay(command, place):
    (place / "torch_model.py").write_text("mine")
    (place / "keras_model.py").symlink_to("nowhere")
    for arguments in (["d.csv"], ["--template", "tabular"], ["--template", "text"]):
        done = command("init", *arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        assert (
            "keras_model.py, torch_model.py would be overwritten; give a new folder by --output, or move them away" in done.stderr
        )
        assert sorted(p.name for p in place.iterdir()) == ["d.csv", "keras_model.py", "torch_model.py"]
    assert (place / "torch_model.py").read_text() == "mine"


def test_a_gitignore_that_exists_is_kept_and_what_it_lacks_is_named(command, place):
    (place / ".gitignore").write_text(".venv/\n__pycache__/\n")
    done = command("init", "d.csv")
    assert done.exit_code == 0
    assert (place / ".gitignore").read_text() == ".venv/\n__pycache__/\n"
    assert "add the lines for what a run writes: .switchyard/, *.kfp.yaml, .pytest_cache/" in done.stderr


def test_the_command_lists_the_files_and_what_comes_next(command, place):
    done = command("init", "d.csv")
    assert done.stdout.split() == ["pipeline.yaml", "keras_model.py", "torch_model.py", "test_project.py", ".gitignore"]
    assert done.stderr == (
        "template: tabular (no column holds texts of several words, or pictures)\n"
        "label: y (found by its name), task: binary (2 values: 0 (104 rows), 1 (96 rows))\n"
        "next: switchyard run --trainer tensorflow --trainer pytorch\n"
    )


@pytest.mark.parametrize("words", [["run"], ["compile"], ["doctor"]])
def test_a_missing_yaml_is_advised_to_be_written(words, command, place):
    assert (
        "nowhere.yaml: no such file. Give a pipeline's YAML; `switchyard init` writes one."
        in command(*words, "nowhere.yaml").stderr
    )


def test_a_wide_table_is_shown_in_part(place):
    pd.DataFrame({**{f"x{i}": range(40) for i in range(300)}, "y": [0, 1] * 20}).to_parquet("wide.parquet")
    init(place, "wide.parquet")
    text = (place / "project" / "pipeline.yaml").read_text()
    assert "  #   x99: integer\n  #   ... and 200 more\n" in text


@pytest.mark.parametrize("words", [["run"], ["compile"], ["schema", "infer"], ["dependencies", "list"]])
def test_without_an_argument_a_pipeline_is_that_of_the_folder(words, command, place):
    (place / "pipeline.yaml").write_text("nmae: x\n")
    done = command(*words)
    assert done.exit_code == 2
    assert "error: pipeline.yaml: " in done.stderr
