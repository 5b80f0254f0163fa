"""Measures the data gate's false alarms and its detection of planted shifts.

python benchmarks/gate_calibration.py [--quick] [--resplits 200] [--plants 50] [--data NAME ...] [--json]

False alarms: for each data set, 200 random splits into train, eval and test are checked with all checks that need only
statistics. The baseline is the previous split (a champion trained on the same file, split again); in 200 more rounds, one half of
the rows is checked against the other half (another sample of the same source). Shifts: one shift is planted into one column of
2,000 rows; the champion was trained on 2,000 other rows (drawn with replacement if the data set is too small). Shifts are planted
into columns that have values in half of the rows, more than one value in a tenth of them, and no growth over time.
The gate's own code does the checks; TFDV computes the statistics. Data: the examples' and the benchmark's data, the taxi trips in
../shared if present, and data sets generated from a seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tensorflow_data_validation as tfdv  # noqa: E402
from stock_tfx.trips import write_trips  # noqa: E402

from switchyard.components.compat.tfdv_quantiles import stats_options  # noqa: E402
from switchyard.components.data_gate.checks import Checks  # noqa: E402
from switchyard.components.data_gate.config import DataGateSettings  # noqa: E402
from switchyard.components.data_gate.findings import Finding, merged  # noqa: E402
from switchyard.components.data_gate.growth import ordered  # noqa: E402
from switchyard.components.data_gate.inferred_schema import widen  # noqa: E402

TAXI = ROOT.parent / "shared" / "data" / "chicago_taxi" / "data.csv"
ROWS = 2_000
SPLITS = {"train": 0.7, "eval": 0.1, "test": 0.2}
SETTINGS = DataGateSettings()


def main() -> None:
    """Checks all data sets and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 splits and 10 plants of each")
    parser.add_argument("--resplits", type=int, default=200)
    parser.add_argument("--plants", type=int, default=50)
    parser.add_argument("--data", nargs="*", help="data sets, by name; default: all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    resplits, plants = (20, 10) if options.quick else (options.resplits, options.plants)
    alarms, caught = [], []
    for name, frame in data_sets():
        if options.data and name not in options.data:
            continue
        print(name, file=sys.stderr)
        alarms.append({"data": name, "columns": frame.shape[1], "rows": len(frame), **false_alarms(frame, resplits)})
        caught.append({"data": name, **planted(frame, plants)})
    if options.json:
        print(json.dumps({"false_alarms": alarms, "planted": caught}))
        return
    print(f"| data | rows | columns | re-splits stopped, of {resplits} | with a finding | halves stopped | with a finding |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in alarms:
        print(f"| {row['data']} | {row['rows']:,} | {row['columns']} | " + " | ".join(f"{row[k]:.1%}" for k in _ALARMS) + " |")
    print(f"\n| data, caught of {plants} (and stopped) | " + " | ".join(SHIFTS) + " |")
    print("| --- |" + " --- |" * len(SHIFTS))
    for row in caught:
        cells = ["none" if row[s] is None else f"{row[s]['caught']:.0%} ({row[s]['stopped']:.0%})" for s in SHIFTS]
        print(f"| {row['data']} | " + " | ".join(cells) + " |")


_ALARMS = ("resplit_stopped", "resplit_found", "half_stopped", "half_found")


def data_sets() -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields name and rows of each data set, in file order."""
    examples = ROOT / "pipelines" / "examples"
    yield "breast_cancer", pd.read_csv(examples / "breast_cancer" / "data.csv")
    yield "digits", _one_value_a_column(pd.read_parquet(examples / "digits" / "data.parquet"))
    with tempfile.TemporaryDirectory() as folder:
        trips = Path(folder) / "trips.csv"
        write_trips(trips, 6_000)
        yield "trips", pd.read_csv(trips)
    if TAXI.exists():
        yield "taxi", pd.read_csv(TAXI)
    yield "heavy tails", heavy_tails()
    yield "rare values", rare_values()
    yield "dates", dates()
    yield "mostly missing", mostly_missing()
    yield "wide", pd.DataFrame(np.random.default_rng(5).normal(size=(5_000, 150)), columns=[f"c{i}" for i in range(150)])


def _one_value_a_column(frame: pd.DataFrame) -> pd.DataFrame:
    lists = [c for c in frame if isinstance(frame[c].iloc[0], np.ndarray)]
    wide = [pd.DataFrame(np.stack(frame[c]), columns=[f"{c} {i}" for i in range(len(frame[c].iloc[0]))]) for c in lists]
    return pd.concat([frame.drop(columns=lists), *wide], axis=1)


def heavy_tails(rows: int = 6_000) -> pd.DataFrame:
    """Returns lognormal, Pareto and Cauchy numbers, each with one extreme outlier."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "lognormal": rng.lognormal(0, 1, rows).round(2),
            "wide": rng.lognormal(0, 3, rows),
            "pareto": rng.pareto(1.1, rows),
            "cauchy": rng.standard_cauchy(rows),
            "counts": rng.negative_binomial(1, 0.05, rows),
        }
    )
    frame.loc[17] = [1e4, 1e9, 1e8, -1e7, 10**6]
    return frame


