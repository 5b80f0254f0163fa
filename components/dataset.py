"""DatasetSummary: what ingest found out about the data. Lies as `dataset.json` beside the splits; later stages read it."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any

FILE = "dataset.json"


@dataclass(frozen=True)
class DatasetSummary:
    """Facts about one set of examples.

    Attributes:
        fingerprint: SHA-256 of the input files.
        files: input files, in reading order.
        columns: column -> type ("integer", "float", "string", or "list of ..."), those written out only.
        missing: column -> rows without a value.
        rows: split -> rows.
        bad_rows: rows left out.
        bad_row_samples: a few of them: file, reason, row.
        empty_columns: columns without any value; they are not written out.
        label: the label's column.
        task: binary, multiclass or regression.
        classes: the label's values in the order of their class index (sorted; the last is the positive one of a binary
            task), empty for a regression.
        class_counts: class -> rows in the training split.
    """

    fingerprint: str
    files: list[str]
    columns: dict[str, str]
    missing: dict[str, int]
    rows: dict[str, int]
    bad_rows: int
    bad_row_samples: list[dict[str, str]]
    empty_columns: list[str]
    label: str
    task: str
    classes: list[int] | list[str]
    class_counts: dict[str, int]

    def save(self, examples_uri: str) -> None:
        """Writes it into the artifact."""
        with open(os.path.join(examples_uri, FILE), "w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file, indent=1)

    @classmethod
    def load(cls, examples_uri: str) -> DatasetSummary:
        """Reads it from the artifact.

        Raises:
            FileNotFoundError: the examples were not written by this project's ingest.
        """
        with open(os.path.join(examples_uri, FILE), encoding="utf-8") as file:
            loaded: dict[str, Any] = json.load(file)
        return cls(**loaded)
