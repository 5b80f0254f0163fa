"""Reads the rows that the evaluation stored: labels, the models' predictions, slices."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data.tfrecords import NUMBER
from switchyard.components.evaluation.bootstrap import Rows
from switchyard.components.evaluation.measuring import PREDICTIONS
from switchyard.components.evaluation.own_metrics import coded_slices
from switchyard.components.evaluation.periods import periods_of_split
from switchyard.components.evaluation.predictions import LAST
from switchyard.components.evaluation.tfma_config import WEIGHT


def read_rows(
    output: str,
    models: Sequence[str],
    summary: DatasetSummary,
    slices: Sequence[Sequence[str]] = (),
    keys: np.ndarray | None = None,
) -> Rows:
    """Returns the labels and predictions of models, and the given slices, as the evaluation stored them.

    `keys` are the hashes of the rows' split keys, if any, see `data.row_keys`.
    """
    files = sorted(glob.glob(os.path.join(glob.escape(output), PREDICTIONS, "*.parquet")))
    table = pa.concat_tables([pa.parquet.read_table(f) for f in files])
    if summary.draws_clusters:
        table = table.sort_by(NUMBER)
    column = table["label"].combine_chunks()
    labels = column.flatten().to_numpy() if pa.types.is_list(column.type) else column.to_numpy()
    if pa.types.is_list(column.type):
        labels = labels.reshape(len(column), len(labels) // max(1, len(column)))
    columns = {m: table[m].combine_chunks() for m in models}
    there = {m: column.is_valid().to_numpy(zero_copy_only=False) for m, column in columns.items()}
    scores = {m: _scores(column, there[m]) for m, column in columns.items()}
    weights = table[WEIGHT].to_numpy() if summary.sample_weight else None
    last = table[LAST].to_numpy() if summary.windows is not None else None
    clusters = periods_of_split(summary.windows, summary.held_out) if summary.windows is not None else keys
    shapes = summary.output_shape, summary.label_shape
    return Rows(
        summary.task, labels, scores, there, summary.targets, weights, last, *shapes, clusters, list(coded_slices(table, slices))
    )


def _scores(column: pa.ListArray, there: np.ndarray) -> np.ndarray:
    """Returns lists of equal length as float32 (n, outputs); null lists become NaN."""
    values = column.flatten().to_numpy()
    scores = np.full((len(there), len(values) // max(1, there.sum())), np.nan, dtype=np.float32)
    scores[there] = values.reshape(-1, scores.shape[1])
    return scores
