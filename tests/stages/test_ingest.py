"""Ingest's executor on TFX's artifacts: every format in, the splits' examples out."""

import gzip
import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from switchyard.components.data import shards
from switchyard.components.data.row_keys import load_row_keys
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.ingest import csv_reader
from switchyard.components.ingest.executor import Executor
from tests.ingest_inputs import input_spec

pytestmark = pytest.mark.core


def frame(rows=200):
    rng = np.random.default_rng(0)
    data = pd.DataFrame(
        {"i": rng.integers(0, 9, rows), "f": rng.normal(size=rows), "s": rng.choice(["a", 'b, "c"', "d\ne"], rows)}
    )
    data["f"] = data["f"].astype(np.float32).astype(float)
    data.loc[::7, "f"] = np.nan
    data["y"] = (rng.random(rows) > 0.5).astype(int)
    return data


def ingest(tmp_path, **settings):
    examples = standard_artifacts.Examples()
    examples.uri = str(tmp_path / "out")
    (tmp_path / "out").mkdir()
    spec = input_spec(*settings.pop("path", []), **{"weights": {"train": 0.8, "eval": 0.2}, **settings})
    Executor().Do({}, {"examples": [examples]}, {"input": json.dumps(asdict(spec)), "fingerprint": "f"})
    return DatasetSummary.load(examples.uri), read(tmp_path / "out")


def read(out):
    rows = []
    for file in sorted(out.glob("Split-*/*")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            row = {"split": file.parent.name}
            for name, feature in example.features.feature.items():
                values = getattr(feature, feature.WhichOneof("kind")).value if feature.WhichOneof("kind") else []
                row[name] = values[0] if len(values) == 1 else list(values) or None
            rows.append(row)
    return rows


def write_csv(path, data=None):
    (frame() if data is None else data).to_csv(path, index=False)
    return str(path)


def write_tfrecord(path, data):
    with tf.io.TFRecordWriter(str(path)) as out:
        for row in data.itertuples():
            feature = {
                "i": tf.train.Feature(int64_list=tf.train.Int64List(value=[row.i])),
                "s": tf.train.Feature(bytes_list=tf.train.BytesList(value=[row.s.encode()])),
                "y": tf.train.Feature(int64_list=tf.train.Int64List(value=[row.y])),
            }
            if not np.isnan(row.f):
                feature["f"] = tf.train.Feature(float_list=tf.train.FloatList(value=[row.f]))
            out.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def make(kind, tmp_path):
    data = frame()
    if kind == "csv":
        return write_csv(tmp_path / "d.csv", data)
    if kind == "csv.gz":
        with gzip.open(tmp_path / "d.csv.gz", "wt", newline="") as file:
            data.to_csv(file, index=False)
        return str(tmp_path / "d.csv.gz")
    if kind == "parquet":
        data.to_parquet(tmp_path / "d.parquet")
        return str(tmp_path / "d.parquet")
    if kind == "jsonl":
        data.to_json(tmp_path / "d.jsonl", orient="records", lines=True)
        return str(tmp_path / "d.jsonl")
    write_tfrecord(tmp_path / "d.tfrecord", data)
    return str(tmp_path / "d.tfrecord")


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "jsonl", "tfrecord"])
def test_every_format_gives_the_same_rows(kind, tmp_path):
    summary, rows = ingest(tmp_path, path=[make(kind, tmp_path)])
    expected = frame()
    assert summary.columns == {"i": "integer", "f": "float", "s": "string", "y": "integer"}
    assert summary.missing["f"] == expected["f"].isna().sum()
    assert summary.classes == [0, 1]
    assert summary.task == "binary"
    assert sum(summary.rows.values()) == len(rows) == len(expected)

    def key(row):
        f = row["f"]
        return (
            row["i"],
            None if f is None or np.isnan(f) else round(float(f), 5),
            row["s"] if isinstance(row["s"], str) else row["s"].decode(),
            row["y"],
        )

    assert sorted(map(key, rows), key=str) == sorted((key(r) for r in expected.to_dict("records")), key=str)


