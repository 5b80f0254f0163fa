"""Anomalies, drift and leakage as findings, on TFDV's own statistics."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate import leakage
from switchyard.components.data_gate.anomalies import schema_findings
from switchyard.components.data_gate.comparability import uncompared_columns
from switchyard.components.data_gate.config import AnomalyActions, DataGateSettings, DriftConfig
from switchyard.components.data_gate.drift import column_findings, distance_findings, distances
from switchyard.components.data_gate.leakage import leakage_findings
from switchyard.components.data_gate.serving_sample import sample_statistics

pytestmark = pytest.mark.core

SCHEMA = text_format.Parse(
    """
    feature { name: "x" type: FLOAT presence { min_fraction: 1 } float_domain { min: 0 max: 10 } }
    feature { name: "w" type: BYTES domain: "w" }
    feature { name: "gone" type: INT presence { min_fraction: 1 } }
    string_domain { name: "w" value: "a" value: "b" }
    """,
    schema_pb2.Schema(),
)


def frame(n=500, seed=0, **columns):
    random = np.random.default_rng(seed)
    return pd.DataFrame({"x": random.uniform(0, 10, n), "w": random.choice(["a", "b"], n), **columns})


def statistics(data):
    return tfdv.generate_statistics_from_dataframe(data)


def findings_of(data, **settings):
    stats, settings = statistics(data), {"curated": True, **settings}
    return schema_findings(tfdv.validate_statistics(stats, SCHEMA), SCHEMA, stats, "train", DataGateSettings(**settings))


def test_anomalies_report_expected_and_received_values_and_the_share_of_rows():
    data = frame()
    data["x"] *= 2
    data.loc[:49, "w"] = "zebra"
    data["new"] = 1.0
    found = {(f.feature, f.anomaly): f for f in findings_of(data)}
    out = found["x", "out-of-range values"]
    assert out.expected == "values from 0 to 10"
    assert out.share == pytest.approx(0.5, abs=0.06)
    words = found["w", "unexpected string values"]
    assert (words.expected, words.seen, words.share) == ("a, b", "zebra", pytest.approx(0.1))
    assert found["gone", "column dropped"].share == 1
    assert found["new", "new column"].seen == "a FLOAT column"
    assert all(f.action == "fail" for f in found.values())


def test_the_config_selects_the_action_of_an_anomaly():
    data = frame(gone=1, new=2.0)
    data.loc[0, "w"] = "zebra"
    actions = AnomalyActions(features={"new": "warn"})
    found = {f.feature: f.action for f in findings_of(data, on_anomaly=actions)}
    assert found == {"w": "fail", "new": "warn"}
    # Of an inferred schema it does not say that there are no other values.
    assert {f.feature: f.action for f in findings_of(data, curated=False)} == {"w": "warn", "new": "fail"}
    assert [f.feature for f in findings_of(frame(), excluded=["gone"])] == []


def test_constraints_on_the_whole_data_set_follow_the_config():
    schema = schema_pb2.Schema()
    schema.CopyFrom(SCHEMA)
    schema.dataset_constraints.min_examples_count = 1000
    stats = statistics(frame(gone=1))
    anomalies = tfdv.validate_statistics(stats, schema)
    for error, action in (("fail", "fail"), ("warn", "warn")):
        settings = DataGateSettings(curated=True, on_anomaly=error)
        [finding] = schema_findings(anomalies, schema, stats, "train", settings)
        assert (finding.feature, finding.action) == ("", action)
        assert "500" in finding.seen


LIMITS = DriftConfig()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("rows", [100, 1000])
def test_two_samples_of_one_source_do_not_drift(seed, rows):
    now, before = statistics(frame(rows, seed)), statistics(frame(450, seed + 100))
    assert distance_findings(distances(now, before, "drift", "train", set()), LIMITS) == []


def test_drift_is_measured_by_both_comparators():
    data = frame()
    data["w"] = np.where(np.arange(500) < 450, "a", "b")
    found = {d.feature: d for d in distances(statistics(data), statistics(frame()), "drift", "train", set())}
    assert found["w"].l_infinity == pytest.approx(0.4, abs=0.05)
    assert found["w"].jensen_shannon == pytest.approx(0.38, abs=0.05)
    assert found["x"].l_infinity is None
    [finding] = distance_findings(list(found.values()), LIMITS)
    assert (finding.feature, finding.action) == ("w", "warn")
    [finding] = distance_findings(list(found.values()), DriftConfig(features={"w": {"warn": 0.1, "fail": 0.2}}))
    assert finding.action == "fail"


def test_free_text_is_not_checked():
    now, before = (statistics(frame(id=[f"{s}{i}" for i in range(500)])) for s in "ab")
    [distance] = [d for d in distances(now, before, "drift", "train", set()) if d.feature == "id"]
    assert not distance.judged
    assert distance_findings([distance], LIMITS) == []


def test_missing_new_and_retyped_columns_are_anomalies():
    now = statistics(frame(new=1.0, t="text"))
    before = statistics(frame(gone=1.0, left_out=1, t=2.0))
    found = column_findings(now, before, "train", DataGateSettings(excluded=["left_out"]), set())
    assert {(f.feature, f.anomaly, f.action) for f in found} == {
        ("gone", "column is gone", "fail"),
        ("left_out", "column is gone", "warn"),
        ("new", "new column", "warn"),
        ("t", "another type", "fail"),
    }


def test_a_row_of_another_split_with_another_weight_is_duplicated(tmp_path):
    x = np.random.default_rng(0).normal(size=500)
    rows = pd.DataFrame({"x": x, "y": np.arange(500) % 2, "w": 1.0})
    write(tmp_path, "train", rows[:400])
    write(tmp_path, "eval", rows[:100].assign(w=2.0))
    weighted = summary(columns={"x": "float", "y": "integer", "w": "float"}, sample_weight="w")
    found = leaks(tmp_path, weighted, DataGateSettings(split_paths=True))
    assert [f.anomaly for f in found] == ["rows are duplicated across splits"]


def test_listed_classes_and_sample_weights_may_come_and_go():
    now, before = frame(rock=1, jazz=0), frame(rock=1, polka=0, importance=1.0, gone=1.0)
    facts = {"task": "multilabel", "label": "genres", "classes": [0, 1]}
    mine = summary(**facts, columns=dict.fromkeys(now, "float"), targets=["jazz", "rock"])
    theirs = summary(**facts, columns=dict.fromkeys(before, "float"), targets=["polka", "rock"], sample_weight="importance")
    uncompared = uncompared_columns(theirs, mine)
    assert uncompared == {"jazz", "polka", "importance"}
    found = column_findings(statistics(now), statistics(before), "train", DataGateSettings(), uncompared)
    assert [(f.feature, f.anomaly) for f in found] == [("gone", "column is gone")]
    columns = {**facts, "label": "polka, rock"}
    several = summary(**columns, columns=dict.fromkeys(before, "float"), targets=["polka", "rock"])
    assert uncompared_columns(several, mine) == {"jazz"}


def summary(**changes):
    facts = {
        "fingerprint": "f",
        "files": [],
        "columns": {"x": "float", "i": "integer", "copy": "float", "y": "integer"},
        "missing": {},
        "rows": {"train": 400, "eval": 100},
        "bad_rows": 0,
        "bad_row_samples": [],
        "empty_columns": [],
        "label": "y",
        "task": "binary",
        "classes": [0, 1],
        "class_counts": {},
    }
    return DatasetSummary(**{**facts, **changes})


def write(folder, split, rows):
    (folder / f"Split-{split}").mkdir()
    with tf.io.TFRecordWriter(str(folder / f"Split-{split}" / "data_tfrecord-00000-of-00001")) as writer:
        for row in rows.to_dict("records"):
            features = {
                k: tf.train.Feature(int64_list={"value": [v]})
                if isinstance(v, int)
                else tf.train.Feature(float_list={"value": [v]})
                for k, v in row.items()
            }
            writer.write(tf.train.Example(features={"feature": features}).SerializeToString())


def leaks(folder, found, limits):
    return leakage_findings(str(folder), found, limits, leakage.sample_rows(str(folder), found))


def leaky(folder, duplicated):
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 500)
    rows = pd.DataFrame({"x": random.normal(size=500), "i": np.arange(500), "copy": y + 0.0, "y": y})
    write(folder, "train", rows[:400])
    write(folder, "eval", pd.concat([rows[: int(100 * duplicated)], rows[400 : 500 - int(100 * duplicated)]]))
    limits = DataGateSettings(split_paths=True)
    return {(f.feature, f.anomaly): f for f in leaks(folder, summary(), limits)}


def test_leaks_are_reported_with_their_share(tmp_path):
    found = leaky(tmp_path, 0.5)
    doubled = found["", "rows are duplicated across splits"]
    assert (doubled.action, doubled.share, doubled.seen) == ("fail", 0.5, "50 of 100 rows are in train")
    assert "1.00" in found["copy", "predicts the label by itself"].seen
    assert "400 different values in 400 rows" in found["i", "looks like an id but is used as a feature"].seen
    assert len(found) == 3


def test_a_copy_of_any_of_several_labels_is_found_and_no_label_is_a_copy_of_another(tmp_path):
    random = np.random.default_rng(0)
    a, b = random.integers(0, 2, (2, 400))
    rows = pd.DataFrame({"x": random.normal(size=400), "i": 1.0 - b, "copy": a + 0.0, "a": a, "b": b, "both": a})
    write(tmp_path, "train", rows)
    columns = {"x": "float", "i": "float", "copy": "float", "a": "integer", "b": "integer", "both": "integer"}
    labels = {"label": "a, b, both", "task": "multilabel", "classes": [], "targets": ["a", "b", "both"]}
    found = leaks(tmp_path, summary(columns=columns, **labels), DataGateSettings())
    assert sorted((f.feature, f.anomaly) for f in found) == [
        ("copy", "predicts the label by itself"),
        ("i", "predicts the label by itself"),
    ]


def test_an_index_is_found_in_more_rows_than_the_sample(tmp_path, monkeypatch):
    """The first rows of a file that was sorted by its label have one label only."""
    monkeypatch.setattr(leakage, "SAMPLE_ROWS", 100)
    write(tmp_path, "train", pd.DataFrame({"i": range(400), "y": [0] * 200 + [1] * 200}))
    limits = DataGateSettings()
    [found] = leaks(tmp_path, summary(columns={"i": "integer", "y": "integer"}), limits)
    assert (found.feature, found.action) == ("i", "fail")


@pytest.mark.parametrize(("shared", "action"), [(0, None), (1, "warn"), (5, "fail")])
def test_queries_that_are_in_two_splits_from_files_are_found(tmp_path, shared, action):
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"x": random.normal(size=600), "i": random.normal(size=600), "q": np.arange(600) // 10})
    rows["y"] = random.integers(0, 3, 600)
    write(tmp_path, "train", rows[:400])
    held = rows[400:].assign(q=lambda r: r.q - shared)  # other documents of queries of train
    write(tmp_path, "eval", held)
    columns = {"x": "float", "i": "float", "q": "integer", "y": "integer"}
    facts = summary(columns=columns, task="ranking", group="q", classes=[], rows={"train": 400, "eval": 200})

    found = leaks(tmp_path, facts, DataGateSettings(split_paths=True))

    assert [(f.anomaly, f.action, f.seen) for f in found] == (
        [("queries are in two splits", action, f"{shared} of 20 queries are in train")] if shared else []
    )


def test_few_duplicates_warn(tmp_path):
    assert leaky(tmp_path, 0.05)["", "rows are duplicated across splits"].action == "warn"


def test_data_with_natural_repetition_does_not_leak(tmp_path):
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"i": random.integers(0, 10, 500), "y": random.integers(0, 2, 500)})
    write(tmp_path, "train", rows[:400])
    write(tmp_path, "eval", rows[400:])
    limits = DataGateSettings(split_paths=True)
    assert leaks(tmp_path, summary(columns={"i": "integer", "y": "integer"}), limits) == []


def test_a_serving_sample_is_typed_as_the_training_data_is(tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text("x,w,extra\n1,a,1\n2.5,b,2\n,c,3\n")
    stats = sample_statistics([str(path)], summary(columns={"x": "float", "w": "string", "y": "integer"}), None)
    by_name = {f.path.step[0]: f for f in stats.datasets[0].features}
    assert by_name["x"].num_stats.max == 2.5
    assert by_name["w"].string_stats.unique == 3


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_serving_sample_has_the_same_values_in_every_format(kind, tmp_path):
    rows = pd.DataFrame({"flag": [True, False, True, True], "day": ["2024-01-31"] * 4, "w": ["NA", "a", "", None]})
    path = str(tmp_path / f"requests.{kind}")
    {
        "csv": lambda: rows.to_csv(path, index=False),
        "jsonl": lambda: rows.to_json(path, orient="records", lines=True),
        "parquet": lambda: rows.assign(day=pd.to_datetime(rows.day)).to_parquet(path),
    }[kind]()
    meanings = {"flag": "boolean", "day": "timestamp[s]", "w": "text"}
    trained = summary(columns={"flag": "integer", "day": "integer", "w": "string"}, meanings=meanings)
    stats = sample_statistics([path], trained, None)
    by_name = {f.path.step[0]: f for f in stats.datasets[0].features}
    assert by_name["flag"].num_stats.mean == 0.75
    assert by_name["day"].num_stats.mean == 1_706_659_200
    assert by_name["w"].string_stats.common_stats.num_missing == 2
