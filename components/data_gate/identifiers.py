"""Detects columns that identify or count rows (an id, index or order), and measures how much of the label they reveal."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.config import DataGateSettings
from switchyard.components.data_gate.findings import ERROR, LEAKAGE, WARNING, Finding, exclude_option, option_for, percent

_UNIQUE_SHARE = 0.95
_FEWEST_ROWS = 50
# Chance alone gives about this many pairs of equal values; a column with none was counted, not measured.
_EXPECTED_PAIRS = 12
# Standard deviation of the gaps between sorted values over their mean: 1 for random values, 0 for a count.
_EVEN_GAPS = 0.75
_MONOTONE = 0.99
_LONGEST_TEXT, _MOST_WORDS = 64, 4
_STORED_NAMES = re.compile(r"level_[0-9]+|Unnamed: [0-9.]+")  # names that pandas generates
_MOST_TABLES, _WIDEST, _SURELY = 5, 20, 4
_ID_NAMES = re.compile("ids?|idx|index|key|uuid|guid|rows?|rownum(ber)?|rowname|nr|no|number|seq(uence)?|serial|order")


def identifier_findings(sample: pd.DataFrame, summary: DatasetSummary, settings: DataGateSettings) -> list[Finding]:
    """Returns a finding for each id, index or order among the features; those that predict the label stop the run.

    Args:
        sample: rows of the training split, in file order.
        summary: summary of the examples.
        settings: `leakage` (`max_id_information`; `max_information` for an order with repeated values, such as days) and
            `on_anomaly` (`features` lets a column pass).
    """
    found = []
    for name, kind in summary.columns.items():
        if name in summary.no_features or name not in sample:
            continue
        present = sample[name].dropna()
        if kind == "float" and _has_fractions(present.iloc[:_FEWEST_ROWS]):
            continue  # skips most columns without reading all of their values
        meaning = summary.meanings.get(name, "")
        what = identifier(name, present, kind)
        if meaning.startswith("time") and not summary.classes:
            what = None  # a time may legitimately explain a quantity to forecast
        order = "" if what else _order(present, kind, meaning, has_classes=bool(summary.classes))
        if not what and not order:
            continue
        labels = (sample[label].loc[present.index] for label in summary.labels if label in sample)
        share = max((explained(present, label, has_classes=bool(summary.classes)) for label in labels), default=0.0)
        counted = f"{present.nunique():,} different values in {len(present):,} rows"
        limit = settings.leakage.max_id_information if what else settings.leakage.max_information
        if share > limit:
            what = what or order
            action = settings.on_anomaly.features.get(name, "fail")
            found.append(_predicts_the_label(name, what, f"{counted}; neighbours by it explain {percent(share)}", limit, action))
        elif what:
            found.append(_used_as_a_feature(name, counted, present.nunique() / len(present)))
    return found


def _predicts_the_label(name: str, what: str, seen: str, limit: float, action: str) -> Finding:
    return Finding(
        check=LEAKAGE,
        where="train",
        feature=name,
        anomaly=f"{what} that predicts the label by itself, as in files sorted or collected by label",
        expected=f"{what} explains at most {percent(limit)} of the label",
        seen=seen,
        severity=ERROR,
        action=action,
        remedy=f"{exclude_option(name)} (to use it anyway: {option_for('validation.on_anomaly.features', name, 'warn')})",
    )


def _used_as_a_feature(name: str, seen: str, share: float) -> Finding:
    return Finding(
        check=LEAKAGE,
        where="train",
        feature=name,
        anomaly="looks like an id but is used as a feature",
        expected="values that repeat",
        seen=seen,
        share=share,
        severity=WARNING,
        action="warn",
        remedy=exclude_option(name),
    )


def identifier(name: str, values: pd.Series, kind: str) -> str | None:
    """Returns the kind of a column whose values identify or count the rows (an id, an index, an order), else None.

    A whole-number quantity such as income or price has many distinct values too. Chance distinguishes it from a count:
    some measured values are equal, and the gaps between them are uneven.

    Args:
        name: name of the column.
        values: the values present, in row order.
        kind: integer, float or string.
    """
    if len(values) < _FEWEST_ROWS:
        return None
    if values.nunique() < _UNIQUE_SHARE * len(values):
        is_named = _ID_NAMES.fullmatch(_last_word(name)) or _STORED_NAMES.fullmatch(name)
        return "an index" if is_named and counts_rows_of_tables(values, kind) else None
    if kind == "string":
        return None if _is_prose(values) else "an id"
    return _numbered(name, values, kind)


def _numbered(name: str, values: pd.Series, kind: str) -> str | None:
    numbers = pd.to_numeric(values).to_numpy(dtype=np.float64)
    if kind not in ("integer", "float") or not np.isfinite(numbers).all() or _has_fractions(values):
        return None
    if orders_rows(values, kind):
        return "an order of the rows"
    ordered = np.unique(numbers)
    gaps = np.diff(ordered)
    if gaps.std() < _EVEN_GAPS * gaps.mean() or _repeats_less_than_chance(numbers, ordered):
        return "an index"
    return "an id" if _ID_NAMES.fullmatch(_last_word(name)) else None


def orders_rows(values: pd.Series, kind: str) -> bool:
    """Whether whole numbers or texts with many values only increase, or only decrease, from row to row, like a log's times."""
    if values.nunique() < _FEWEST_ROWS or kind not in ("integer", "float", "string"):
        return False
    if kind == "string":
        ranks = pd.Series([_natural(v) for v in values]).rank(method="dense").to_numpy()
    else:
        ranks = pd.to_numeric(values).to_numpy(dtype=np.float64)
        if not np.isfinite(ranks).all() or _has_fractions(values):
            return False
    steps = np.sign(np.diff(ranks))
    moved = steps[steps != 0]
    return bool(abs(moved.sum()) >= _MONOTONE * len(moved))