def test_splits_are_deterministic_and_near_their_weights(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    path = write_csv(tmp_path / "d.csv", frame(3000))
    first, rows = ingest(tmp_path / "a", path=[path], weights={"train": 7, "eval": 2, "test": 1})
    second, again = ingest(tmp_path / "b", path=[path], weights={"train": 7, "eval": 2, "test": 1})
    assert rows == again
    assert first.rows == second.rows
    assert [round(n / 3000, 1) for n in first.rows.values()] == [0.7, 0.2, 0.1]


def test_split_key_keeps_a_group_together(tmp_path):
    data = frame(1000).assign(user=lambda d: d.index % 40)
    _, rows = ingest(tmp_path, path=[write_csv(tmp_path / "d.csv", data)], split_key="user")
    splits = {}
    for row in rows:
        splits.setdefault(row["user"], set()).add(row["split"])
    assert all(len(s) == 1 for s in splits.values())
    assert set.union(*splits.values()) == {"Split-train", "Split-eval"}


def test_a_split_key_groups_rows_across_files_of_any_type_and_is_no_feature_if_excluded(tmp_path):
    users = np.random.default_rng(1).integers(1, 102, 700)
    for name, kind in (("a", "int64"), ("b", "float64"), ("c", "category")):
        part = frame(700).assign(user=users.astype("float64"), who=users)
        if name == "b":
            part.loc[5, "user"] = np.nan
        part.astype({"user": kind}).to_parquet(tmp_path / f"{name}.parquet", index=False)
    frame(700).assign(user=[f" {u}" for u in users], who=users).to_csv(tmp_path / "d.csv", index=False)
    summary, rows = ingest(
        tmp_path, path=[str(tmp_path / "*.parquet"), str(tmp_path / "d.csv")], split_key="user", exclude=["user"]
    )
    splits = {split: {row["who"] for row in rows if row["split"] == split} for split in ("Split-train", "Split-eval")}
    assert len(splits["Split-train"] & splits["Split-eval"]) <= 1  # the one row whose key is missing
    assert splits["Split-train"] | splits["Split-eval"] == set(users)
    assert "user" not in summary.columns


def test_splits_can_be_separate_inputs(tmp_path):
    train, held = write_csv(tmp_path / "t.csv", frame(50)), write_csv(tmp_path / "e.csv", frame(20))
    summary, _ = ingest(tmp_path, weights={}, split_paths={"train": [train], "eval": [held]})
    assert summary.rows == {"train": 50, "eval": 20}


def test_globs_are_read_in_full_without_the_excluded_columns(tmp_path):
    for i in range(3):
        write_csv(tmp_path / f"part{i}.csv", frame(30))
    summary, rows = ingest(tmp_path, path=[str(tmp_path / "part*.csv")], exclude=["s"])
    assert len(summary.files) == 3
    assert len(rows) == 90
    assert "s" not in rows[0]


def test_types_widen_over_the_whole_input(tmp_path, monkeypatch):
    # A few rows a batch, as millions of rows have it.
    monkeypatch.setattr(csv_reader, "_BLOCK", 1024)
    lines = ["a,b,c,y", *[f"{i if i < 150 else 'x'},{i},{i},0" for i in range(300)], "x,1.5,,1"]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    summary, _ = ingest(tmp_path, path=[str(tmp_path / "d.csv")])
    assert summary.columns == {"a": "string", "b": "float", "c": "integer", "y": "integer"}


def test_a_split_is_written_in_shards_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_ROWS", 50)
    ingest(tmp_path, path=[write_csv(tmp_path / "d.csv", frame(300))])
    names = sorted(p.name for p in (tmp_path / "out" / "Split-train").iterdir())
    assert len(names) == 5
    assert names[0] == "data_tfrecord-00000-of-00005"


def test_bad_rows_are_counted_sampled_and_skipped(tmp_path):
    good = frame(100).assign(s="t").to_csv(index=False)
    bad = "1,2\n" + "9,0.5,t,1,extra\n"
    (tmp_path / "d.csv").write_bytes((good + bad).encode() + b"1,0.5,\xff\xfe,1\n" + b"1,0.5,t,\n")
    with pytest.raises(UserError, match=r"4 bad rows, data.max_bad_rows allows 0"):
        ingest(tmp_path, path=[str(tmp_path / "d.csv")])
    (tmp_path / "again").mkdir()
    summary, rows = ingest(tmp_path / "again", path=[str(tmp_path / "d.csv")], max_bad_rows=4)
    assert summary.bad_rows == 4
    assert len(rows) == 100
    reasons = " ".join(s["reason"] for s in summary.bad_row_samples)
    assert all(part in reasons for part in ("fields where the header has 4", "not UTF-8", "label 'y' is missing"))


def test_bad_json_lines_are_counted_and_skipped(tmp_path):
    lines = [json.dumps({"x": i, "y": i % 2}) for i in range(80)]
    (tmp_path / "d.jsonl").write_text("\n".join([*lines, "{oops", "[1]"]))
    summary, rows = ingest(tmp_path, path=[str(tmp_path / "d.jsonl")], max_bad_rows=2)
    assert summary.bad_rows == 2
    assert len(rows) == 80


def test_a_split_without_rows_is_refused(tmp_path):
    (tmp_path / "d.csv").write_text("x,y\n1,0\n2,1\n")
    with pytest.raises(UserError, match="'eval' has no rows"):
        ingest(tmp_path, path=[str(tmp_path / "d.csv")], weights={"train": 1, "eval": 1e-9})


def test_renaming_or_correcting_labels_moves_no_row_to_another_split(tmp_path):
    splits = []
    for name, labels in (("a", ["bad", "good"]), ("b", ["zbad", "good"]), ("c", ["good", "bad"])):
        (tmp_path / name).mkdir()
        data = frame(300).assign(i=range(300), y=lambda d, labels=labels: np.where(d["y"] == 1, labels[1], labels[0]))
        _, rows = ingest(tmp_path / name, path=[write_csv(tmp_path / "d.csv", data)])
        splits.append({r["i"]: r["split"] for r in rows})
    assert splits[0] == splits[1] == splits[2]


def test_a_named_test_split_is_evaluated_and_is_refused_without_rows(tmp_path):
    path = write_csv(tmp_path / "d.csv", frame(400))
    (tmp_path / "a").mkdir()
    summary, _ = ingest(tmp_path / "a", path=[path], weights={"train": 0.7, "eval": 0.1, "test": 0.2})
    assert summary.held_out == "test"
    (tmp_path / "b").mkdir()
    without, _ = ingest(tmp_path / "b", path=[path], weights={"train": 0.8, "eval": 0.2})
    assert without.held_out == "eval"
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="'test' has no rows"):
        ingest(tmp_path / "c", path=[path], weights={"train": 1, "eval": 1, "test": 1e-9})


