"""What a champion can take of new data: converted where nothing is lost, else row by row, with the reason."""

import numpy as np
import pyarrow as pa
import pytest

from switchyard.components.baseline.contents import BaselineContents, Misfit
from switchyard.components.baseline.fit import ChampionFit
from switchyard.components.bundle.model import BundleInfo, RawFeature
from switchyard.components.data.summary import DatasetSummary


def summary(task="binary", classes=(0, 1), columns=None, label="y"):
    kinds = {"y": "integer", **(columns or {})}
    return DatasetSummary("f", [], kinds, {}, {"train": 7, "test": 3}, 0, [], [], label, task, list(classes), {})


def champion(*features, task="binary", classes=(0, 1), label="y", targets=()):
    return BundleInfo("pytorch", "pytorch", task, label, list(classes), list(features), targets=list(targets))


def batch(**columns):
    """One value a row, None for missing; a list is a list."""
    columns = {n: [None if v is None else v if isinstance(v, list) else [v] for v in values] for n, values in columns.items()}
    return pa.RecordBatch.from_pydict(columns)


AGE = RawFeature("age", "int64", 1)


def test_integers_integral_floats_and_digits_are_the_same_numbers():
    fit = ChampionFit(champion(AGE), summary(columns={"age": "float"}))
    for values in ([30, 40], [30.0, 40.0], [b"30", b"40.0"]):
        taken = fit.take(batch(y=[0, 1], age=values))
        assert taken.mask.all()
        assert taken.columns["age"].tolist() == [[30], [40]]
    fit = ChampionFit(champion(RawFeature("age", "float32", 1)), summary(columns={"age": "integer"}))
    assert fit.take(batch(y=[0, 1], age=[30, 40])).columns["age"].tolist() == [[30.0], [40.0]]


def test_a_row_with_an_unsuitable_value_is_excluded_with_the_reason():
    taken = ChampionFit(champion(AGE), summary(columns={"age": "float"})).take(batch(y=[0, 1, 1], age=[30.0, 45.5, None]))
    assert taken.mask.tolist() == [True, False, False]
    assert taken.columns["age"].tolist() == [[30]]
    reasons = {why: n for (column, why), n in taken.reasons.items() if column == "age"}
    [(fraction, one), (missing, other)] = sorted(reasons.items())
    assert (one, other) == (1, 1)
    assert "45.5" in fraction + missing
    assert "had a value in every row of the champion's training data" in fraction + missing


def test_an_optional_column_may_have_missing_values_or_be_absent():
    fit = ChampionFit(champion(RawFeature("age", "float32", None)), summary())
    assert fit.obstacle == ""
    assert fit.take(batch(y=[0, 1])).mask.all()
    fit = ChampionFit(champion(RawFeature("age", "float32", None)), summary(columns={"age": "float"}))
    ragged = fit.take(batch(y=[0, 1], age=[None, 3.0])).columns["age"]
    assert (ragged.values.tolist(), ragged.lengths.tolist()) == ([3.0], [0, 1])


def test_lists_fit_by_their_length_and_their_values():
    fit = ChampionFit(champion(RawFeature("v", "float32", 2)), summary(columns={"v": "list of float"}))
    taken = fit.take(batch(y=[0, 1, 1], v=[[1.0, 2.0], [1.0], [1.0, 2.0, 3.0]]))
    assert taken.mask.tolist() == [True, False, False]
    fit = ChampionFit(champion(RawFeature("v", "float32", None)), summary(columns={"v": "list of float"}))
    assert fit.take(batch(y=[0, 1, 1], v=[[1.0], [], [1.0, 2.0]])).mask.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("info", "data", "words"),
    [
        (champion(task="regression", classes=()), summary(), "regression task, the data is binary"),
        (champion(label="z"), summary(), "it predicts 'z', the label is 'y'"),
        (
            champion(classes=["good", "bad"]),
            summary(classes=["good", "zbad"]),
            "its classes are good, bad, the data has good, zbad",
        ),
        (champion(AGE), summary(), "it needs the column 'age', which is not in the data"),
        (
            champion(task="multilabel", classes=(), label="a, b", targets=["a", "b"]),
            summary("multilabel", (), label="b, a"),
            "it predicts 'a, b', the label is 'b, a'",
        ),
    ],
)
def test_a_champion_of_another_task_can_score_nothing(info, data, words):
    assert words in ChampionFit(info, data).obstacle