def rare_values(rows: int = 6_000) -> pd.DataFrame:
    """Returns texts and integers with many rare values."""
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "zipf": [f"w{v}" for v in np.minimum(rng.zipf(1.5, rows), 10**6)],
            "company": rng.choice([f"company {i}" for i in range(300)], rows),
            "kind": rng.choice(["a", "b", "c", "d"], rows, p=[0.7, 0.2985, 0.001, 0.0005]),
            "children": np.where(rng.random(rows) < 0.001, 2, rng.integers(0, 2, rows)),
            "visits": rng.poisson(0.2, rows),
            "level": rng.integers(1, 6, rows),
            "id": [f"u{i}" for i in rng.permutation(rows)],
        }
    )


def dates(rows: int = 6_000) -> pd.DataFrame:
    """Returns rows ordered by time: days, timestamps, counters, and an amount."""
    rng = np.random.default_rng(3)
    hours = pd.date_range("2024-01-01", periods=rows, freq="h")
    return pd.DataFrame(
        {
            "day": hours.strftime("%Y-%m-%d"),
            "at": hours.strftime("%Y-%m-%dT%H:%M:%S"),
            "seconds": hours.astype("int64") // 10**9,
            "since": np.arange(rows) * 0.5 + rng.random(rows) * 0.4,
            "number": np.arange(rows) + 1000,
            "weekday": hours.strftime("%a"),
            "amount": rng.gamma(2, 20, rows).round(2),
        }
    )


def mostly_missing(rows: int = 6_000) -> pd.DataFrame:
    """Returns columns with one value in total, one in a thousand rows, and so on; and columns with few missing values."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"x": rng.normal(size=rows), "kind": rng.choice(list("abc"), rows)})
    for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999):
        frame[f"number {share}"] = np.where(rng.random(rows) < share, rng.normal(size=rows), np.nan)
        frame[f"text {share}"] = np.where(rng.random(rows) < share, rng.choice(list("abcd"), rows), None)
    frame["one number"] = [5.0 if i == 40 else np.nan for i in range(rows)]
    frame["one text"] = ["a" if i == 41 else None for i in range(rows)]
    return frame


def false_alarms(frame: pd.DataFrame, trials: int) -> dict[str, float]:
    """Returns the shares of runs with unchanged data that the gate stopped, and that had a drift or schema finding."""
    rng = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    before = None
    for _ in range(trials + 1):
        rows = split(frame, rng.random(len(frame)))
        now = {name: statistics(part) for name, part in rows.items()}
        if before is not None:
            _count(counts, "resplit", findings(now, before, ordered(rows["train"])))
        before = now["train"]
    for _ in range(trials):
        half = rng.random(len(frame)) < 0.5
        mine, theirs = (split(part, rng.random(len(part)))["train"] for part in (frame[half], frame[~half]))
        _count(counts, "half", findings({"train": statistics(mine)}, statistics(theirs), ordered(mine)))
    return {name: counts[name] / trials for name in _ALARMS}


def _count(counts: Counter[str], kind: str, findings: Sequence[Finding]) -> None:
    told = [f for f in findings if f.anomaly != "grows with time"]
    counts[f"{kind}_stopped"] += any(f.action == "fail" for f in told)
    counts[f"{kind}_found"] += bool(told)


def split(frame: pd.DataFrame, places: np.ndarray) -> dict[str, pd.DataFrame]:
    """Returns split -> rows in order, assigned by one number per row, 0 to 1."""
    bounds = np.cumsum([0.0, *SPLITS.values()])
    return {name: frame[(low <= places) & (places < high)] for name, low, high in zip(SPLITS, bounds, bounds[1:], strict=False)}


def statistics(rows: pd.DataFrame) -> Any:
    """Returns the statistics that the statistics stage computes for the rows."""
    return tfdv.generate_statistics_from_dataframe(rows.reset_index(drop=True), stats_options=stats_options())


def findings(found: Mapping[str, Any], trained_on: Any, in_order: Mapping[str, float]) -> list[Finding]:
    """Returns the gate's findings on statistics, one per column."""
    schema = tfdv.infer_schema(found["train"], infer_feature_shape=True)
    widen(schema, found["train"], [s for name, s in found.items() if name != "train"])
    anomalies = {name: tfdv.validate_statistics(s, schema) for name, s in found.items()}
    checks = Checks(found, schema, anomalies, set(), in_order, SETTINGS, champions=trained_on)
    return merged(checks.findings()[0])