def test_text_labels_are_classes_in_alphabetical_order(tmp_path):
    data = frame().assign(y=lambda d: np.where(d["y"] == 1, "yes", "no"))
    summary, _ = ingest(tmp_path, path=[write_csv(tmp_path / "d.csv", data)])
    assert summary.classes == ["no", "yes"]
    assert sum(summary.class_counts.values()) == summary.rows["train"]


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    ("zero", "one", "classes"),
    [(False, True, [0, 1]), (0.0, 1.0, [0, 1]), (2**53, 2**53 + 1, [2**53, 2**53 + 1]), ("a ", "b", ["a", "b"])],
)
def test_a_label_has_the_same_classes_and_examples_in_every_format(ending, zero, one, classes, tmp_path):
    data = frame().drop(columns="y").assign(y=[(zero, one)[i % 2] for i in range(200)])
    path = tmp_path / f"d.{ending}"
    if ending == "jsonl":
        data.to_json(path, orient="records", lines=True)
    else:
        {"csv": pd.DataFrame.to_csv, "parquet": pd.DataFrame.to_parquet}[ending](data, path, index=False)
    summary, rows = ingest(tmp_path, path=[str(path)])
    assert summary.classes == classes
    assert sum(summary.class_counts.values()) == summary.rows["train"]
    stored = [c.encode() if isinstance(c, str) else c for c in classes]
    assert [sum(row["y"] == c for row in rows) for c in stored] == [100, 100]


