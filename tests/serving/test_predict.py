"""`switchyard predict`: every format in and out, order, bad rows, an end in the middle."""

import json
import signal

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from switchyard.components.bundle.model import load_bundle
from tests.command import EXAMPLES, start, switchyard
from tests.serving.server import wait_until

DATA = EXAMPLES / "breast_cancer" / "data.csv"


@pytest.fixture(scope="module")
def model(bundles):
    return bundles["pytorch"]


@pytest.fixture(scope="module")
def inputs(model, tmp_path_factory):
    """The same rows in every format."""
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    from switchyard.components.ingest.column_types import convert, observe

    folder = tmp_path_factory.mktemp("inputs")
    frame = pd.read_csv(DATA)
    frame.insert(0, "key", [f"patient {i}" for i in range(len(frame))])
    frame.to_csv(folder / "in.csv", index=False)
    frame.to_parquet(folder / "in.parquet")
    frame.to_json(folder / "in.jsonl", orient="records", lines=True)
    batch = pyarrow.RecordBatch.from_pandas(frame)
    columns = {n: convert(c, observe(n, c, is_text=False)) for n, c in zip(batch.schema.names, batch.columns, strict=True)}
    with tf.io.TFRecordWriter(str(folder / "in.tfrecord")) as writer:
        for record in RecordBatchToExamplesEncoder().encode(pyarrow.RecordBatch.from_pydict(columns)):
            writer.write(record)
    return folder, frame, load_bundle(model).predict(frame)


def read(path):
    if path.suffix == ".csv":
        return pd.read_csv(path)
    if path.suffix == ".jsonl":
        return pd.read_json(path, orient="records", lines=True)
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    import tensorflow as tf

    rows = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        row = {}
        for name, feature in features.items():
            [value] = getattr(feature, feature.WhichOneof("kind")).value
            row[name] = value.decode() if isinstance(value, bytes) else value
        rows.append(row)
    return pd.DataFrame(rows)


def test_a_refused_prediction_does_not_block_the_next_one(inputs, model, warm, tmp_path):
    folder, frame, _ = inputs
    wrong, out = tmp_path / "wrong.csv", tmp_path / "out.csv"
    frame.drop(columns="mean_area").to_csv(wrong, index=False)
    refused = warm("predict", model, "--trust", wrong, "-o", out)
    assert refused.code == 2
    assert "mean_area" in refused.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["wrong.csv"]
    done = warm("predict", model, "--trust", folder / "in.csv", "-o", out)
    assert done.code == 0, done.stderr


@pytest.mark.parametrize(
    ("source", "target"), [("csv", "parquet"), ("parquet", "csv"), ("jsonl", "tfrecord"), ("tfrecord", "jsonl")]
)
def test_rows_keep_their_order_and_columns(source, target, inputs, model, warm, tmp_path):
    folder, frame, expected = inputs
    out = tmp_path / f"out.{target}"
    done = warm("predict", model, "--trust", folder / f"in.{source}", "-o", out)
    assert done.code == 0, done.stderr
    assert "569 rows in" in done.stdout
    found = read(out)
    assert list(map(str, found["key"].map(lambda v: v[0] if isinstance(v, list) else v))) == list(frame["key"])
    assert set(frame.columns) <= set(found.columns)
    assert list(found["prediction"]) == list(expected["prediction"])
    np.testing.assert_allclose(found["probability"], expected["probability"], atol=1e-5)
    if target == "parquet":
        np.testing.assert_array_equal(found["mean_area"], frame["mean_area"])
    assert [p.name for p in tmp_path.iterdir()] == [out.name], "nothing is left"


@pytest.mark.core
def test_bad_rows_keep_their_position_and_are_listed(inputs, model, warm, tmp_path):
    folder, frame, expected = inputs
    lines = (folder / "in.csv").read_text().splitlines()
    area = list(frame.columns).index("mean_area")
    for row, value in ((3, "many"), (7, "")):
        fields = lines[row + 1].split(",")
        fields[area] = value
        lines[row + 1] = ",".join(fields)
    lines.append("too,few,fields")
    (tmp_path / "bad.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.parquet"
    done = warm("predict", model, "--trust", tmp_path / "bad.csv", "-o", out)
    assert done.code == 0, done.stderr
    assert "3 rows have no prediction" in done.stderr
    found = read(out)
    assert list(found["key"]) == list(frame["key"])
    assert list(np.flatnonzero(found["prediction"].isna())) == [3, 7]
    rest = [i for i in range(len(frame)) if i not in (3, 7)]
    np.testing.assert_allclose(found["probability"].iloc[rest], expected["probability"].iloc[rest], atol=1e-5)
    told = [json.loads(line) for line in open(f"{out}.bad.jsonl")]
    assert [(t.get("row"), t["reason"]) for t in told[:2]] == [
        (3, "column 'mean_area' must hold numbers, received 'many'"),
        (7, "column 'mean_area' is missing"),
    ]
    assert "3 fields where the header has 32" in told[2]["reason"]
    done = warm("predict", model, "--trust", tmp_path / "bad.csv", "-o", tmp_path / "other.parquet", "--max-bad-rows", 1)
    assert done.code == 2
    assert "--max-bad-rows allows 1" in done.stderr
    assert not (tmp_path / "other.parquet").exists()


def test_a_killed_prediction_resumes_where_it_stopped(inputs, model, warm, tmp_path):
    _, frame, expected = inputs
    many = pd.concat([frame] * 1200, ignore_index=True)
    many["key"] = np.arange(len(many))
    many.to_parquet(tmp_path / "many.parquet")
    out = tmp_path / "out.parquet"
    process = start("predict", model, "--trust", tmp_path / "many.parquet", "-o", out)
    parts = tmp_path / "out.parquet.parts"
    wait_until(lambda: len(list(parts.glob("0*.parquet"))) >= 2, 90, "two parts")
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    process.stderr.close()
    assert not out.exists()
    written = {p.name: p.stat().st_mtime_ns for p in parts.glob("0*.parquet")}
    other = warm("predict", model, "--trust", DATA, "-o", out)
    assert other.code == 2, "parts of another input are not mixed in"
    assert "--fresh" in other.stderr
    done = warm("predict", model, "--trust", tmp_path / "many.parquet", "-o", out)
    assert done.code == 0, done.stderr
    assert f"resuming after {len(written)} parts" in done.stderr
    found = pd.read_parquet(out)
    assert list(found["key"]) == list(many["key"])
    np.testing.assert_allclose(found["probability"], np.tile(expected["probability"], 1200), atol=1e-5)
    assert not parts.exists()


def test_predict_refuses_invalid_arguments(inputs, model, tmp_path, warm):
    folder, frame, _ = inputs
    frame.drop(columns=["mean_area"]).to_csv(tmp_path / "less.csv", index=False)
    frame.assign(prediction=1).to_csv(tmp_path / "more.csv", index=False)
    cases = {
        (folder / "in.csv", "-o", tmp_path / "out.xlsx"): "cannot infer the format",
        (folder / "in.csv", "-o", tmp_path / "no" / "out.csv"): "does not exist; create it",
        (folder / "none.csv", "-o", tmp_path / "out.csv"): "relative ones are relative to the working directory",
        (tmp_path / "less.csv", "-o", tmp_path / "a.csv"): "column 'mean_area' is missing",
        (tmp_path / "more.csv", "-o", tmp_path / "b.csv"): "has a column 'prediction'",
    }
    for arguments, words in cases.items():
        done = warm("predict", model, "--trust", *arguments)
        assert done.code == 2, (arguments, done)
        assert words in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert switchyard("predict", "--help").code == 0