Shift = Callable[[pd.DataFrame, np.random.Generator], "pd.DataFrame | None"]


def planted(frame: pd.DataFrame, trials: int) -> dict[str, Any]:
    """Returns, for each shift, the shares of planted columns that a finding names and that stop the run."""
    rng = np.random.default_rng(1)
    counts: dict[str, list[tuple[bool, bool]]] = {name: [] for name in SHIFTS}
    for _ in range(trials):
        rows = rng.permutation(len(frame))
        chosen, others = (
            (rows[:ROWS], rows[ROWS : 2 * ROWS]) if len(frame) >= 2 * ROWS else rng.integers(0, len(frame), (2, ROWS))
        )
        mine, theirs = frame.iloc[np.sort(chosen)], split(frame.iloc[np.sort(others)], rng.random(ROWS))["train"]
        places = rng.random(ROWS)
        now = {name: statistics(part) for name, part in split(mine, places).items()}
        before, in_order = statistics(theirs), ordered(mine)
        for name, shift in SHIFTS.items():
            changed = shift(mine.drop(columns=list(in_order)), rng)
            if changed is None:
                continue
            shifted = {s: _with(now[s], statistics(part)) for s, part in split(changed, places).items()}
            hits = [f for f in findings(shifted, before, in_order) if f.feature in changed.columns]
            counts[name].append((bool(hits), any(f.action == "fail" for f in hits)))
    return {
        name: {"caught": np.mean([c for c, _ in of]), "stopped": np.mean([s for _, s in of])} if of else None
        for name, of in counts.items()
    }


def _with(whole: Any, part: Any) -> Any:
    """Returns statistics with some features replaced by those of the same name."""
    result = type(whole)()
    result.CopyFrom(whole)
    by_name = {f.path.step[0]: f for f in part.datasets[0].features}
    for feature in result.datasets[0].features:
        if feature.path.step[0] in by_name:
            feature.CopyFrom(by_name[feature.path.step[0]])
    return result


def _columns(frame: pd.DataFrame, *, numbers: bool) -> list[str]:
    chosen = frame.select_dtypes("number" if numbers else "object")
    fit = [c for c in chosen if chosen[c].notna().mean() >= 0.5 and chosen[c].value_counts(normalize=True).iloc[0] < 0.9]
    return fit if numbers else [c for c in fit if chosen[c].nunique() < len(frame) / 2]


def _one_number(change: Callable[[pd.Series, np.random.Generator], pd.Series]) -> Shift:
    def shift(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame | None:
        names = _columns(frame, numbers=True)
        if not names:
            return None
        name = rng.choice(names)
        return pd.DataFrame({name: change(frame[name].astype(float), rng)})

    return shift


def _other_units(values: pd.Series, rng: np.random.Generator) -> pd.Series:
    factor, offset = [(1000, 0), (2.54, 0), (0.4536, 0), (1.8, 32)][rng.integers(4)]
    return values * factor + offset


def _new_category(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame | None:
    names = _columns(frame, numbers=False)
    if not names:
        return None
    name = rng.choice(names)
    return pd.DataFrame({name: frame[name].mask(rng.random(len(frame)) < 0.2, "a new one")})


def _missing(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame | None:
    names = _columns(frame, numbers=True) + _columns(frame, numbers=False)
    if not names:
        return None
    name = rng.choice(names)
    gone = rng.random(len(frame)) < 1 / 3
    return pd.DataFrame(
        {name: frame[name].astype(object).mask(gone, None) if frame[name].dtype == object else frame[name].mask(gone)}
    )


def _swapped(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame | None:
    """Returns two columns swapped; pairs with similar distributions are skipped, as single-column checks cannot detect them."""
    names = _columns(frame, numbers=True)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    for i in rng.permutation(len(pairs))[:20]:
        a, b = pairs[i]
        if _largest_gap(frame[a].dropna().to_numpy(float), frame[b].dropna().to_numpy(float)) >= 0.1:
            return pd.DataFrame({a: frame[b], b: frame[a]})
    return None


def _largest_gap(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the Kolmogorov-Smirnov distance."""
    points = np.concatenate([a, b])
    below = (np.searchsorted(np.sort(v), points, side="right") / len(v) for v in (a, b))
    return float(np.abs(np.subtract(*below)).max())


SHIFTS: Mapping[str, Shift] = {
    "mean by 0.5 sd": _one_number(lambda v, _: v + v.std() / 2),
    "scale by 1.5": _one_number(lambda v, _: v.mean() + 1.5 * (v - v.mean())),
    "other units": _one_number(_other_units),
    "20 % a new category": _new_category,
    "a third missing": _missing,
    "two columns swapped": _swapped,
}


if __name__ == "__main__":
    main()
