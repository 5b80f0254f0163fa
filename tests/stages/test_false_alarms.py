"""What the gate says of unchanged data (nothing), and of changed data (one finding), on TFDV's own statistics."""

import numpy as np
import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_data_validation.statistics.generators import basic_stats_generator
from tensorflow_data_validation.utils import quantiles_util
from tensorflow_metadata.proto.v0 import schema_pb2

from switchyard.components.compat import tfdv_quantiles
from switchyard.components.compat.tfdv_quantiles import stats_options
from switchyard.components.data_gate.checks import Checks
from switchyard.components.data_gate.config import DataGateSettings, DriftConfig
from switchyard.components.data_gate.drift import TOO_FEW, TOO_MANY_VALUES, column_findings, distance_findings, distances
from switchyard.components.data_gate.findings import Distance, Finding, merged
from switchyard.components.data_gate.growth import ordered
from switchyard.components.data_gate.inferred_schema import widen
from switchyard.components.serving.drift_report import ServedDrift, served_drift
from switchyard.components.transform.executor import unusable_features
from switchyard.pipelines.commands import schema as schema_command
from tests.stages.test_validation import summary

pytestmark = pytest.mark.core

LIMITS = DriftConfig()
SETTINGS = DataGateSettings()


def messy(rows=4000, seed=0):
    """A heavy tail with an outlier, rare values, gaps, a column of one value, and time."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=rows),
            "miles": rng.lognormal(0, 1, rows).round(2),
            "level": rng.integers(1, 6, rows),
            "children": np.where(rng.random(rows) < 0.001, 2, rng.integers(0, 2, rows)),
            "kind": rng.choice(["a", "b", "c", "d"], rows, p=[0.7, 0.298, 0.001, 0.001]),
            "word": [f"w{v}" for v in np.minimum(rng.zipf(1.5, rows), 10**6)],
            "gaps": np.where(rng.random(rows) < 0.001, np.nan, rng.normal(size=rows)),
            "tract": [5.0 if i == 40 else np.nan for i in range(rows)],
            "day": pd.date_range("2024-01-01", periods=rows, freq="h").strftime("%Y-%m-%d"),
        }
    )
    frame.loc[17, "miles"] = 1710.0
    return frame


def split(frame, seed):
    places = np.random.default_rng(seed).random(len(frame))
    return {"train": frame[places < 0.7], "eval": frame[(places >= 0.7) & (places < 0.8)], "test": frame[places >= 0.8]}


def statistics(rows):
    return tfdv.generate_statistics_from_dataframe(rows.reset_index(drop=True), stats_options=stats_options())


def judge(splits, trained_on=None, schema=None, **settings):
    """Returns what the gate finds, growth aside, in splits of rows."""
    found = {name: statistics(rows) for name, rows in splits.items()}
    if schema is None:
        schema = tfdv.infer_schema(found["train"], infer_feature_shape=True)
        widen(schema, found["train"], [s for name, s in found.items() if name != "train"])
    anomalies = {name: tfdv.validate_statistics(s, schema) for name, s in found.items()}
    champions = None if trained_on is None else statistics(trained_on)
    checks = Checks(found, schema, anomalies, set(), ordered(splits["train"]), DataGateSettings(**settings), champions=champions)
    return [f for f in merged(checks.findings()[0]) if f.anomaly != "grows with time"]


def distance(now, before, name, in_order=()):
    [found] = [d for d in distances(statistics(now), statistics(before), "drift", "train", set(), in_order) if d.feature == name]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_same_rows_split_again_have_no_finding(seed):
    frame = messy()
    assert judge(split(frame, seed), split(frame, seed + 100)["train"]) == []


@pytest.mark.parametrize("seed", range(2))
def test_another_sample_of_the_same_source_has_no_finding(seed):
    splits = split(messy(seed=seed).drop(columns="day"), seed)
    assert judge(splits, messy(seed=seed + 50).drop(columns="day")) == []


def test_an_evaluation_split_of_fifty_rows_has_no_finding():
    frame = messy()
    splits = {"train": frame[:500], "eval": frame[500:557], "test": frame[557:640]}
    assert judge({name: rows.drop(columns="day") for name, rows in splits.items()}, frame[1000:1400].drop(columns="day")) == []


def test_one_outlier_moves_no_distance():
    rows = messy()
    with_outlier, without = rows[:2000], rows[2000:]
    assert with_outlier["miles"].max() == 1710
    assert distance(without, with_outlier, "miles").jensen_shannon < 0.05


def test_a_column_with_one_value_in_all_rows_has_no_type_in_a_split_without_it():
    now, before = statistics(messy()[100:]), statistics(messy()[:100])
    assert column_findings(now, before, "train", SETTINGS, set()) == []
    assert column_findings(before, now, "train", SETTINGS, set()) == []
    assert distance(messy()[100:], messy()[:100], "tract").reason == TOO_FEW


def test_ids_have_too_many_distinct_values_to_be_compared():
    ids = [pd.DataFrame({"id": [f"{s}{i}" for i in range(1000)]}) for s in "ab"]
    assert distance(*ids, "id").reason == TOO_MANY_VALUES


@pytest.mark.parametrize(
    ("name", "shift"),
    [
        ("x", lambda v: v + 0.5),
        ("x", lambda v: v * 1.5),
        ("miles", lambda v: v * 1.609),
        ("level", lambda v: v + 1),
        ("kind", lambda v: v.where(np.arange(len(v)) % 5 > 0, "new")),
        ("word", lambda v: v.where(np.arange(len(v)) % 5 > 0, "new")),
        ("level", lambda v: v.where(np.arange(len(v)) % 3 > 0)),
        ("kind", lambda v: v.where(np.arange(len(v)) % 3 > 0, None)),
    ],
)
def test_a_shift_of_one_column_in_two_thousand_rows_is_the_only_finding(name, shift):
    frame = messy()
    now = frame[2000:].copy()
    now[name] = shift(now[name])
    found = judge(split(now.drop(columns="day"), 1), split(frame[:2000].drop(columns="day"), 2)["train"])
    assert [f.feature for f in found] == [name]


def test_changed_units_stop_the_run_with_the_expected_and_the_received_values():
    frame = messy()
    [found] = distance_findings([distance(frame.assign(x=lambda t: t.x * 1000), frame, "x")], LIMITS)
    assert found.action == "fail"
    assert found.expected.startswith("median -0.03")
    assert "middle half -692.259 to" in found.seen
    assert "Jensen-Shannon 0.78" in found.seen


HOURS = pd.date_range("2024-01-01", periods=3000, freq="h")
TIMES = {
    "days": HOURS.strftime("%Y-%m-%d"),
    "days of another form": HOURS.strftime("%d.%m.%Y"),
    "times": HOURS.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "seconds": HOURS.astype("int64") // 10**9,
    "milliseconds as floats": HOURS.astype("int64") / 10**6,
    "months": HOURS.strftime("%Y-%m"),
    "year, month": HOURS.strftime("%Y%m").astype("int64"),
    "year, month, day": HOURS.strftime("%Y%m%d").astype("int64"),
    "a counter": np.arange(3000) + 1000,
}


@pytest.mark.parametrize("name", TIMES)
def test_time_that_advances_grows_and_does_not_drift_even_out_of_order(name):
    rows = pd.DataFrame({"at": TIMES[name]})
    then, later = rows[:1500].sample(frac=1, random_state=0), rows[1500:].sample(frac=1, random_state=0)
    assert distance(later, then, "at").reason in ("grows with time", TOO_MANY_VALUES)


@pytest.mark.parametrize("name", TIMES)
def test_time_in_row_order_is_reported_from_the_first_run(name):
    rows = pd.DataFrame({"at": TIMES[name], "x": np.sin(np.arange(3000))})
    found = Checks(
        {"train": statistics(rows)},
        schema_pb2.Schema(),
        {"train": tfdv.validate_statistics(statistics(rows), schema_pb2.Schema())},
        set(),
        ordered(rows),
        SETTINGS,
    )
    told = [f for f in found.findings()[0] if f.anomaly == "grows with time"]
    assert [(f.feature, f.action) for f in told] == [("at", "warn")]
    assert told[0].remedy == "--set 'data.exclude=[at]'"


def test_an_amount_that_grows_in_row_order_is_found():
    rows = pd.DataFrame({"since": np.arange(3000) * 0.5})
    assert distance(rows[1500:], rows[:1500], "since", {"since"}).reason == "grows with time"


def test_seconds_that_became_milliseconds_drift():
    rows = pd.DataFrame({"at": HOURS.astype("int64") // 10**9})
    assert distance(rows * 1000, rows, "at", {"at"}).judged


def test_time_that_goes_backwards_drifts():
    rows = pd.DataFrame({"at": HOURS.astype("int64") // 10**9})
    assert distance(rows[:1500], rows[1500:], "at", {"at"}).judged


def test_a_column_in_row_order_with_changed_units_drifts():
    rows = pd.DataFrame({"radius": np.sort(np.random.default_rng(0).normal(14, 3, 2000))})
    assert distance(rows * 1000, rows, "radius", {"radius"}).judged


def test_a_few_values_missing_in_train_by_chance_have_no_finding_and_many_have_one():
    splits = split(messy(), 1)
    assert judge(splits, split_paths=True) == []
    found = judge({**splits, "eval": splits["eval"].assign(kind="elsewhere")}, split_paths=True)
    [found] = [f for f in found if f.check == "schema"]
    assert (found.feature, found.where, found.anomaly, found.action) == ("kind", "eval", "unexpected string values", "warn")


def test_integers_missing_in_train_by_chance_have_no_finding():
    rows = pd.DataFrame({"children": np.random.default_rng(0).integers(0, 2, 1000)})
    other = rows[:200].copy()
    other.loc[3, "children"] = 2
    assert judge({"train": rows, "eval": other}, split_paths=True) == []
    [found] = [f for f in judge({"train": rows, "eval": rows[:200].assign(children=2)}, split_paths=True) if f.check == "schema"]
    assert (found.feature, found.expected, found.seen, found.action) == ("children", "0 or 1", "2 to 2", "warn")


def test_a_column_missing_in_a_split_stops_the_run():
    splits = split(messy(), 1)
    [found] = judge({**splits, "eval": splits["eval"].assign(x=np.nan)}, split_paths=True)
    assert (found.feature, found.where, found.action, found.share) == ("x", "eval", "fail", 1)


def test_differing_splits_in_separate_files_are_reported_and_do_not_stop_the_run():
    splits = split(messy(), 1)
    splits["eval"] = splits["eval"].assign(x=lambda t: t.x * 1000)
    [found] = judge(splits, split_paths=True)
    assert (found.check, found.feature, found.action) == ("splits", "x", "warn")


def test_groups_of_rows_that_are_split_by_their_key_have_no_finding():
    """Forty people of fifty rows each: what is a person's own is known of few people."""
    rng = np.random.default_rng(0)
    people = pd.DataFrame(
        {"person": range(40), "age": rng.integers(18, 90, 40).astype(float), "city": rng.choice(list("abcdefgh"), 40)}
    )
    people.loc[39, ["age", "city"]] = [np.nan, "z"]
    rows = people.loc[people.index.repeat(50)]
    splits = {"train": rows[rows.person < 30], "eval": rows[rows.person >= 30]}
    assert judge(splits, split_paths=False) == []
    others = people.assign(age=rng.integers(18, 90, 40), city=rng.choice(list("abcdefgh"), 40)).loc[people.index.repeat(50)]
    measured = distances(statistics(rows), statistics(others), "drift", "train", {"person"}, independent=40 / 2000)
    assert distance_findings(measured, LIMITS) == []