@pytest.mark.parametrize(
    "classes", [[0, 1], ["0", "1"], ["0.0", "1.0"], ["False", "True"], ["false", "true"]], ids=lambda c: str(c[1])
)
@pytest.mark.parametrize("others", [[0, 1], ["0", "1"], ["False", "True"]], ids=lambda c: str(c[1]))
def test_classes_of_another_spelling_are_the_same_classes(classes, others):
    fit = ChampionFit(champion(classes=classes), summary(classes=others))
    assert fit.obstacle == ""
    np.testing.assert_array_equal(fit.aligned(np.float32([[0.2], [0.7]])), np.float32([[0.2], [0.7]]))


def test_the_probability_is_inverted_for_the_other_positive_class():
    fit = ChampionFit(champion(classes=["bad", "good"]), summary(classes=["good", "bad"]))
    np.testing.assert_allclose(fit.aligned(np.float32([[0.2], [0.7]])), [[0.8], [0.3]], rtol=1e-6)


def test_rows_of_a_class_unknown_to_the_champion_are_excluded():
    info, data = champion(AGE, task="multiclass", classes=["a", "b", "c"]), summary("multiclass", ["a", "b", "c", "d"])
    taken = ChampionFit(info, data).take(batch(y=[b"a", b"d", b"c"], age=[1, 2, 3]))
    assert taken.mask.tolist() == [True, False, True]
    [(column, why)] = taken.reasons
    assert (column, why) == ("y", "its class is d, which is not a class of the champion")
    aligned = ChampionFit(info, data).aligned(np.float32([[0.2, 0.3, 0.5]]))
    np.testing.assert_array_equal(aligned, np.float32([[0.2, 0.3, 0.5, 0.0]]))


def test_a_positive_class_missing_in_the_data_is_refused():
    fit = ChampionFit(champion(task="multiclass", classes=["a", "b", "c", "d"]), summary("multiclass", ["d", "a", "b"]))
    aligned = fit.aligned(np.float32([[0.2, 0.1, 0.6, 0.1]]))
    np.testing.assert_array_equal(aligned, np.float32([[0.1, 0.2, 0.1, 0.6]]))
    assert aligned.argmax() == 3, "none of the data's three classes"


def test_two_and_three_classes_are_compared_on_the_common_ones():
    grown = ChampionFit(champion(classes=["a", "b"]), summary("multiclass", ["a", "b", "c"]))
    np.testing.assert_allclose(grown.aligned(np.float32([[0.25]])), [[0.75, 0.25, 0.0]])
    shrunk = ChampionFit(champion(task="multiclass", classes=["a", "b", "c"]), summary(classes=["a", "b"]))
    np.testing.assert_allclose(shrunk.aligned(np.float32([[0.25, 0.5, 0.25]])), [[2 / 3]], rtol=1e-6)


def baseline(**changes):
    given = {"version": "3", "name": "m", "rows": 100, "judged": 80, "misfits": [Misfit("age", "is missing", 20)]}
    return BaselineContents(**{"framework": "pytorch", "model_uri": "", "previous_run": None, "note": "n", **given, **changes})


def test_too_few_rows_are_not_compared_and_the_reason_names_column_version_and_share():
    assert baseline().comparable(0.8)
    assert baseline().why_not(0.8) == ""
    why = baseline().why_not(0.9)
    for part in (
        "champion version 3 of m cannot be compared",
        "80 of 100 rows (80%)",
        "'age' is missing (20 of 100 rows)",
        "90%",
    ):
        assert part in why
    assert not baseline(judged=0).comparable(0.0)
    assert "it needs 'age'" in baseline(obstacle="it needs 'age'").why_not(0)
    assert baseline(version=None, note="m has no champion yet").why_not(0.9) == "m has no champion yet"


def test_a_fit_is_read_as_it_was_written(tmp_path):
    baseline().save(str(tmp_path))
    assert BaselineContents.load(str(tmp_path)) == baseline()


@pytest.mark.parametrize(
    ("meaning", "value", "trained", "expected"),
    [
        ("boolean", 1, RawFeature("v", "string", 1, meaning="text", spelled=["True"]), b"True"),
        ("boolean", 1, RawFeature("v", "int64", 1, meaning="boolean"), 1),
        ("timestamp[us]", 5_000_000, RawFeature("v", "int64", 1, meaning="timestamp[s]"), 5),
        ("time[ms]", 5_000, RawFeature("v", "int64", 1, meaning="time[s]"), 5),
        ("time[us]", 5_000_000, RawFeature("v", "int64", 1, meaning="time[s]"), 5),
    ],
    ids=lambda v: str(getattr(v, "meaning", v)),
)
def test_an_integer_is_converted_for_the_champion_by_its_meaning(meaning, value, trained, expected):
    from dataclasses import replace

    data = replace(summary(columns={"v": "integer"}), meanings={"v": meaning})
    taken = ChampionFit(champion(trained), data).take(batch(y=[0], v=[value]))
    assert taken.reasons == {}
    assert taken.columns["v"].tolist() == [[expected]]
