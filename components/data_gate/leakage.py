"""Detects leaks: rows in two splits, a feature that is the label in disguise, an id used as a feature."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from switchyard.components.bundle.rows import column_values
from switchyard.components.data.summary import DatasetSummary, split_files
from switchyard.components.data_gate.config import DataGateSettings
from switchyard.components.data_gate.findings import ERROR, LEAKAGE, WARNING, Finding, percent
from switchyard.components.data_gate.identifiers import identifier_findings
from switchyard.components.ingest.keys import key_hashes
from switchyard.components.ingest.writer import row_hashes

SAMPLE_ROWS = 20_000
_BATCH = 8192
_BINS = 20


def leakage_findings(
    examples_uri: str, summary: DatasetSummary, settings: DataGateSettings, sample: pd.DataFrame
) -> list[Finding]:
    """Returns the findings on leakage.

    Args:
        examples_uri: URI of ingest's examples.
        summary: summary of the examples.
        settings: `leakage` (`max_duplicates`, `max_information`, `max_id_information`), `on_anomaly` and `split_paths`
            (whether splits are separate inputs).
        sample: rows of the training split, see `sample_rows`.
    """
    limits = settings.leakage
    found = []
    if settings.split_paths:
        # Ingest assigns rows to splits by their hash, so equal rows share a split.
        found += _duplicates(examples_uri, summary, limits.max_duplicates)
        found += _shared_queries(examples_uri, summary, limits.max_duplicates)
    ids = identifier_findings(sample, summary, settings)
    stopping = {f.feature for f in ids if f.severity == ERROR}
    found += ids
    # Reports an id that predicts the label once.
    found += [f for f in _label_in_disguise(sample, summary, limits.max_information) if f.feature not in stopping]
    return found


def _batches(examples_uri: str, split: str, every: int = 1) -> Iterator[pa.RecordBatch]:
    """Yields every n-th record of a split, in the order of its files."""
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    decoder = ExamplesToRecordBatchDecoder()
    records_of = tf.data.TFRecordDataset(split_files(examples_uri, split)).shard(every, 0)
    for records in records_of.batch(_BATCH).as_numpy_iterator():
        yield decoder.DecodeBatch(list(records))


def _duplicates(examples_uri: str, summary: DatasetSummary, limit: float) -> list[Finding]:
    train = np.concatenate([_hashes(b, summary) for b in _batches(examples_uri, "train")])
    unique, counts = np.unique(train, return_counts=True)
    # Data with few columns has natural duplicates, which are no leak.
    natural = counts[counts > 1].sum() / len(train)
    found = []
    for split in summary.rows:
        if split == "train" or not summary.rows[split]:
            continue
        hashes = np.concatenate([_hashes(b, summary) for b in _batches(examples_uri, split)])
        doubled = int(np.isin(hashes, unique).sum())
        share = doubled / len(hashes)
        if share - natural > limit:
            severity, action = ERROR, "fail"
        elif doubled and share > natural:
            severity, action = WARNING, "warn"
        else:
            continue
        found.append(
            Finding(
                LEAKAGE,
                split,
                "",
                "rows are duplicated across splits",
                f"at most {percent(limit)} of rows that are in train too (train repeats {percent(natural)} of its own)",
                f"{doubled:,} of {len(hashes):,} rows are in train",
                share,
                severity,
                action,
                "--set validation.leakage.max_duplicates=1",
            )
        )
    return found


def _shared_queries(examples_uri: str, summary: DatasetSummary, limit: float) -> list[Finding]:
    if not summary.group:
        return []
    queries = {s: _queries(examples_uri, s, summary.group, summary.missing_values) for s, rows in summary.rows.items() if rows}
    found = []
    for split, here in queries.items():
        shared = np.isin(here, queries["train"])
        if split == "train" or not shared.any():
            continue
        severe = shared.mean() > limit
        found.append(
            Finding(
                LEAKAGE,
                split,
                "",
                "queries are in two splits",
                f"at most {percent(limit)} of queries that are in train too",
                f"{int(shared.sum()):,} of {len(here):,} queries are in train",
                float(shared.mean()),
                ERROR if severe else WARNING,
                "fail" if severe else "warn",
                "--set validation.leakage.max_duplicates=1",
            )
        )
    return found


def _queries(examples_uri: str, split: str, group: str, missing: list[str]) -> np.ndarray:
    """Returns the hashes of a split's queries, uint64 (queries,), sorted."""
    found = [key_hashes(b.column(group), np.zeros(b.num_rows, "uint64"), missing) for b in _batches(examples_uri, split)]
    hashes: np.ndarray = np.unique(np.concatenate(found))
    return hashes