REVIEWED = text_format.Parse(
    """
    feature { name: "w" type: BYTES presence { min_fraction: 0.95 } unique_constraints { min: 40 max: 60 } }
    feature { name: "v" type: BYTES domain: "v" presence { min_fraction: 1 } }
    string_domain { name: "v" value: "a" value: "b" }
    """,
    schema_pb2.Schema(),
)


def reviewed_rows():
    rng = np.random.default_rng(0)
    words = rng.choice([f"w{i}" for i in range(50)], 2000).astype(object)
    words[rng.random(2000) < 0.03] = None
    return pd.DataFrame({"w": words, "v": rng.choice(["a", "b"], 2000)})


def test_bounds_on_all_rows_of_a_reviewed_schema_allow_a_small_split_what_chance_gives():
    rows = reviewed_rows()
    small = rows[:57].copy()
    small.loc[:3, "w"] = None
    assert judge({"train": rows, "eval": small}, schema=REVIEWED, curated=True) == []


def test_a_reviewed_schemas_bounds_hold_for_every_row_of_every_split():
    rows = reviewed_rows()
    small = rows[:57].copy()
    small.loc[5, "v"] = "c"
    [found] = judge({"train": rows, "eval": small}, schema=REVIEWED, curated=True)
    assert (found.feature, found.where, found.action) == ("v", "eval", "fail")