def _order(values: pd.Series, kind: str, meaning: str, *, has_classes: bool) -> str:
    """Returns the kind of a column with repeated values that orders the rows, else ""; a time needs no order in the file."""
    if orders_rows(values, kind):
        return "an order of the rows"
    return "a time" if has_classes and meaning.startswith("time") and values.nunique() >= _FEWEST_ROWS else ""


def explained(values: pd.Series, label: pd.Series, *, has_classes: bool) -> float:
    """Returns the share of the label's variance explained by a row's neighbours by `values`, 0 to 1.

    Texts are sorted from the front and from the back, for ids with an informative suffix.
    """
    # Shuffles first: among equal values the file's order would reveal what the column does not.
    mixed = np.random.default_rng(0).permutation(len(values))
    values, label = values.iloc[mixed], label.iloc[mixed]
    targets = _targets(label, has_classes=has_classes)
    if isinstance(values.iloc[0], str | bytes):
        texts = [_natural(v) for v in values]
        orders = [np.argsort(np.asarray(t, dtype=object), kind="stable") for t in (texts, [t[::-1] for t in texts])]
    else:
        orders = [np.argsort(values.to_numpy(), kind="stable")]
    return max(_explained_by_neighbours(targets, order) for order in orders)


def _targets(label: pd.Series, *, has_classes: bool) -> list[np.ndarray]:
    """Returns one 0/1 array per class, or for regression the ranks of the values, which limit the effect of outliers."""
    if not has_classes:
        return [label.rank().to_numpy()]
    codes = pd.factorize(label)[0]
    return [(codes == code).astype(np.float64) for code in range(codes.max() + 1)]


def _explained_by_neighbours(targets: list[np.ndarray], order: np.ndarray) -> float:
    rows = len(order)
    half = max(5, int(np.sqrt(rows) / 2))
    first = np.maximum(np.arange(rows) - half, 0)
    behind = np.minimum(np.arange(rows) + half + 1, rows)
    wrong = total = 0.0
    for target in targets:
        ordered = target[order]
        sums = np.concatenate([[0.0], np.cumsum(ordered)])
        others = (sums[behind] - sums[first] - ordered) / (behind - first - 1)
        wrong += float(((ordered - others) ** 2).sum())
        total += float(((ordered - ordered.mean()) ** 2).sum())
    return float(np.clip(1 - wrong / total, 0, 1)) if total > 0 else 0.0


def counts_rows_of_tables(values: pd.Series, kind: str) -> bool:
    """Whether whole numbers count the rows of several concatenated tables: each value is about equally frequent.

    The frequency of measured values has a variance of at least its mean (Poisson).
    """
    if kind not in ("integer", "float"):
        return False
    numbers = pd.to_numeric(values).to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all() or _has_fractions(values):
        return False
    span = int(numbers.max() - numbers.min()) + 1
    if not _FEWEST_ROWS <= span <= _WIDEST * len(numbers):
        return False
    often = np.bincount((numbers - numbers.min()).astype(np.int64), minlength=span)
    return bool(often.mean() <= _MOST_TABLES and often.var() < (1 - _SURELY * np.sqrt(2 / span)) * often.mean())


def _repeats_less_than_chance(numbers: np.ndarray, ordered: np.ndarray) -> bool:
    expected = len(numbers) ** 2 / (2 * (ordered[-1] - ordered[0] + 1))
    return len(numbers) == len(ordered) and bool(expected >= _EXPECTED_PAIRS)


def _has_fractions(values: pd.Series) -> bool:
    numbers = pd.to_numeric(values).to_numpy(dtype=np.float64)
    return bool((numbers != np.trunc(numbers)).any())


def _natural(text: str | bytes) -> str:
    """Returns a text with its numbers padded to one length, so that user_9 sorts before user_10."""
    plain = text.decode(errors="replace") if isinstance(text, bytes) else text
    return re.sub(r"\d+", lambda m: m[0].zfill(20), plain)


def _is_prose(values: pd.Series) -> bool:
    texts = [v.decode(errors="replace") if isinstance(v, bytes) else v for v in values.iloc[:1000]]
    return bool(np.median([len(t) for t in texts]) > _LONGEST_TEXT or np.median([len(t.split()) for t in texts]) > _MOST_WORDS)


def _last_word(name: str) -> str:
    words: list[str] = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return words[-1].lower() if words else ""
