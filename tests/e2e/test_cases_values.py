"""A value means the same wherever it comes from, through the command line: the files that people bring."""

import datetime

import numpy as np
import orjson
import pandas as pd
import pytest

from switchyard.components.bundle.model import load_bundle
from switchyard.components.serving import invocations
from switchyard.components.serving.inputs import columns_of

ROWS = 700
PIPELINE = """
name: values
data: {path: train.csv}
label: y
trainer: {framework: pytorch, hyperparameters: {epochs: 10, learning_rate: 0.01}}
serving: {infra_validation: null}
"""


def people(rows, seed):
    """A country that decides, NA among its values, a tenth of them empty; beside it one column of each kind."""
    rng = np.random.default_rng(seed)
    days = pd.date_range("2024-01-01", periods=rows, freq="h")
    frame = pd.DataFrame({
        "country": np.where(rng.random(rows) < 0.1, None, rng.choice(["NA", "NO", "DE"], rows)),
        "flag": rng.choice([True, False], rows),
        "day": [d.date() for d in days],
        "at": days + pd.to_timedelta(rng.integers(0, 3600, rows), unit="s"),
        "amount": rng.normal(size=rows).round(3),
        "visits": rng.integers(0, 9, rows),
        "note": np.where(rng.random(rows) < 0.5, "True", "5"),
    })  # fmt: skip
    decides = (frame.country == "NA") ^ (rng.random(rows) < 0.03)
    return frame.assign(y=(decides | (frame.flag & (frame.amount > 1.2))).astype(int))


@pytest.fixture(scope="module")
def trained(warm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("values")
    people(ROWS, 1).to_csv(folder / "train.csv", index=False)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    done = warm.run(folder / "pipeline.yaml", folder / "w")
    return folder, done


@pytest.fixture(scope="module")
def new(trained):
    """Rows to predict, in every format."""
    folder, _ = trained
    rows = people(120, 2).drop(columns="y")
    rows.to_csv(folder / "new.csv", index=False)
    rows.to_parquet(folder / "new.parquet", index=False)
    lines = [
        {k: v.isoformat() if isinstance(v, datetime.date) else v for k, v in row.items()}
        for row in rows.astype({"flag": object}).to_dict("records")
    ]
    (folder / "new.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in lines))
    return folder, lines


def test_na_is_a_value_and_is_reported_before_training(trained):
    _, done = trained
    said = done.stderr.index("cells are the text NA: treated as a value; data.missing_values: [NA] treats it as missing")
    assert said < done.stderr.index("training:")
    [auc] = [m["auc"] for m in metrics_of(done)]
    assert auc > 0.9


def metrics_of(done):
    return [model["metrics"] for model in done.json["models"].values()]


def test_rows_have_the_same_scores_in_every_file_format_and_from_the_server(new, trained, warm):
    folder, lines = new
    scores = {}
    for kind in ("csv", "parquet", "jsonl"):
        out = folder / f"out-{kind}.parquet"
        done = warm("predict", "values@champion", "--workspace", folder / "w", folder / f"new.{kind}", "-o", out)
        assert done.code == 0, done.stderr
        assert "no prediction" not in done.stderr
        scores[kind] = pd.read_parquet(out)["probability"].to_numpy()
    bundle = load_bundle(next((folder / "w").rglob("Format-Serving")))
    body = orjson.dumps({"dataframe_records": lines})
    served, _ = columns_of(bundle.info, invocations.decode(body, "application/json", bundle.info))
    np.testing.assert_allclose(scores["parquet"], scores["csv"], atol=1e-6)
    np.testing.assert_allclose(scores["jsonl"], scores["csv"], atol=1e-6)
    np.testing.assert_allclose(bundle.score_columns(served)[:, 0], scores["csv"], atol=1e-6)


def test_a_missing_value_in_a_list_is_refused_before_the_run(warm, tmp_path):
    frame = pd.DataFrame({"e": [[1.0, None if i == 3 else 2.0] for i in range(40)], "y": [0, 1] * 20})
    frame.to_parquet(tmp_path / "d.parquet")
    (tmp_path / "pipeline.yaml").write_text(PIPELINE.replace("train.csv", "d.parquet"))
    done = warm("run", tmp_path / "pipeline.yaml", "--workspace", tmp_path / "w")
    assert done.code == 2
    assert "d.parquet, row 3: column 'e' has a gap (null or NaN) inside a list" in done.stderr
    assert "data.exclude: [e]" in done.stderr


def test_hashes_beyond_64_bits_are_refused_with_the_fix(warm, tmp_path):
    rows = [{"id": 2**63 + i, "a": i, "y": i % 2} for i in range(40)]
    (tmp_path / "d.jsonl").write_text("".join(f"{orjson.dumps(r).decode()}\n" for r in rows))
    (tmp_path / "pipeline.yaml").write_text(PIPELINE.replace("train.csv", "d.jsonl"))
    done = warm("run", tmp_path / "pipeline.yaml", "--workspace", tmp_path / "w")
    assert done.code == 2
    assert "d.jsonl, row 0: column 'id' holds integers outside 64 bits" in done.stderr
    assert "9223372036854775808" in done.stderr
