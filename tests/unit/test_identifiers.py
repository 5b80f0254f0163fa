"""Which columns name or count rows, and whether one of them gives the label away."""

import numpy as np
import pandas as pd
import pytest

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.config import DataGateSettings
from switchyard.components.data_gate.identifiers import explained, identifier, identifier_findings

ROWS = 2000
RNG = np.random.default_rng(0)
SHUFFLED = RNG.permutation(ROWS)
SORTED_LABEL = (np.arange(ROWS) >= 1200).astype(int)
SECONDS = 1_700_000_000


def kind(values, name="x"):
    values = pd.Series(values)
    told = "string" if values.dtype == object else "integer" if values.dtype.kind == "i" else "float"
    return identifier(name, values, told)


COUNTS = {
    "stored index, shuffled": SHUFFLED,
    "stored index as floats, shuffled": SHUFFLED * 1.0,
    "half of an index": SHUFFLED[SHUFFLED % 3 != 0],
    "a twentieth of an index": RNG.permutation(ROWS * 20)[:ROWS],
    "numbers in steps": SHUFFLED * 7 + 100,
    "rows in order": np.arange(ROWS),
    "rows in reverse": np.arange(ROWS)[::-1],
    "a log's seconds": SECONDS + np.cumsum(RNG.integers(1, 900, ROWS)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_counter_of_rows_is_an_index_or_an_order(name):
    assert kind(COUNTS[name]) in ("an index", "an order of the rows")


@pytest.mark.parametrize("name", ["customer_id", "Id", "PassengerId", "rowNumber", "key"])
def test_a_number_named_id_is_an_id(name):
    assert kind(RNG.integers(10**9, 10**18, ROWS), name) == "an id"


@pytest.mark.parametrize("pattern", ["user_{}", "A-{:06d}", "{:x}-{}"])
def test_distinct_texts_are_an_id(pattern):
    assert kind([pattern.format(i * 7919, i) for i in range(ROWS)]) == "an id"


QUANTITIES = {
    "incomes in whole dollars": RNG.normal(50_000, 9_000, ROWS).round().astype(int),
    "prices in cents": RNG.lognormal(10, 1, ROWS).round().astype(int),
    "uniform amounts": RNG.integers(0, 2_000_000, ROWS),
    "seconds of events as they came": SECONDS + RNG.integers(0, 5_000_000, ROWS),
    "areas": RNG.gamma(4, 200, ROWS).round(1),
    "sorted measurements": np.sort(RNG.normal(size=ROWS)),
    "ages": RNG.integers(18, 90, ROWS),
    "few rows": np.arange(40),
}


@pytest.mark.parametrize("name", QUANTITIES)
def test_a_quantity_with_many_distinct_values_is_no_id(name):
    assert kind(QUANTITIES[name], "area") is None


def test_sentences_are_no_ids():
    assert kind([f"this is the comment of customer {i}" for i in range(ROWS)]) is None


def share(values, label, has_classes=True):
    return explained(pd.Series(values), pd.Series(label), has_classes=has_classes)


def test_an_order_explains_a_label_that_was_sorted_whatever_the_order_of_the_file():
    assert share(SHUFFLED, SORTED_LABEL[SHUFFLED]) > 0.95


def test_an_order_explains_blocks_of_labels():
    assert share(SHUFFLED, (SHUFFLED // 400) % 2) > 0.9


def test_an_order_explains_a_rare_class_in_one_block():
    assert share(SHUFFLED, SHUFFLED < 80) > 0.7


def test_an_order_explains_several_classes_and_a_quantity():
    assert share(SHUFFLED, SHUFFLED // 500) > 0.9
    assert share(SHUFFLED, np.exp(SHUFFLED / 99.0), has_classes=False) > 0.9


@pytest.mark.parametrize("pattern", ["{source}-{i}", "{i}-{source}", "u{source}{i}"])
def test_a_text_explains_the_label_by_its_prefix_or_suffix(pattern):
    label = np.arange(ROWS) % 2
    names = [pattern.format(source="ab"[y], i=i * 7919 % 10007) for i, y in enumerate(label)]
    assert share(names, label) > 0.9


def test_numbers_in_texts_are_ordered_as_numbers():
    assert share([f"user_{i}" for i in SHUFFLED], SORTED_LABEL[SHUFFLED]) > 0.9


def test_a_random_id_explains_nothing():
    assert share(SHUFFLED, RNG.integers(0, 2, ROWS)) < 0.02
    assert share([f"user_{i}" for i in SHUFFLED], RNG.integers(0, 2, ROWS)) < 0.02


def test_equal_values_gain_no_information_from_the_order_of_the_file():
    assert share(np.zeros(ROWS, dtype=int), SORTED_LABEL) < 0.02


def findings(columns, label, features=None, **facts_of):
    kinds = {n: "string" if isinstance(v[0], str) else "integer" for n, v in columns.items()}
    facts = DatasetSummary("", [], {**kinds, "y": "integer"}, {}, {}, 0, [], [], "y", "binary", [0, 1], {}, **facts_of)
    settings = DataGateSettings(on_anomaly={"features": features or {}})
    return identifier_findings(pd.DataFrame({**columns, "y": label}), facts, settings)


def test_an_index_that_predicts_the_label_stops_the_run_with_both_fixes():
    [found] = findings({"i": SHUFFLED}, SORTED_LABEL[SHUFFLED])
    assert found.action == "fail"
    assert found.anomaly.startswith("an index that predicts the label by itself")
    assert "--set 'data.exclude=[i]'" in found.remedy
    assert "--set 'validation.on_anomaly.features.i=warn'" in found.remedy


def test_an_allowed_index_warns():
    [found] = findings({"i": SHUFFLED}, SORTED_LABEL[SHUFFLED], {"i": "warn"})
    assert found.action == "warn"


def test_an_id_without_information_about_the_label_warns():
    [found] = findings({"i": SHUFFLED}, RNG.integers(0, 2, ROWS))
    assert (found.action, found.anomaly) == ("warn", "looks like an id but is used as a feature")


def test_a_feature_that_predicts_the_label_is_no_finding_of_ids():
    income = QUANTITIES["incomes in whole dollars"]
    assert findings({"income": income}, (income > 50_000).astype(int)) == []


DAYS = pd.date_range("2024-01-01", periods=100).repeat(20)


@pytest.mark.parametrize("days", [DAYS.strftime("%Y-%m-%d").tolist(), DAYS.astype("int64") // 10**9], ids=["texts", "seconds"])
def test_a_date_that_grows_with_the_file_and_predicts_the_label_stops_the_run(days):
    [found] = findings({"day": days}, SORTED_LABEL)
    assert (found.action, "an order of the rows that predicts the label" in found.anomaly) == ("fail", True)


def test_a_date_that_does_not_predict_the_label_is_no_finding():
    assert findings({"day": DAYS.strftime("%Y-%m-%d").tolist()}, RNG.integers(0, 2, ROWS)) == []


def test_a_file_sorted_by_a_quantity_that_influences_the_label_is_no_finding():
    age = np.sort(RNG.integers(18, 90, ROWS))
    assert findings({"age": age}, (age + RNG.normal(0, 15, ROWS) > 50).astype(int)) == []


def test_a_time_that_predicts_the_label_stops_the_run_in_any_order_of_the_file():
    seconds = np.asarray(DAYS.astype("int64") // 10**9)[SHUFFLED]
    [found] = findings({"at": seconds}, SORTED_LABEL[SHUFFLED], meanings={"at": "timestamp[s]"})
    assert (found.action, found.anomaly.startswith("a time that predicts the label by itself")) == ("fail", True)
    assert findings({"at": seconds}, RNG.integers(0, 2, ROWS), meanings={"at": "timestamp[s]"}) == []


TABLES = [np.arange(900), np.arange(700), np.arange(400)]
BLOCKS = np.concatenate([np.arange(len(t)) >= 0.6 * len(t) for t in TABLES]).astype(int)


def mixed(values, seed=1):
    return np.asarray(values)[np.random.default_rng(seed).permutation(len(values))[:1400]]


@pytest.mark.parametrize("name", ["index", "level_0", "Unnamed: 0", "id", "row_nr"])
def test_the_index_of_concatenated_tables_is_an_index_although_its_values_repeat(name):
    [found] = findings({name: mixed(np.concatenate(TABLES))}, mixed(BLOCKS))
    assert (found.action, found.anomaly.startswith("an index that predicts the label by itself")) == ("fail", True)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", RNG.integers(0, 700, 1400)),
        ("floor_nr", RNG.integers(0, 60, 1400)),
        ("week", mixed(np.concatenate(TABLES))),
        ("number", RNG.normal(0, 1, 1400).round(2)),
        ("nr", RNG.integers(0, 10**9, 30).repeat(50)),
    ],
)
def test_numbers_that_repeat_by_chance_or_design_are_no_index(name, values):
    assert kind(values, name) is None


def test_a_time_may_predict_a_forecast_quantity():
    hours = SECONDS + 3600 * np.arange(ROWS)
    load = np.sin(np.arange(ROWS) / 300.0) + RNG.normal(0, 0.4, ROWS)
    facts = DatasetSummary(
        "", [], {"at": "integer", "y": "float"}, {}, {}, 0, [], [], "y", "regression", [], {}, meanings={"at": "timestamp[s]"}
    )
    assert 0.6 < share(hours, load, has_classes=False) < 0.9
    assert identifier_findings(pd.DataFrame({"at": hours, "y": load}), facts, DataGateSettings()) == []
