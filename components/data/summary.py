"""Summary of the data that ingest writes as `dataset.json` beside the splits, for later stages."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Any

from switchyard.components.data.class_order import positive_class
from switchyard.components.tasks import TASKS

FILE = "dataset.json"
TRAIN, EVAL, TEST = "train", "eval", "test"


@dataclass(frozen=True)
class DatasetSummary:
    """Facts about one set of examples.

    Attributes:
        fingerprint: SHA-256 of the input files.
        files: input files, in reading order.
        columns: column -> type ("integer", "float", "string", or "list of ..."); written columns only.
        missing: column -> rows without a value.
        rows: split -> rows.
        bad_rows: number of dropped rows.
        bad_row_samples: a few of them: file, reason, row.
        empty_columns: columns without any value; they are not written.
        label: name of the label column, which may list the targets; of several, their names joined by commas; empty without a
            label.
        task: name of a task.
        classes: label values in the order of their class index (the positive class of a binary task is the last,
            others are sorted), empty for a regression.
        class_counts: class -> rows in the training split.
        targets: names of what a model outputs if it has several outputs that are no classes: the quantiles as texts,
            or the label columns.
        group: of a ranking task, the column whose values are the queries; it is neither label nor feature.
        positive_by: reason for the choice of a binary task's positive class.
        meanings: column -> meaning of its values, see `RawFeature.meaning`.
        spelled: text column -> styles of numbers, booleans and dates in it, see `components.values.spelling.styles`.
        missing_values: `data.missing_values`.
        counts: timestamp column -> smallest and largest count of its unit.
        bytes_columns: text columns with a value that is not UTF-8.
        label_separator: separator of class names in a label column that lists them as text.
        sample_weight: column with the weights of the rows, which is no feature; empty if all weigh the same.
        output_shape: of a custom task the shape of a row's output; empty for the other tasks.
        label_shape: of a custom task the shape in which a row's label is passed on; empty of a number, and for the other tasks.
        images: column of images -> (height, width, channels); these are `bytes_columns`, too.
        sequences: column of lists -> the `length` that they are padded or cut to, which values to `keep`, and any `pool`.
        windows: how windows were made, see `KnownWindows`; None if rows stand for themselves.
        source: patterns that matched the files, as in the config; empty when an older Switchyard wrote the file.
        keys: number of distinct values of `data.split_key` in the training split; None when rows are split individually;
            for windows their number divided by their length, as neighbours share rows.
        split_key: `data.split_key`, except the group of a ranking; empty when rows are split individually.
        broken_lines: text column -> values with a line break; labels and images excepted.
        csv: options of `data.csv` that differ from the defaults; CSVs with raw rows are parsed in the same way.
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
    targets: list[str] = field(default_factory=list)
    group: str | None = None
    sample_weight: str = ""
    images: dict[str, list[int]] = field(default_factory=dict)
    sequences: dict[str, dict[str, Any]] = field(default_factory=dict)
    label_separator: str = ""
    windows: dict[str, Any] | None = None
    output_shape: list[int] = field(default_factory=list)
    label_shape: list[int] = field(default_factory=list)
    split_key: str = ""
    broken_lines: dict[str, int] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The label columns; none of data without a label."""
        return list(self.targets) if TASKS[self.task].has_labels else [self.label] * bool(self.label)

    @property
    def about(self) -> str:
        """What a model of the data is about, for headings: the label, or all columns without one."""
        return self.label or "rows without a label"

    @property
    def outputs(self) -> int:
        """Number of scores of a row."""
        return TASKS[self.task].outputs(self.classes, self.targets, self.output_shape)

    @property
    def no_features(self) -> list[str]:
        """The columns that are no features: the labels, a ranking's group, and the sample weights."""
        return [*self.labels, *(name for name in (self.group, self.sample_weight) if name)]

    @property
    def independent(self) -> float:
        """Number of independent rows per row of the training split, at most 1: rows of one key may all be alike."""
        return 1.0 if self.keys is None else self.keys / max(1, self.rows[TRAIN])

    @property
    def draws_clusters(self) -> bool:
        """Whether the evaluation draws held-out rows together that depend on each other: windows of a period, rows of a key."""
        return self.windows is not None or bool(self.split_key)

    @property
    def positive_class(self) -> Any | None:
        """Positive class of a binary task, else None."""
        return positive_class(self.task, self.classes)

    @property
    def held_out(self) -> str:
        """Split for evaluating models: `test`, which training and tuning do not use, else `eval`."""
        return TEST if self.rows.get(TEST) else EVAL

    def save(self, examples_uri: str) -> None:
        """Writes the summary into the artifact."""
        with _open(os.path.join(examples_uri, FILE), "w") as file:
            file.write(json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, examples_uri: str) -> DatasetSummary:
        """Returns the summary stored in the artifact.

        Raises:
            FileNotFoundError: the examples were not written by this project's ingest.
        """
        with _open(os.path.join(examples_uri, FILE), "r") as file:
            loaded: dict[str, Any] = json.loads(file.read())
        return cls(**loaded)


def split_files(examples_uri: str, split: str) -> list[str]:
    """Returns the TFRecord files of a split, sorted; the artifact may be in an object store."""
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