def test_an_inferred_schema_lets_rows_lack_what_any_split_lacks():
    rows = pd.DataFrame({"x": np.arange(100.0), "l": [[1.0, 2.0]] * 100})
    other = pd.DataFrame({"x": [1.0, None], "l": [[1.0, 2.0], [1.0, 2.0]]})
    schema = tfdv.infer_schema(statistics(rows), infer_feature_shape=True)
    widen(schema, statistics(rows), [statistics(other)])
    by_name = {f.name: f for f in schema.feature}
    assert not by_name["x"].HasField("shape")
    assert (by_name["x"].value_count.min, by_name["x"].value_count.max) == (1, 1)
    assert by_name["l"].shape.dim[0].size == 2
    assert not tfdv.validate_statistics(statistics(other), schema).anomaly_info


def test_a_column_whose_only_values_are_in_another_split_has_its_type_and_is_not_used():
    rows = pd.DataFrame({"x": np.arange(100.0), "late": [None] * 100})
    other = pd.DataFrame({"x": [1.0, 2.0], "late": [7, 8]})
    schema = tfdv.infer_schema(statistics(rows), infer_feature_shape=True)
    widen(schema, statistics(rows), [statistics(other)])
    late = next(f for f in schema.feature if f.name == "late")
    assert late.type == schema_pb2.INT
    assert unusable_features(schema, ["y"]) == {"late": "it has no value in the training split"}


