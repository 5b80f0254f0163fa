"""Values as people's files have them, through the command: what is converted, what is refused, what comes back."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

QUICK = {"framework": "pytorch", "hyperparameters": {"epochs": 5, "learning_rate": 0.01}}


def table(rows, seed):
    """Two numbers and a label that mostly follows the first."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=rows), rng.normal(size=rows)
    y = (rng.random(rows) < 1 / (1 + np.exp(-3 * a))).astype(int)
    return pd.DataFrame({"a": a.round(4), "b": b.round(4), "y": y})


def pipeline(folder, name, **changes):
    path = folder / "pipeline.yaml"
    serving = {"infra_validation": None}
    path.write_text(yaml.safe_dump({"name": name, "label": "y", "trainer": QUICK, "serving": serving, **changes}))
    return path


def predicted(warm, folder, name, source, target):
    done = warm("predict", f"{name}@champion", folder / source, "-o", folder / target, "--workspace", folder / "w")
    assert done.code == 0, done.stderr
    return pd.read_parquet(folder / target)


def rows_of_splits(workspace):
    import tensorflow as tf

    found = {}
    for split in sorted((workspace / "artifacts" / "ingest" / "examples").glob("*/Split-*")):
        records = tf.data.TFRecordDataset([str(f) for f in sorted(split.iterdir())])
        found[split.name] = [tf.train.Example.FromString(r).features.feature for r in records.as_numpy_iterator()]
    return found


def test_a_dash_among_numbers_stops_the_run_and_the_suggested_key_fixes_it(tmp_path, warm):
    rng = np.random.default_rng(13)
    income = rng.normal(50_000, 9_000, 2000).round(2)
    text = [f"{v:.2f}" for v in income]
    for row in (5, 900, 1500):
        text[row] = "-"
    y = (rng.random(2000) < 1 / (1 + np.exp(-(income - 50_000) / 3_000))).astype(int)
    pd.DataFrame({"income": text, "b": rng.normal(size=2000).round(3), "y": y}).to_csv(tmp_path / "d.csv", index=False)
    path = pipeline(tmp_path, "dash", data={"path": "d.csv"})
    stopped = warm("run", path, "--workspace", tmp_path / "w", "--json")
    assert stopped.code == 2
    assert "income: 1,997 of 2,000 values are numbers; '-' (3 rows) is not: data.missing_values: ['-']" in stopped.stderr
    done = warm.run(path, tmp_path / "w", "--set", "data.missing_values=[-]")
    assert done.json["metrics"]["auc"] > 0.85
    pd.DataFrame({"income": ["-", "70000"], "b": [0.0, 0.0]}).to_csv(tmp_path / "new.csv", index=False)
    assert predicted(warm, tmp_path, "dash", "new.csv", "out.parquet")["prediction"].notna().all()


def test_integers_beyond_2_to_the_53_are_classes_and_are_predicted_exactly(tmp_path, warm):
    classes = [2**53, 2**53 + 1, 2**53 + 4]
    big = table(900, 12)
    big["y"] = np.array(classes)[np.digitize(big.a, [-0.4, 0.5])]
    big.to_parquet(tmp_path / "d.parquet", index=False)
    done = warm.run(pipeline(tmp_path, "big", data={"path": "d.parquet"}), tmp_path / "w")
    assert done.json["metrics"]["accuracy"] > 0.8
    found = predicted(warm, tmp_path, "big", "d.parquet", "out.parquet")
    assert found["prediction"].dtype == np.int64
    assert set(found["prediction"]) == set(classes)
    assert {f"probability_{c}" for c in classes} <= set(found.columns)
    assert (found["prediction"] == big["y"]).mean() > 0.8


def test_float_labels_are_classes_and_a_split_key_has_one_split_in_any_type(tmp_path, warm):
    users = np.random.default_rng(11).integers(1, 102, 700)
    for name, kind in (("a", "int64"), ("b", "float64")):
        part = table(700, len(name)).assign(y=lambda t: t.y.astype(float), who=users, user=users.astype(kind))
        part.loc[5, "user"] = np.nan if kind == "float64" else part.loc[5, "user"]
        part.to_parquet(tmp_path / f"{name}.parquet", index=False)
    table(700, 3).assign(y=lambda t: t.y.map("{}.0".format), who=users, user=[f" {u}" for u in users]).to_csv(
        tmp_path / "c.csv", index=False
    )
    data = {"path": ["*.parquet", "c.csv"], "split_key": "user", "exclude": ["user"]}
    done = warm.run(pipeline(tmp_path, "split_keys", data=data), tmp_path / "w")
    assert "1 of 2,100 rows have no user: each forms its own group" in done.stderr
    splits = rows_of_splits(tmp_path / "w")
    seen = {split: {row["who"].int64_list.value[0] for row in rows} for split, rows in splits.items()}
    labels = {row["y"].int64_list.value[0] for rows in splits.values() for row in rows}
    shared = set.intersection(*seen.values())
    assert len(shared) <= 1  # of the row without an id
    assert labels == {0, 1}


