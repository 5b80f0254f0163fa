"""DatasetSummary: what ingest found out about the data. Lies as `dataset.json` beside the splits; later stages read it."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Any

from switchyard.components.data.class_order import positive_class

FILE = "dataset.json"
TRAIN, EVAL, TEST = "train", "eval", "test"


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
        classes: the label's values in the order of their class index (the positive one of a binary task is the last,
            others are sorted), empty for a regression.
        class_counts: class -> rows in the training split.
        positive_by: why a binary task's positive class is that one.
        meanings: column -> what its values are, see `RawFeature.meaning`.
        spelled: text column -> how numbers, booleans and dates are spelled in it, see `components.values.spelling.styles`.
        missing_values: `data.missing_values`.
        counts: column of timestamps -> the smallest and the largest count of its unit.
        bytes_columns: text columns with a value that is no UTF-8.
        source: the patterns that the files were found by, as the config names them; empty: an older Switchyard wrote this.
        keys: different values of `data.split_key` in the training split; None: rows are split by themselves.
        csv: `data.csv`, what differs from its defaults: a CSV with raw rows is read in the same way.
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
    positive_by: str = ""
    meanings: dict[str, str] = field(default_factory=dict)
    spelled: dict[str, list[str]] = field(default_factory=dict)
    missing_values: list[str] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)
    csv: dict[str, Any] = field(default_factory=dict)
    keys: int | None = None
    bytes_columns: list[str] = field(default_factory=list)
    source: list[str] = field(default_factory=list)

    @property
    def independent(self) -> float:
        """How many independent rows one row of the training split counts as: those of one key may all be alike."""
        return 1.0 if self.keys is None else self.keys / max(1, self.rows[TRAIN])

    @property
    def positive_class(self) -> Any | None:
        """The positive class of a binary task, else None."""
        return positive_class(self.task, self.classes)

    @property
    def held_out(self) -> str:
        """The split that models are judged by: `test`, which training and tuning never see, else `eval`."""
        return TEST if self.rows.get(TEST) else EVAL

    def save(self, examples_uri: str) -> None:
        """Writes it into the artifact."""
        with _open(os.path.join(examples_uri, FILE), "w") as file:
            file.write(json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, examples_uri: str) -> DatasetSummary:
        """Reads it from the artifact.

        Raises:
            FileNotFoundError: the examples were not written by this project's ingest.
        """
        with _open(os.path.join(examples_uri, FILE), "r") as file:
            loaded: dict[str, Any] = json.loads(file.read())
        return cls(**loaded)


def split_files(examples_uri: str, split: str) -> list[str]:
    """Returns the TFRecord files of a split, in their order; the artifact may lie in an object store."""
    import tensorflow as tf

    folder = os.path.join(examples_uri, f"Split-{split}")
    return [os.path.join(folder, name) for name in sorted(tf.io.gfile.listdir(folder))]


def _open(path: str, mode: str) -> Any:
    if "://" not in path:
        return open(path, mode, encoding="utf-8")
    import tensorflow as tf

    if mode == "r" and not tf.io.gfile.exists(path):
        raise FileNotFoundError(path)
    return tf.io.gfile.GFile(path, mode)