def test_a_list_of_numbers_of_any_length_is_not_used_and_its_declaration_is_named():
    schema = schema_pb2.Schema()
    for name, kind in {"clicks": schema_pb2.FLOAT, "words": schema_pb2.BYTES}.items():
        schema.feature.add(name=name, type=kind, value_count=schema_pb2.ValueCount(min=0, max=3))
    assert unusable_features(schema, ["y"]) == {
        "clicks": "it holds a varying number of values per row; declare data.columns: {clicks: {type: sequence, length: 32}}, "
        "or write a preprocessing_fn for it",
        "words": "it holds a varying number of values per row; write a preprocessing_fn for it",
    }


def test_statistics_with_fine_quantiles_have_the_histograms_that_tfdv_makes(monkeypatch):
    frame = messy()[["x", "miles", "level", "children", "gaps", "tract"]]
    fine = statistics(frame)
    monkeypatch.setattr(basic_stats_generator, "_NUM_QUANTILES_FACTOR_FOR_STD_HISTOGRAM", 100)
    monkeypatch.setattr(quantiles_util, "generate_equi_width_histogram", tfdv_quantiles._original)
    monkeypatch.setattr(quantiles_util, "_get_bin_weights", tfdv_quantiles._original_weights)
    for mine, theirs in zip(
        fine.datasets[0].features, tfdv.generate_statistics_from_dataframe(frame).datasets[0].features, strict=True
    ):
        widths, plain = (f.num_stats.histograms[0].buckets for f in (mine, theirs))
        assert [b.sample_count for b in widths] == pytest.approx([b.sample_count for b in plain])
        assert [b.high_value for b in widths] == pytest.approx([b.high_value for b in plain])
        assert len(mine.num_stats.histograms[1].buckets) == 100
        tenths = [b.high_value for b in mine.num_stats.histograms[1].buckets][9::10]
        assert tenths == [b.high_value for b in theirs.num_stats.histograms[1].buckets]