def test_a_csv_with_another_locale_is_trained_on_and_predicted(tmp_path, warm):
    plain = table(600, 20).rename(columns={"a": "größe"}).assign(größe=lambda t: (t["größe"] * 1000 + 5000).round(2))
    spelled = plain.assign(größe=plain["größe"].map(lambda v: f"{v:,.2f}".translate(str.maketrans(",.", ".,"))))
    spelled["b"] = plain["b"].map(lambda v: str(v).replace(".", ","))
    spelled["y"] = plain["y"].map({0: "False", 1: " True"})
    spelled.to_csv(tmp_path / "d.csv", sep=";", index=False, encoding="latin-1")
    plain.to_parquet(tmp_path / "plain.parquet", index=False)
    path = pipeline(tmp_path, "country", data={"path": "d.csv"})
    stopped = warm("run", path, "--workspace", tmp_path / "w", "--json")
    assert stopped.code == 2
    assert "d.csv is not utf-8 text: byte 0xf6 at offset 2, line 1. Set data.csv.encoding" in stopped.stderr
    options = json.dumps({"separator": ";", "decimal": ",", "thousands": ".", "encoding": "latin-1"})
    done = warm.run(path, tmp_path / "w", "--set", f"data.csv={options}")
    assert done.json["metrics"]["auc"] > 0.85
    same = [predicted(warm, tmp_path, "country", f, f"{f}.out.parquet")["probability"] for f in ("d.csv", "plain.parquet")]
    assert np.allclose(*same, atol=1e-6)
    place = ["--workspace", tmp_path / "w", "--json"]
    drift = warm("drift", "country@champion", tmp_path / "d.csv", *place)
    assert drift.code == 0, drift.stdout
    assert (drift.json["rows"], drift.json["findings"]) == (600, [])
    again = ["--set", "trainer.hyperparameters.learning_rate=0.02", "--set", "evaluation.improvement=null"]
    warm.run(path, tmp_path / "w", "--set", f"data.csv={options}", *again)
    compared = warm("models", "compare", "country", "1", "2", "--data", tmp_path / "d.csv", *place)
    assert compared.code == 0, compared.stderr
    assert (compared.json["rows"], compared.json["metrics"]["2"]["auc"] > 0.85) == (600, True)


@pytest.mark.parametrize("word", ["no", "on"])
def test_a_class_that_yaml_reads_as_a_boolean_can_have_a_weight(word, tmp_path, warm):
    table(400, 21).assign(y=lambda t: np.where(t.y == 1, "ok", word)).to_csv(tmp_path / "d.csv", index=False)
    path = pipeline(tmp_path, "booleans", data={"path": "d.csv"})
    path.write_text(path.read_text().replace("epochs: 5", f"epochs: 5\n    class_weights: {{{word}: 2, maybe: 3}}"))
    stopped = warm("run", path, "--workspace", tmp_path / "w", "--json")
    assert stopped.code == 2
    said = stopped.stderr.partition("class_weights: 'maybe' is not a class of 'y'; the classes are ")[2]
    assert set(said.strip().removesuffix(".").split(", ")) == {word, "ok"}


def test_infinity_is_refused_before_the_run_or_trained_on_as_missing_if_configured(tmp_path, warm):
    rows = table(700, 21)
    rows.loc[[5, 600], "b"] = np.inf
    rows.to_csv(tmp_path / "d.csv", index=False)
    path = pipeline(tmp_path, "infinite", data={"path": "d.csv"})
    stopped = warm("run", path, "--workspace", tmp_path / "w", "--json")
    assert stopped.code == 2
    assert "d.csv, row 5: column 'b' holds numbers that are infinite" in stopped.stderr
    done = warm.run(path, tmp_path / "w", "--set", "data.missing_values=[inf]")
    assert done.json["metrics"]["auc"] > 0.85
    rows.drop(columns="y").to_csv(tmp_path / "new.csv", index=False)
    assert predicted(warm, tmp_path, "infinite", "new.csv", "out.parquet")["prediction"].notna().all()