def _hashes(batch: pa.RecordBatch, summary: DatasetSummary) -> np.ndarray:
    # The decoder returns the columns of a batch in any order and omits those without a value. A row with another weight is known.
    names = [n for n in summary.columns if n != summary.sample_weight]
    columns = [batch.column(n) if n in batch.schema.names else pa.nulls(batch.num_rows, pa.list_(pa.int64())) for n in names]
    columns = [pa.nulls(batch.num_rows, pa.list_(pa.int64())) if pa.types.is_null(c.type) else c for c in columns]
    return row_hashes(pa.RecordBatch.from_arrays(columns, names=names))


def sample_rows(examples_uri: str, summary: DatasetSummary) -> pd.DataFrame:
    """Returns a sample of the training split's rows in order, with the single-valued columns except images only.

    Takes rows from the whole split: the first rows of a file sorted by its label have one label only.
    """
    batches = _batches(examples_uri, "train", every=max(1, -(-summary.rows["train"] // SAMPLE_ROWS)))
    scalar = [n for n, kind in summary.columns.items() if not kind.startswith("list") and n not in summary.images]
    frames = [pd.DataFrame({n: column_values(b, n, wide=False) for n in scalar}) for b in batches]
    return pd.concat(frames, ignore_index=True)


def _label_in_disguise(sample: pd.DataFrame, summary: DatasetSummary, limit: float) -> list[Finding]:
    # Labels that are lists are not in the sample.
    every = [_codes(sample[n], numeric=not summary.classes) for n in summary.labels if n in sample]
    labels = [codes for codes in every if _entropy(np.bincount(codes)) > 0]
    if not labels:
        return []
    found = []
    for name in sample.columns:
        if name in summary.no_features:
            continue
        kind = summary.columns[name]
        values = sample[name]
        if kind == "string" and values.nunique() > len(values) / 5:
            continue  # an id determines the rows it names and says nothing about others
        codes = _codes(values, numeric=kind != "string")
        share = max(normalized_information(codes, label) for label in labels)
        if share > limit:
            found.append(
                Finding(
                    LEAKAGE,
                    "train",
                    name,
                    "predicts the label by itself",
                    f"at most {percent(limit)} of the label's information in one feature",
                    f"normalized mutual information {share:.2f}; check that it is known before the label",
                    None,
                    WARNING,
                    "warn",
                    f"--set 'data.exclude=[{name}]'",
                )
            )
    return found


def normalized_information(feature: np.ndarray, label: np.ndarray) -> float:
    """Returns the mutual information of two arrays of codes, int (n,), as a share of the label's entropy, 0 to 1.

    Uses the bias correction of Miller and Madow (1955): by chance, a feature with many values is informative in a small sample.
    """
    table = np.zeros((int(feature.max()) + 1, int(label.max()) + 1))
    np.add.at(table, (feature, label), 1)
    n = table.sum()
    joint = _entropy(table.ravel()) + (np.count_nonzero(table) - 1) / (2 * n)
    mine = _entropy(table.sum(axis=1)) + (np.count_nonzero(table.sum(axis=1)) - 1) / (2 * n)
    theirs = _entropy(table.sum(axis=0)) + (np.count_nonzero(table.sum(axis=0)) - 1) / (2 * n)
    return float(np.clip((mine + theirs - joint) / theirs, 0, 1)) if theirs > 0 else 0.0


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _codes(values: pd.Series, *, numeric: bool) -> np.ndarray:
    """Returns values as codes from 0: numbers with many distinct values by quantile, missing values as a value of their own."""
    if numeric:
        numbers = pd.to_numeric(values)
        if numbers.nunique() > _BINS:
            values = pd.qcut(numbers, _BINS, labels=False, duplicates="drop")
    return np.asarray(pd.factorize(values, use_na_sentinel=False)[0])
