"""Statistics of a sample of serving requests: a file of raw rows without the label, in any format that ingest reads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import closing

import pandas as pd
import tensorflow_data_validation as tfdv

from components.compat.tfdv_quantiles import stats_options
from components.dataset import DatasetSummary
from components.errors import UserError
from components.ingest.bad_rows import BadRows
from components.ingest.readers import READERS
from components.ingest.sources import find_files, format_of
from components.validation.statistics import Statistics

_BATCHES = 10


def sample_statistics(
    paths: Sequence[str], summary: DatasetSummary, missing_values: Sequence[str] | None, key: str = "validation.serving_sample"
) -> Statistics:
    """Returns the statistics of each file's first rows (some 300,000), columns typed as the examples' are; `key` is for errors.

    Raises:
        UserError: it cannot be read, or has no rows.
    """
    frames = []
    for file in find_files(paths, key):
        # A request that cannot be read is left out: what is served is not the user's to mend.
        with closing(READERS[format_of(file, "auto")](file, BadRows(limit=2**31), missing_values)) as batches:
            frames += [b.to_pandas() for b in itertools.islice(batches, _BATCHES)]
    if not frames or not sum(map(len, frames)):
        raise UserError(f"{key}: no rows in {', '.join(paths)}. Check the file.")
    sample = pd.concat(frames, ignore_index=True)
    typed = {}
    for name in sample.columns:
        kind = summary.columns.get(name, "string")
        if kind.startswith("list"):
            continue
        if kind == "string":
            typed[name] = sample[name].map(lambda v: v if v is None or isinstance(v, str) else str(v))
        else:
            numbers = pd.to_numeric(sample[name], errors="coerce")
            # Text where numbers were trained on: kept as text, so that the types are seen to differ.
            readable = numbers.notna().sum() >= 0.5 * sample[name].notna().sum()
            typed[name] = numbers.astype("float64") if readable else sample[name].astype(str)
    return tfdv.generate_statistics_from_dataframe(pd.DataFrame(typed), stats_options=stats_options())
