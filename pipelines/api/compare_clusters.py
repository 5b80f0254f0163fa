"""What the rows of a file are drawn with when two versions are compared on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from switchyard.components.data.summary import DatasetSummary


def clusters_of(rows: pd.DataFrame, summary: DatasetSummary, data: Path) -> tuple[np.ndarray | None, str]:
    """Returns the cluster of each row, (n,), see `bootstrap.Rows`, and a note on too few; None if rows stand for themselves.

    Args:
        rows: the rows; windows are indexed by their order.
        summary: summary of the training data.
        data: the file, for the note.
    """
    from switchyard.components.data.windows import KnownWindows
    from switchyard.components.evaluation.periods import note_on_keys, note_on_steps, periods

    if summary.windows:
        settings = KnownWindows.of(summary.windows).settings
        found = periods(rows.index.to_numpy(), settings.length)
        return found, note_on_steps(rows.index.nunique(), settings.future, str(data))
    if not summary.split_key:
        return None, ""
    if summary.split_key not in rows:
        return None, (
            f"{data} has no column {summary.split_key!r}, the split key: the intervals take its rows as independent and may be "
            "too narrow"
        )
    keys = _keys(rows[summary.split_key], summary)
    return keys, note_on_keys(len(set(keys.tolist())), summary.split_key, str(data))


def _keys(column: pd.Series, summary: DatasetSummary) -> np.ndarray:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from switchyard.components.ingest.keys import key_hashes

    def text(value: Any) -> str | None:
        if pd.api.types.is_scalar(value) and pd.isna(value):
            return None
        return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)

    # Files of several formats give several types. A row without a key is drawn by itself.
    keys = pa.array([text(value) for value in column.tolist()], pa.string())
    return key_hashes(keys, np.arange(len(column), dtype=np.uint64), summary.missing_values)
