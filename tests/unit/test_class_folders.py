"""A folder of pictures without a YAML: its folders are the classes, or one sentence says what to do."""

import io
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from switchyard.components.errors import UserError
from switchyard.pipelines.api.class_folders import class_folders, in_workspace
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import tokenizer_code, trainer_settings


def picture(size=(12, 9), mode="RGB", kind="PNG"):
    file = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(values).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pets"
    for name in ("cats/1.png", "cats/more/2.PNG", "dogs/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture())
    (root / "dogs" / "2.jpg").write_bytes(picture(kind="JPEG"))
    return root


def read(folder, label="animal"):
    told = []
    return class_folders([str(folder)], label, partial(in_workspace, folder.parent / "workspace"), told.append), told


def test_the_folders_of_pictures_are_the_classes(folder):
    (folder / "dogs" / "notes.md").write_text("of the dogs")
    (folder / "dogs" / "3.png").touch()
    (folder / "dogs" / "._1.png").write_bytes(b"of the desktop")
    document, told = read(folder)
    assert document["name"] == "pets"
    assert document["label"] == "animal"
    assert document["data"]["columns"] == {
        "image": {"type": "image", "size": [9, 12], "channels": 3},
        "animal": {"type": "text"},  # also of folders that are called 1.5 or None
    }
    rows = pd.read_parquet(document["data"]["path"][0])
    assert rows["animal"].tolist() == ["cats", "cats", "dogs", "dogs"]
    assert rows["image"][0] == (folder / "cats" / "1.png").read_bytes()
    assert told == [
        "warning: skipped 1 of 5 files, no pictures (.png, .jpg, .jpeg): notes.md",
        "warning: skipped 1 pictures without a byte, or links that lead nowhere: 3.png",
        "4 pictures, resized to 9 x 12 (data.columns.image.size): cats 2, dogs 2",
    ]
    before = (folder.parent / "workspace" / "data" / "pets.parquet").read_bytes()
    read(folder)
    assert (folder.parent / "workspace" / "data" / "pets.parquet").read_bytes() == before


def test_large_pictures_are_made_smaller_and_grey_ones_stay_grey(folder):
    for file in folder.rglob("*.*"):
        file.write_bytes(picture((300, 200), "L"))
    assert read(folder)[0]["data"]["columns"]["image"] == {"type": "image", "size": [64, 64], "channels": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda root: (root / "loose.png").write_bytes(picture()), r"pictures without a class \(loose.png\); move each into"),
        (lambda root: (root / "dogs").rename(root.parent / "dogs"), r"one folder of pictures, 'cats'; there must be one"),
        (lambda root: (root / "dogs" / "3.png").write_bytes(b"no picture"), r"3.png must hold JPEG or PNG images; remove"),
        (lambda root: (root / "dogs" / "3.txt").write_text("a text"), r"holds 4 pictures and 1 texts \(.txt\), .* one kind"),
        (
            lambda root: ((root / "dogs").rename(root / "train"), (root / "cats").rename(root / "val")),
            r"the folders of .* are splits \(train, val\), not classes",
        ),
        (lambda root: (root / "dogs" / "all").symlink_to(root), r"cats/1.png and .* are one file, by a link; remove"),
        (
            lambda root: (root / "dogs").rename(root / os.fsdecode(b"d\xff")),
            r"the folder 'd\\udcff' is not UTF-8 text; rename it",
        ),
    ],
    ids=["no class", "one class", "no picture", "texts", "splits", "a link to all", "no text"],
)
def test_another_layout_is_refused_with_what_to_do(change, reason, folder):
    change(folder)
    with pytest.raises(UserError, match=reason):
        read(folder)
    assert not (folder.parent / "workspace" / "data" / "pets.parquet").exists()


def test_a_label_with_the_name_of_the_pictures_is_refused(folder):
    with pytest.raises(UserError, match="--label: the pictures are the column 'image'; name the label otherwise"):
        read(folder, "image")


def test_other_data_is_left_to_ingest(tmp_path):
    (tmp_path / "rows.csv").write_text("x,animal\n1,a\n")
    (tmp_path / "1.png").write_bytes(picture())
    assert read(tmp_path)[0] is None
    assert class_folders([str(tmp_path / "rows.csv")], "y", None, print) is None


@pytest.fixture
def reviews(tmp_path):
    root = tmp_path / "reviews"
    for name, text in {
        "good/1.txt": "Clever, and not dull.",
        "good/2.TXT": "\ufeffFine\n",
        "bad/1.txt": "Ärgerlich",
        "bad/x.md": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    return root


def test_the_folders_of_texts_are_the_classes_and_their_words_are_read_by_both_networks(reviews):
    document, told = read(reviews, "verdict")
    rows = pd.read_parquet(document["data"]["path"][0])
    assert rows["text"].tolist() == ["Ärgerlich", "Clever, and not dull.", "Fine\n"]
    assert rows["verdict"].tolist() == ["bad", "good", "good"]
    assert told == ["3 texts, the column 'text': bad 1, good 2"]
    for trainer in ("tensorflow", "pytorch", "lightgbm"):
        config = load_config(None, document=document, overrides=[f"trainer.framework={trainer}"])
        assert config.tokenizer.columns == ("text",)
        if trainer != "lightgbm":
            settings = trainer_settings(config, reviews.parent / "store", trainer)
            assert Path(settings.code.path).is_file()
    assert tokenizer_code(config, reviews.parent / "store").function == "build_tokenizer"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda root: (root / "loose.txt").write_text("a"),
            r"texts without a class \(loose.txt\); move each into .* good/1.txt, or",
        ),
        (lambda root: shutil.rmtree(root / "bad"), r"one folder of texts, 'good'; there must be one"),
        (
            lambda root: (root / "bad" / "2.txt").write_bytes("é".encode("latin1")),
            r"2.txt is not UTF-8 text: byte 0xe9 at offset 0; convert",
        ),
    ],
    ids=["no class", "one class", "no UTF-8"],
)
def test_texts_in_another_layout_are_refused_with_what_to_do(change, reason, reviews):
    change(reviews)
    with pytest.raises(UserError, match=reason):
        read(reviews)
    assert not (reviews.parent / "workspace" / "data" / "reviews.parquet").exists()