def test_a_schema_that_a_person_reviews_knows_the_rare_values_of_every_split(tmp_path, monkeypatch):
    """Of statistics that stand for the run of ingest and statistics, which the command does first."""
    parts = {"train": pd.DataFrame({"k": ["a", "b"] * 50}), "eval": pd.DataFrame({"k": ["a", "rare", None]})}
    found = {name: statistics(rows) for name, rows in parts.items()}
    monkeypatch.setattr(schema_command, "_examine", lambda *_: (None, found))
    schema_command.infer(tmp_path / "p.yaml", [], None, tmp_path / "s.pbtxt")
    schema = tfdv.load_schema_text(str(tmp_path / "s.pbtxt"))
    assert [set(d.value) for d in schema.string_domain] == [{"a", "b", "rare"}]
    assert not tfdv.validate_statistics(found["eval"], schema).anomaly_info


@pytest.fixture
def model(tmp_path):
    """A folder with what a bundle holds of its training data."""
    folder = tmp_path / "artifacts" / "bundle" / "data"
    folder.mkdir(parents=True)
    rows = messy()[["x", "miles", "kind", "level"]].assign(y=0)
    (folder / "statistics.pb").write_bytes(statistics(rows).SerializeToString())
    summary(columns={"x": "float", "miles": "float", "kind": "string", "level": "integer", "y": "integer"}).save(str(folder))
    return tmp_path


def requests(folder, rows):
    rows[["x", "miles", "kind", "level"]].to_csv(folder / "requests.csv", index=False)
    return served_drift(folder, [str(folder / "requests.csv")], warn=0.1, fail=0.5)


def test_one_outlier_in_requests_is_no_drift(model):
    rows = messy(seed=1)[:500].copy()
    rows.loc[3, "miles"] = 1e9
    assert requests(model, rows).verdict() == "no feature has changed"


def test_a_few_requests_have_no_finding(model):
    found = requests(model, messy(seed=1)[:4])
    assert found.findings == []
    assert found.verdict() == "too few rows"


def test_requests_in_other_units_are_a_finding(model):
    [found] = requests(model, messy(seed=1)[:500].assign(x=lambda t: t.x * 1000)).findings
    assert (found.feature, found.action, found.remedy) == ("x", "fail", "")


def test_text_in_requests_where_numbers_were_trained_on_is_a_finding(model):
    found = requests(model, messy(seed=1)[:500].assign(level="high")).findings
    assert [(f.feature, f.anomaly, f.action) for f in found] == [("level", "another type", "fail")]


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y %H:%M:%S"])
def test_a_growing_date_is_found_in_either_order_of_day_and_month(form):
    days = pd.date_range("2024-03-01", periods=600, freq="2h").strftime(form)
    assert "d" in ordered(pd.DataFrame({"d": days}))


@pytest.mark.parametrize(
    ("changed", "few", "verdict"),
    [
        (1, 0, "1 feature has changed"),
        (2, 1, "2 features have changed"),
        (0, 1, "no feature has changed; 1 feature: too few rows"),
        (0, 2, "no feature has changed; 2 features: too few rows"),
    ],
)
def test_the_verdict_on_requests_counts_features_in_words_that_fit(changed, few, verdict):
    findings = [Finding("drift", "requests", f"x{i}", "its distribution has changed", "a", "b") for i in range(changed)]
    distances = [Distance("drift", "requests", f"x{i}", 0.1, None, 0.1, reason=TOO_FEW if i < few else "") for i in range(3)]
    assert ServedDrift(9, distances, findings, [], {}).verdict() == verdict
