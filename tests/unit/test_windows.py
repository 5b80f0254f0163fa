"""Windows over time series: which rows they hold, to which split they belong, and what is refused before anything is written."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import yaml

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data.windows import KnownWindows
from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import Rows, interval, replicates
from switchyard.components.evaluation.own_metrics import own_replicates
from switchyard.components.evaluation.periods import note_on_periods, periods, periods_of_split
from switchyard.components.evaluation.results import ModelResult
from switchyard.components.evaluation.thresholds import default_thresholds
from switchyard.components.evaluation.trivial import Trivial
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.scan import scan
from switchyard.components.ingest.windowed import first_rows, windowed
from switchyard.components.prediction.windows import write_labelled_windows, write_last_windows
from switchyard.pipelines.api.compare import _check_same_windows
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import input_spec

WINDOWS = {"order": "day", "group": "shop", "past": 3, "future": 2}


def table(days=40, shops=("a", "b"), start="2024-01-01"):
    """Returns rows in no order, whose sales tell shop and day: 1005 is day 5 of the second shop."""
    dates = pd.date_range(start, periods=days).strftime("%Y-%m-%d")
    frames = [
        pd.DataFrame(
            {"day": dates, "shop": shop, "promo": np.arange(days) % 3, "size": 7.5 + i, "sales": 1000 * i + np.arange(days)}
        )
        for i, shop in enumerate(shops)
    ]
    return pd.concat(frames).sample(frac=1, random_state=0)


def spec_of(folder, frame, windows=None, file="sales.csv", **data):
    """Writes a long table; returns the input."""
    writers = {"csv": frame.to_csv, "parquet": frame.to_parquet}
    writers[file.rpartition(".")[2]](folder / file, index=False)
    document = {"name": "w", "data": {"path": file, "windows": {**WINDOWS, **(windows or {})}, **data}}
    (folder / "p.yaml").write_text(yaml.safe_dump({**document, "label": "sales", "task": "multioutput"}))
    return input_spec(load_config(folder / "p.yaml"))


def read(spec, bad=None):
    """Returns what `windowed` made, and split -> its windows."""
    with windowed(spec, bad or BadRows(0)) as made:
        return made, {s: pyarrow.parquet.read_table(f[0]).to_pandas() for s, f in made.spec.split_paths.items()}


def test_a_window_holds_consecutive_rows_of_one_series_in_order(tmp_path):
    made, splits = read(spec_of(tmp_path, table(), {"static": "size"}))
    assert list(splits["train"].columns) == ["promo", "sales", "shop", "size", "sales_1", "sales_2"]
    for frame in splits.values():
        values = np.column_stack([np.stack(frame.sales), frame.sales_1, frame.sales_2])
        assert (np.diff(values, axis=1) == 1).all()
        assert (values[:, 0] // 1000 == (frame.shop == "b")).all()
        assert (frame["size"] == np.where(frame.shop == "b", 8.5, 7.5)).all()
        np.testing.assert_array_equal(np.stack(frame.promo), values[:, :3] % 1000 % 3)
    assert made.known.step == 86_400


def test_a_window_is_in_the_period_of_its_whole_future_and_none_straddles_a_border(tmp_path):
    """Of 40 days train has 28, eval 4 and test 8; a past may lie in an earlier period."""
    made, splits = read(spec_of(tmp_path, table()))
    days = {s: sorted({*(f.sales_1 % 1000), *(f.sales_2 % 1000)}) for s, f in splits.items()}
    assert days == {"train": [*range(3, 28)], "eval": [*range(28, 32)], "test": [*range(32, 40)]}
    assert splits["eval"].sales.map(min).min() % 1000 == 25
    assert made.known.dropped["windows that straddle the border of two splits"] == 4
    assert sum(map(len, splits.values())) + 4 == 2 * (40 - 5 + 1)
    assert [n for n in made.notes if "straddle" in n] == [
        "data.windows: 4 windows that straddle the border of two splits: left out"
    ]


def test_ingest_reads_the_windows_as_a_multioutput_task(tmp_path):
    spec = spec_of(tmp_path, table(), {"known": ["promo"]})
    with windowed(spec, BadRows(0)) as made:
        found = scan(made.spec, BadRows(0))
    assert (found.task, found.targets) == ("multioutput", ["sales_1", "sales_2"])
    lists = {n for n, t in found.types.items() if t.is_list}
    assert lists == {"promo", "promo_ahead", "sales", "size"}
    peek = first_rows(spec, BadRows(0))
    assert {n: (t.kind, t.is_list) for n, t in peek.types.items()} == {n: (t.kind, t.is_list) for n, t in found.types.items()}


def test_known_columns_hold_the_values_of_the_future(tmp_path):
    _, splits = read(spec_of(tmp_path, table(), {"known": ["promo"]}))
    train = splits["train"]
    np.testing.assert_array_equal(np.stack(train.promo_ahead), np.column_stack([train.sales_1, train.sales_2]) % 1000 % 3)


def test_a_series_that_is_too_short_is_left_out_and_counted(tmp_path):
    made, splits = read(spec_of(tmp_path, pd.concat([table(), table(days=4, shops=["tiny"])])))
    assert "tiny" not in set(splits["train"].shop)
    assert "data.windows: 1 series with fewer rows than a window's 5: left out" in made.notes


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_types_and_missing_texts_are_those_of_the_table(tmp_path, kind):
    frame = table().assign(is_open=True, since=pd.Timestamp("2020-01-01").date(), note=None)
    frame.loc[frame.shop == "b", "note"] = "new"
    _, splits = read(spec_of(tmp_path, frame, file=f"d.{kind}"))
    train = splits["train"]
    assert all(values.dtype == bool and values.all() for values in train.is_open)
    assert str(train.since.dtype).startswith("datetime64")
    assert set(train.note[train.shop == "b"]) == {"new"}
    assert train.note[train.shop == "a"].isna().all()


def gap(frame):
    return frame[~((frame.shop == "b") & (frame.day == "2024-01-20"))]


def test_gaps_are_refused_dropped_or_ignored(tmp_path):
    message = (
        "1 rows do not follow the one before by the usual step of 'day', 1 day, 0:00:00; the first is 2024-01-21 of shop 'b'"
    )
    with pytest.raises(UserError, match=message):
        read(spec_of(tmp_path, gap(table())))
    made, splits = read(spec_of(tmp_path, gap(table()), {"gaps": "drop"}))
    assert made.known.dropped["windows with a gap"] == 4
    values = np.column_stack([np.stack(splits["train"].sales), splits["train"].sales_2])
    assert (values[:, -1] - values[:, 0] == 4).all()
    made, splits = read(spec_of(tmp_path, gap(table()), {"gaps": "ignore"}))
    assert (made.known.step, made.known.dropped["windows with a gap"]) == (None, 0)
    assert (np.stack(splits["train"].sales) == [1017, 1018, 1020]).all(axis=1).sum() == 1


def test_a_missing_number_is_a_gap_and_a_row_without_a_label_is_a_bad_row(tmp_path):
    frame = table().astype({"promo": float, "sales": float})
    frame.loc[(frame.day == "2024-01-10") & (frame.shop == "a"), "promo"] = np.nan
    with pytest.raises(UserError, match=r"1 rows lack a number, the first is 'promo' of 2024-01-10 of shop 'a'"):
        read(spec_of(tmp_path, frame))
    made, _ = read(spec_of(tmp_path, frame, {"gaps": "ignore"}))
    assert made.known.dropped["windows with a missing number"] == 3
    frame = table().astype({"sales": float})
    frame.loc[(frame.day == "2024-01-10") & (frame.shop == "a"), "sales"] = np.nan
    with pytest.raises(UserError, match="the label 'sales' is missing"):
        read(spec_of(tmp_path, frame))
    with pytest.raises(UserError, match=r"data\.windows\.gaps: 1 rows do not follow"):
        read(spec_of(tmp_path, frame, max_bad_rows=1), BadRows(1))


@pytest.mark.parametrize(
    ("change", "windows", "message"),
    [
        (lambda f: pd.concat([f, f.head(2)]), {}, "2 rows have the same 'day' as another row of their series"),
        (lambda f: f, {"group": None}, "rows have the same 'day' as another row of their series"),
        (lambda f: f.assign(shop=f.shop.replace("b", None)), {}, "40 of 80 rows have no value of 'shop'"),
        (lambda f: f, {"order": "date"}, "data.windows.order: unknown column 'date'"),
        (lambda f: f, {"order": "promo", "group": "day"}, "rows have the same 'promo'"),
        (lambda f: f, {"order": "size"}, "'size' holds values of type float; rows are ordered by dates"),
        (lambda f: f, {"known": "colour"}, "data.windows.known: unknown column 'colour'"),
        (lambda f: f.assign(colour="red"), {"static": "colour"}, "'colour' holds values of type text, and it must be a number"),
        (lambda f: f.assign(sales_2=1), {}, "'sales_2' is a column of the data and the name of a column of windows"),
        (lambda f: f, {"past": 39}, "no series has the 41 rows of a window"),
        (lambda f: f, {"future": 5}, "the split 'eval' has no windows: none of 66 has its 5 future rows from 2024-01-29 on"),
    ],
)
def test_what_makes_no_windows_is_refused_with_key_and_fix(tmp_path, change, windows, message):
    with pytest.raises(UserError) as refused:
        read(spec_of(tmp_path, change(table()), windows))
    assert message in str(refused.value)


def test_lists_and_tables_beyond_the_memory_are_refused(tmp_path, monkeypatch):
    frame = table().assign(tags=[[1, 2]] * 80)
    with pytest.raises(UserError, match="'tags' holds lists, which windows cannot hold"):
        read(spec_of(tmp_path, frame, file="d.parquet"))
    monkeypatch.setattr("switchyard.components.ingest.windowed.MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"the table has more than .* in memory"):
        read(spec_of(tmp_path, table()))


CONFIGS = [
    ({"task": "regression"}, {}, {}, "task: data.windows makes the labels of a multioutput task, received regression"),
    ({"label": ["sales", "size"]}, {}, {}, "label: windows forecast one column"),
    ({"trainer": {"sample_weight": "size"}}, {}, {}, "trainer.sample_weight: all windows weigh the same"),
    ({"tokenizer": "t.py"}, {}, {}, "tokenizer: reads rows as they are in the files"),
    ({}, {"split_key": "shop"}, {}, "split_key: windows are split by time"),
    ({}, {"path": (), "splits": {"train": "a.csv", "eval": "b.csv"}}, {}, "windows: are split by time, received splits by path"),
    ({}, {"splits": {"test": 1, "train": 1, "eval": 1}}, {}, "'train' first and 'test' last"),
    ({}, {"columns": {"photo": {"type": "image", "size": [8, 8]}}}, {}, "'photo' has the type image, which windows cannot hold"),
    ({}, {"exclude": ["size"]}, {"static": "size"}, "lists 'size', which data.windows reads"),
    ({}, {}, {"order": "sales"}, "data.windows.order: 'sales' is the label"),
    ({}, {}, {"group": "day"}, "'day' is the order of the rows"),
    ({}, {}, {"known": "promo", "static": "promo"}, "known and static both list 'promo'"),
    ({}, {}, {"future": 1}, "greater than or equal to 2"),
    ({"evaluation": {"thresholds": {"loss/sales_3": {"upper_bound": 1}}}}, {}, {}, "sales_3"),
]


@pytest.mark.parametrize(("document", "data", "windows", "message"), CONFIGS, ids=range(len(CONFIGS)))
def test_settings_that_windows_do_not_have_are_refused_before_the_run(tmp_path, document, data, windows, message):
    from switchyard.pipelines.preflight import check_task

    table().to_csv(tmp_path / "sales.csv", index=False)
    config = {
        "name": "w",
        "data": {"path": "sales.csv", "windows": {**WINDOWS, **windows}, **data},
        "label": "sales",
        "task": "multioutput",
        **document,
    }
    (tmp_path / "p.yaml").write_text(json.dumps(config))
    with pytest.raises(UserError) as refused:
        check_task(load_config(tmp_path / "p.yaml"), "multioutput")
    assert message in str(refused.value)


def predicted(tmp_path, frame, windows=None, trained=None):
    """Returns the last windows of a long table by a model trained on another, and what is refused."""
    made, _ = read(spec_of(tmp_path, table() if trained is None else trained, windows))
    summary = DatasetSummary(
        "", [], {}, {}, {}, 0, [], [], "", "multioutput", [], {}, windows=json.loads(json.dumps(made.known.as_dict()))
    )
    frame.to_csv(tmp_path / "new.csv", index=False)
    found = write_last_windows(summary, {str(tmp_path / "new.csv"): "csv"}, (), tmp_path / "w.parquet")
    return found, pyarrow.parquet.read_table(tmp_path / "w.parquet").to_pandas()


def test_the_last_window_of_each_series_is_predicted_with_its_order_as_the_file_spells_it(tmp_path):
    found, rows = predicted(tmp_path, table(days=10))
    assert (found.written, found.windows, found.refused) == (("shop", "day"), 2, [])
    assert rows[["shop", "day"]].to_numpy().tolist() == [["b", "2024-01-10"], ["a", "2024-01-10"]]  # as in the file
    assert np.stack(rows.sales).tolist() == [[1007, 1008, 1009], [7, 8, 9]]


def test_rows_after_the_last_label_tell_what_is_known_ahead(tmp_path):
    frame = table(days=10).astype({"sales": float})
    frame.loc[frame.day > "2024-01-08", "sales"] = np.nan
    frame = frame[~((frame.shop == "b") & (frame.day == "2024-01-10"))]
    found, rows = predicted(tmp_path, frame, {"known": "promo"})
    assert rows.day.tolist() == ["2024-01-08"]
    assert np.stack(rows.promo_ahead).tolist() == [[2, 0]]
    assert found.refused == [{"shop": "b", "reason": "has 1 rows with what is known ahead (promo), not 2"}]


def test_series_and_rows_without_a_window_are_listed_with_the_reason(tmp_path):
    frame = pd.concat([table(days=10, shops=["a", "b", "c", "d"]), table(days=2, shops=["short"])]).astype({"sales": object})
    frame = frame[~((frame.shop == "b") & (frame.day == "2024-01-09"))]
    frame.loc[(frame.shop == "c") & (frame.day == "2024-01-09"), "promo"] = np.nan
    frame.loc[(frame.shop == "d") & (frame.day == "2024-01-10"), "sales"] = "many"
    found, rows = predicted(tmp_path, frame)
    assert dict(zip(rows.shop, rows.day, strict=True)) == {"a": "2024-01-10", "d": "2024-01-09"}
    reasons = {line.get("shop", "row"): line["reason"] for line in found.refused}
    assert reasons["b"] == "2024-01-10 of shop 'b' does not follow the row before by the usual step"
    assert reasons["c"] == "a number is missing at 2024-01-09 of shop 'c'"
    assert reasons["short"] == "has 2 rows up to the last one with 'sales', and a window has 3"
    assert "many" in reasons["row"]


def test_a_table_without_a_column_of_the_past_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"column 'promo' is missing in new\.csv"):
        predicted(tmp_path, table(days=10).drop(columns="promo"))


def test_every_row_that_cannot_be_read_counts_and_ends_a_prediction_that_ignores_gaps(tmp_path):
    made, _ = read(spec_of(tmp_path, table()))
    ignoring, _ = read(spec_of(tmp_path, table(), {"gaps": "ignore"}))
    file = tmp_path / "new.csv"
    file.write_text(table(days=10).to_csv(index=False) + "a,ragged,row,of,six,fields\n" * 50)

    def last(windows):
        summary = DatasetSummary("", [], {}, {}, {}, 0, [], [], "", "multioutput", [], {}, windows=windows.known.as_dict())
        return write_last_windows(summary, {str(file): "csv"}, (), tmp_path / "w.parquet")

    found = last(made)
    assert (found.windows, found.refusals) == (2, 50)
    with pytest.raises(UserError, match=r"new\.csv: .*\(50 such rows\)\. The model ignores gaps"):
        last(ignoring)


def test_a_table_whose_series_are_all_too_short_is_refused(tmp_path):
    with pytest.raises(UserError, match="INPUT: none of 2 series can be predicted; the first: has 2 rows up to the last one"):
        predicted(tmp_path, table(days=2))


def test_windows_that_all_lack_a_number_and_a_label_of_booleans_are_refused_with_the_reason(tmp_path):
    frame = table().astype({"promo": float})
    frame.loc[frame.day.str.endswith(("1", "3", "5", "7", "9")), "promo"] = np.nan
    with pytest.raises(UserError, match=r"no window is complete \(72 windows with a missing number\)\. Fill in"):
        read(spec_of(tmp_path, frame, {"gaps": "drop"}))
    with pytest.raises(UserError, match="label: 'sales' holds texts or true and false, and windows forecast numbers"):
        read(spec_of(tmp_path, table().assign(sales=lambda rows: rows.promo > 0)))


def test_an_excluded_group_names_the_series_and_is_no_feature(tmp_path):
    spec = spec_of(tmp_path, table(), exclude=["shop"])
    made, splits = read(spec)
    assert "shop" not in splits["train"]
    assert made.known.settings.group == "shop"


def test_the_trivial_predictor_of_windows_repeats_the_last_value_where_that_is_better():
    random = np.random.default_rng(0)
    walk = random.normal(size=500).cumsum()
    labels, last = np.stack([walk[1:-1], walk[2:]], axis=1), walk[:-2]
    for metric, mean in (("loss", lambda e: (e**2).mean()), ("mae", lambda e: np.abs(e).mean()), ("loss/sales_2", None)):
        rows = Rows("multioutput", labels, {}, targets=["sales_1", "sales_2"], last=last)
        value = Trivial.of(rows, metric).value
        expected = mean(labels - last[:, None]) if mean else ((labels[:, 1] - last) ** 2).mean()
        assert value == pytest.approx(expected)
    assert default_thresholds("multioutput", labels, rows.targets, None, last)["loss"].upper_bound < labels.var(axis=0).mean()
    noise = random.normal(size=(500, 2))
    rows = Rows("multioutput", noise, {}, targets=["sales_1", "sales_2"], last=np.full(500, 9.0))
    assert Trivial.of(rows, "loss").value == pytest.approx(noise.var(axis=0).mean())


def test_all_windows_with_known_labels_are_compared(tmp_path):
    made, _ = read(spec_of(tmp_path, table()))
    summary = DatasetSummary("", [], {}, {}, {}, 0, [], [], "", "multioutput", [], {}, windows=made.known.as_dict())
    frame = table(days=10).astype({"sales": float})
    frame.loc[(frame.shop == "b") & (frame.day == "2024-01-10"), "sales"] = np.nan
    gap(frame).to_parquet(tmp_path / "new.parquet")
    order, left_out = write_labelled_windows(summary, {str(tmp_path / "new.parquet"): "parquet"}, tmp_path / "w.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "w.parquet").to_pandas()
    assert (len(rows), left_out) == (11, 1)
    assert (np.diff(order) == np.diff(rows.sales_1 % 1000) * (order[1] - order[0])).all()
    assert (rows.sales_2 - rows.sales.map(min) == 4).all()


def test_ignored_gaps_do_not_hide_bad_rows(tmp_path):
    frame = table().astype({"sales": float})
    frame.loc[(frame.shop == "b") & (frame.day == "2024-01-20"), "sales"] = np.nan
    with pytest.raises(UserError, match=r"data\.windows\.gaps: 1 rows are bad or have no label.*set gaps to drop"):
        read(spec_of(tmp_path, frame, {"gaps": "ignore"}), BadRows(5))


def test_versions_of_different_windows_are_not_compared_row_by_row():
    first = pd.DataFrame({"sales_1": [1.0, 2.0, 3.0], "sales_2": [2.0, 3.0, 4.0]})
    _check_same_windows({"1": first, "2": first.copy()})
    _check_same_windows({"1": first[:0], "2": first[:0][["sales_1"]]})
    for other in (first[1:], first + 1):
        with pytest.raises(UserError, match="--data: versions 1 and 2 read different windows"):
            _check_same_windows({"1": first, "2": other})


def test_the_windows_of_a_split_are_counted_by_time_as_its_rows_are(tmp_path):
    shops = pd.concat([table(days=40), table(days=12, shops=["c"], start="2024-01-29")])
    made, splits = read(spec_of(tmp_path, shops))
    counted = made.known.rows_at
    assert counted.keys() == {"eval", "test"}
    for split, rows_at in counted.items():
        days = splits[split].sales_1.mod(1000) + 28 * (splits[split].shop == "c")
        assert days.is_monotonic_increasing
        assert rows_at == np.unique(days, return_counts=True)[1].tolist()
    assert counted["test"] == [3] * len(counted["test"])
    assert KnownWindows.of(json.loads(json.dumps(made.known.as_dict()))).rows_at == counted
    older = {name: value for name, value in made.known.as_dict().items() if name != "rows_at"}
    assert "of an older version" in note_on_periods(older, "test")


def overlapping(days=600, future=6, shops=3):
    """Returns rows of windows whose labels are consecutive draws, the same in all shops, by time; and the order of each."""
    draws = np.random.default_rng(1).normal(size=days)
    starts = np.repeat(np.arange(days - future + 1), shops)
    labels = draws[starts[:, np.newaxis] + np.arange(future)]
    return Rows("multioutput", labels, {"m": np.zeros(labels.shape)}, targets=[f"y_{i + 1}" for i in range(future)]), starts


def test_the_interval_of_overlapping_windows_is_that_of_periods_drawn_whole():
    rows, starts = overlapping()
    naive = interval(replicates(rows)["m"]["loss"])
    drawn = periods(starts, 18)
    found = replicates(replace(rows, clusters=drawn))["m"]["loss"]
    low, high = interval(found)
    assert high - low > 3 * (naive[1] - naive[0])
    # The standard error of a mean whose periods are drawn: of the sums of their deviations.
    losses = (rows.labels**2).mean(axis=1)
    error = np.sqrt((np.bincount(drawn, losses - losses.mean()) ** 2).sum()) / len(losses)
    assert found.std() == pytest.approx(error, rel=0.1)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_a_metric_of_the_users_draws_the_same_periods(tmp_path):
    (tmp_path / "metrics.py").write_text(
        "def plain(labels, scores): return ((labels - scores) ** 2).mean()\n"
        "def weighed(labels, scores, weights): return ((labels - scores) ** 2).mean(axis=1) @ weights / weights.sum()\n"
    )
    rows, starts = overlapping(days=120)
    rows = replace(rows, clusters=periods(starts, 8))
    expected = replicates(rows)["m"]["loss"]
    for name in ("plain", "weighed"):
        assert own_replicates(str(tmp_path / "metrics.py"), name, rows)["m"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("steps", "window", "number", "note"),
    [
        (365, 35, 11, ""),
        (100, 35, 10, ""),
        (60, 35, 10, "60 steps of the order, fewer than 10 times the 7 of a forecast: the intervals are too narrow, at least 70"),
        (7, 35, 7, "fewer than 10 times the 7"),
        (4, 35, 4, "4 steps of the order, too few for intervals: at least 70"),
    ],
)
def test_periods_are_as_long_as_a_window_unless_there_would_be_few(steps, window, number, note):
    windows = {"settings": {"past": window - 7, "future": 7}, "rows_at": {"test": [2] * steps}}
    found = periods_of_split(windows, "test")
    assert len(found) == 2 * steps
    assert found[-1] + 1 == number
    assert note in note_on_periods(windows, "test")
    assert bool(note) == bool(note_on_periods(windows, "test"))


def test_too_few_periods_have_no_interval_and_no_model_beats_the_trivial_predictor_there():
    rows, starts = overlapping(days=9, future=6)
    rows = replace(rows, clusters=periods(starts, 18))
    assert replicates(rows) == {"m": {}}
    trivial = Trivial.of(rows, "loss")
    assert trivial.samples is None
    model = ModelResult("m", "candidate", "m", "", None, {"loss": 0.0}, {}, {}, {})
    assert "too few rows to compute a confidence" in trivial.not_better(model, None, 0.95)
    assert trivial.not_better(model, None, None) == ""