@pytest.mark.parametrize(("declared", "classes"), [("number", [0, 1]), ("text", ["0", "1"])])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_label_has_its_declared_type(ending, declared, classes, tmp_path):
    data = frame().assign(y=lambda t: t.y.astype(str))
    {"csv": pd.DataFrame.to_csv, "parquet": pd.DataFrame.to_parquet}[ending](data, tmp_path / f"d.{ending}", index=False)
    summary, rows = ingest(tmp_path, path=[str(tmp_path / f"d.{ending}")], columns={"y": declared})
    assert summary.classes == classes
    assert {row["y"] for row in rows} == {c.encode() if isinstance(c, str) else c for c in classes}


def test_columns_without_values_are_named(tmp_path):
    summary, _ = ingest(tmp_path, path=[write_csv(tmp_path / "d.csv", frame().assign(nothing=None))])
    assert summary.empty_columns == ["nothing"]


@pytest.mark.parametrize(
    ("content", "csv", "classes"),
    [
        ("x;y\n1;low\n2;1,5\n3;2.5\n", {"separator": ";", "decimal": ","}, {"'2.5'", "1.5", "low"}),
        (f"x,y\n1,1.0\n2,{10**20 - 1}\n", {}, {"1", str(10**20 - 1)}),
    ],
)
def test_every_row_has_the_class_that_the_first_pass_counted(content, csv, classes, tmp_path):
    head, *rows = content.splitlines()
    for split in ("train", "eval"):
        (tmp_path / f"{split}.csv").write_text("\n".join([head, *rows * 30]))
    summary, written = ingest(tmp_path, split_paths={s: [str(tmp_path / f"{s}.csv")] for s in ("train", "eval")}, csv=csv)
    assert set(summary.classes) == classes
    assert {row["y"].decode() for row in written} == classes
    assert len(written) == 60 * len(rows)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_several_labels_of_0_and_1_are_integers_whatever_their_spelling(ending, tmp_path):
    rows = pd.DataFrame({"x": range(200), "a": [i % 2 == 0 for i in range(200)], "b": [float(i % 3 == 0) for i in range(200)]})
    writers = {"csv": rows.to_csv, "parquet": rows.to_parquet, "jsonl": lambda p, index: rows.to_json(p, "records", lines=True)}
    writers[ending](tmp_path / f"d.{ending}", index=False)
    task = {"label": "a, b", "task": "multilabel", "targets": ("a", "b")}
    found, read_ = ingest(tmp_path, path=[str(tmp_path / f"d.{ending}")], **task)
    assert found.labels == found.targets == ["a", "b"]
    assert (found.columns["a"], found.columns["b"], found.classes) == ("integer", "integer", [])
    assert {(row["x"], row["a"], row["b"]) for row in read_} == {(i, int(i % 2 == 0), int(i % 3 == 0)) for i in range(200)}


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl", "tfrecord"])
def test_listed_classes_are_written_as_columns_of_0_and_1_in_every_format(ending, tmp_path):
    tags = [["a"] * (i % 2 == 0) + ["b"] * (i % 3 == 0) for i in range(200)]
    rows, path = pd.DataFrame({"x": range(200), "tags": tags}), tmp_path / f"d.{ending}"
    if ending == "csv":
        rows.assign(tags=rows.tags.map(json.dumps)).to_csv(path, index=False)
    elif ending == "jsonl":
        rows.to_json(path, orient="records", lines=True)
    elif ending == "parquet":
        rows.to_parquet(path)
    else:
        with tf.io.TFRecordWriter(str(path)) as out:
            for x, its in zip(rows.x, tags, strict=True):
                names = tf.train.Feature(bytes_list=tf.train.BytesList(value=[t.encode() for t in its]))
                feature = {"x": tf.train.Feature(int64_list=tf.train.Int64List(value=[x])), "tags": names}
                out.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    found, read_ = ingest(tmp_path, path=[str(path)], label="tags", task="multilabel")
    assert (found.label, found.labels, found.targets) == ("tags", ["a", "b"], ["a", "b"])
    assert found.columns == {"x": "integer", "a": "integer", "b": "integer"}
    assert {(row["x"], row["a"], row["b"]) for row in read_} == {(i, int(i % 2 == 0), int(i % 3 == 0)) for i in range(200)}


def test_a_row_goes_to_the_split_of_its_features_alone(tmp_path):
    rows = pd.DataFrame({"x": range(200), "a": range(200), "b": [i / 2 for i in range(200)]})
    task = {"label": "a, b", "task": "multioutput", "targets": ("a", "b")}
    splits = []
    for name, scale in (("first", 1), ("second", 2)):
        (tmp_path / name).mkdir()
        rows.assign(a=rows.a * scale, b=-rows.b * scale).to_csv(tmp_path / name / "d.csv", index=False)
        _, read_ = ingest(tmp_path / name, path=[str(tmp_path / name / "d.csv")], **task)
        splits.append({(row["x"], row["split"]) for row in read_})
    assert splits[0] == splits[1]


def test_rows_of_one_key_count_as_one_even_if_the_key_is_no_feature(tmp_path):
    write_csv(tmp_path / "d.csv", frame(600).assign(user=np.arange(600) % 30))
    summary, rows = ingest(tmp_path, path=[str(tmp_path / "d.csv")], split_key="user", exclude=["user"])
    train = sum(row["split"] == "Split-train" for row in rows)
    assert summary.independent == pytest.approx(summary.keys / train)
    assert 10 < summary.keys < 30


def test_the_keys_of_the_held_out_rows_are_stored_in_their_order_across_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_ROWS", 50)
    data = frame(900).assign(user=np.arange(900) % 60, who=np.arange(900) % 60)
    write_csv(tmp_path / "d.csv", data)
    weights = {"train": 0.5, "eval": 0.2, "test": 0.3}
    summary, rows = ingest(tmp_path, path=[str(tmp_path / "d.csv")], split_key="user", exclude=["user"], weights=weights)
    users = [row["who"] for row in rows if row["split"] == "Split-test"]
    keys = load_row_keys(str(tmp_path / "out"))
    assert summary.split_key == "user"
    assert len(users) == len(keys) > 100
    assert len(set(zip(users, keys.tolist(), strict=True))) == len(set(users)) == len(set(keys.tolist()))


def write_examples(path, *rows):
    kinds = {int: "int64_list", float: "float_list", bytes: "bytes_list"}
    with tf.io.TFRecordWriter(str(path)) as out:
        for row in rows:
            features = tf.train.Features()
            for name, value in row.items():
                getattr(features.feature[name], kinds[type(value)]).value.append(value)
            out.write(tf.train.Example(features=features).SerializeToString())
    return str(path)


def test_records_of_mixed_kinds_are_read_as_the_same_json_lines(tmp_path):
    path = write_examples(tmp_path / "d.tfrecord", *({"f": 1 if i % 2 else 0.5, "n": i, "y": i % 2} for i in range(40)))
    summary, rows = ingest(tmp_path, path=[path])
    assert summary.columns["f"] == "float"
    assert sorted(r["f"] for r in rows) == [0.5] * 20 + [1.0] * 20
    assert sorted(r["n"] for r in rows) == list(range(40))


def test_records_of_bytes_beside_numbers_are_refused_with_their_row(tmp_path):
    path = write_examples(tmp_path / "d.tfrecord", {"x": 1, "y": 0}, {"x": b"\xff", "y": 1})
    with pytest.raises(UserError, match=r"row 1: column 'x' holds bytes that are not UTF-8 text, and numbers in other records"):
        ingest(tmp_path, path=[path])


def test_a_broken_tfrecord_is_refused_with_a_message_about_the_file(tmp_path):
    content = bytearray(open(make("tfrecord", tmp_path), "rb").read())
    content[40] ^= 255
    (tmp_path / "d.tfrecord").write_bytes(content)
    with pytest.raises(UserError) as caught:
        ingest(tmp_path, path=[str(tmp_path / "d.tfrecord")])
    assert "cannot be read as TFRecord: corrupted record at " in str(caught.value)
    assert "{{" not in str(caught.value)
