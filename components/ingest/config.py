"""Config section `data`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, field_validator, model_validator

from switchyard.components.config import LARGEST, Names, Number, Section
from switchyard.components.tasks import MULTIOUTPUT

# Height or width of an image in pixels.
ImageSide = Annotated[StrictInt, Field(ge=1, le=4096)]


class AugmentConfig(Section):
    """Random changes of images in training, new ones in each epoch; never in evaluation, predictions or serving.

    The same changes in every framework, drawn by `hyperparameters.seed`, epoch and row. Pixels that come from outside of an image
    are its nearest ones.

    Attributes:
        flip: half of the images are mirrored `horizontal` (left and right), `vertical`, or by `both`, each by chance of its own.
        shift: images are moved down and to the right by up to this share of their height and width, or as far back.
        rotate: images are turned by up to this many degrees, to the left or to the right.
    """

    flip: Literal["horizontal", "vertical", "both"] | None = None
    shift: Annotated[Number, Field(ge=0, le=0.5)] = 0.0
    rotate: Annotated[Number, Field(ge=0, le=180)] = 0.0

    @model_validator(mode="after")
    def _check(self) -> AugmentConfig:
        if not (self.flip or self.shift or self.rotate):
            raise ValueError("nothing is changed; set flip, shift or rotate, or remove augment")
        return self


class ColumnConfig(Section):
    """The declared type of a column, in every data format.

    Attributes:
        type: `number`, `text`, `image` or `sequence`. A value that is no number makes its row a bad row
            (`data.max_bad_rows`); in a text column every value is kept as text, including the words that mean "missing"
            elsewhere. A column of images holds JPEG or PNG images (bytes, or base64) or paths of such files, relative to the
            folder of the file that names them and inside of it; a row whose image is missing or cannot be decoded is a bad row.
        size: height and width in pixels that images are resized to; required for images.
        length: number of values that a sequence is padded or cut to; required for sequences, which are lists of numbers, or of
            texts, of any length. Models read the padded values (of texts: vocabulary indices) and `<column>_mask`, 1 where a
            value is.
        keep: which values of a longer sequence remain, its `first` or its `last` ones.
        pool: for a sequence whose order does not matter (a bag): the default models read the `mean` or the `sum` of its values,
            of texts that of their embeddings. Default: each position has weights of its own.
        channels: channels of an image's pixels: 3 (red, green, blue) or 1 (grey).
        augment: random changes of images in training.
    """

    type: Literal["number", "text", "image", "sequence"]
    size: tuple[ImageSide, ImageSide] | None = None
    channels: Literal[1, 3] = 3
    augment: AugmentConfig | None = None
    length: Annotated[StrictInt, Field(ge=1, le=65_536)] | None = None
    keep: Literal["first", "last"] = "first"
    pool: Literal["mean", "sum"] | None = None

    @model_validator(mode="after")
    def _check(self) -> ColumnConfig:
        if self.type == "image" and self.size is None:
            raise ValueError("an image needs a size: [height, width] in pixels, for example {type: image, size: [64, 64]}")
        if self.type == "sequence" and self.length is None:
            raise ValueError("a sequence needs a length, for example {type: sequence, length: 32}")
        for kind, keys in {"image": {"size", "channels", "augment"}, "sequence": {"length", "keep", "pool"}}.items():
            if self.type != kind and (given := sorted(self.model_fields_set & keys)):
                raise ValueError(f"{given[0]}: describes the type {kind}, and the type is {self.type}; remove it")
        return self

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels of an image; None for another type."""
        return (*self.size, self.channels) if self.size else None

    @property
    def sequence(self) -> dict[str, Any]:
        """How a sequence is padded, cut and read: `length`, `keep` and, if it is pooled, `pool`."""
        return self.model_dump(include={"length", "keep", "pool"}, exclude_none=True)


class CsvConfig(Section):
    """How CSV files are written.

    Stored with the model: `predict`, `drift` and `models compare` read CSVs in the same way. Refused when no file is a CSV.

    Attributes:
        separator: character between two fields. Default: a tab in files that end in `.tsv`, in others a comma.
        decimal: decimal point of numbers.
        thousands: separator between groups of three digits.
        encoding: Python's name of the text encoding, for example `latin-1`, `cp1252` or `utf-16`.
    """

    separator: str | None = None
    decimal: Literal[".", ","] = "."
    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    encoding: str = "utf-8"

    @field_validator("separator")
    @classmethod
    def _one_character(cls, separator: str | None) -> str | None:
        if separator is None:
            return None
        if len(separator) != 1 or not separator.isascii() or separator in '"\r\n' or separator.isalnum():
            raise ValueError(f"{separator!r} is not a separator; give one character, for example ';', '|' or \"\\t\"")
        return separator

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
            return codecs.lookup(encoding).name
        except (LookupError, ValueError):
            raise ValueError(
                f"{encoding!r} is not a text encoding; allowed, for example, utf-8, latin-1, cp1252 or utf-16"
            ) from None

    @model_validator(mode="after")
    def _check(self) -> CsvConfig:
        if self.decimal == self.thousands:
            raise ValueError(
                f"decimal and thousands are both {self.decimal!r}, which makes numbers ambiguous; give two different characters"
            )
        return self


class WindowsConfig(Section):
    """Windows over time series: each row of a forecast is made of consecutive rows of one series of a long table.

    With these windows the weights of `data.splits` are shares of time, in the order in which they are written.

    Attributes:
        order: column that orders the rows of a series: dates, timestamps or whole numbers; no feature.
        group: column that names the series of a row, and a feature unless `data.exclude` lists it. Default: one series.
        past: number of rows whose values are known.
        future: number of rows after them whose label is predicted, at least 2: the labels are `<label>_1`, `<label>_2`, ….
        known: columns of numbers whose future values are known ahead, such as holidays: their next values become the list
            `<column>_ahead`, and `predict` needs rows with them.
        static: columns of numbers of which the last past row's value is a feature in place of the list of past values. Texts,
            dates and times always are.
        gaps: what to do where a row does not follow the one before by the usual step, or a number is missing: `refuse` ends the
            run, `drop` leaves out the windows there, and `ignore` takes rows as consecutive (months, working days), though
            windows with a missing number are left out and bad rows end the run.
    """

    order: str
    past: Annotated[StrictInt, Field(ge=1, le=65_536)]
    future: Annotated[StrictInt, Field(ge=2, le=1000)]
    group: str | None = None
    known: Names = ()
    static: Names = ()
    gaps: Literal["refuse", "drop", "ignore"] = "refuse"

    @model_validator(mode="after")
    def _check(self) -> WindowsConfig:
        roles = {"group": [self.group] if self.group else [], "known": self.known, "static": self.static}
        for role, names in roles.items():
            if self.order in names:
                raise ValueError(f"{role}: {self.order!r} is the order of the rows; name another column")
            if role != "group" and self.group in names:
                raise ValueError(f"{role}: {self.group!r} is the group, which is a feature anyway; remove it")
        if both := sorted(set(self.known) & set(self.static)):
            raise ValueError(f"known and static both list {both[0]!r}; remove it from one of the two")
        return self

    def check(self, label: str | tuple[str, ...], task: str, exclude: tuple[str, ...]) -> None:
        """Checks other keys of the config against the windows.

        Raises:
            ValueError: one of them does not fit.
        """
        if not isinstance(label, str):
            raise ValueError(f"label: windows forecast one column, received {list(label)}; name one")
        if task != MULTIOUTPUT:
            raise ValueError(f"task: data.windows makes the labels of a multioutput task, received {task}; set multioutput")
        taken: dict[str, Collection[str | None]] = {"order": [self.order], "group": [self.group]}
        taken |= {"known": self.known, "static": self.static}
        if wrong := [key for key, names in taken.items() if label in names]:
            raise ValueError(f"data.windows.{wrong[0]}: {label!r} is the label; name another column")
        if label in exclude:
            raise ValueError(f"data.exclude: lists the label {label!r}; a label cannot be excluded")
        if unread := sorted({*self.known, *self.static} & set(exclude)):
            raise ValueError(f"data.exclude: lists {unread[0]!r}, which data.windows reads; remove it from one of the two")


class DataConfig(Section):
    """Where the examples come from and how they are split.

    Attributes:
        path: a file, a folder (searched recursively), a glob or a list of these, local or a URI of a Beam filesystem. Existing
            files and folders are taken literally, even with `[`, `*` or `?` in their names. Required unless `splits` holds
            paths.
        format: file format; `auto` infers it from the file name's ending.
        exclude: columns that the pipeline never reads.
        splits: split to weight (rows are assigned by hash), or split to path. `train` and `eval` are required; other names are
            free. Early stopping, the best epoch and tuning use `eval`; the model gate, the report, infra validation and the
            comparison with the champion use `test` only. Without `test` they use `eval`, and the report warns that the metrics
            are optimistic.
        split_key: column whose value's hash decides the split, so that all rows of one key share a split; `5`, `5.0`, `"5"` and
            `" 5"` are one key in every format. A row without a key forms a group of its own and is counted. A key listed in
            `data.exclude` still splits but is no feature. The intervals of the evaluation draw all rows of one key together.
            Default: the hash of all features.
        max_bad_rows: ragged, undecodable or unlabelled rows to drop before the run fails.
        missing_values: texts that mean "missing" in every column, format and request, in addition to the empty text and, in
            columns that are not text, the usual words (`NA`, `NaN`, `null`, ...).
        label_separator: of a `multilabel` column that lists the classes of each row as text, the characters between two, for
            example `|`. Without it such texts are JSON lists.
        max_float32_loss: largest share of distinct values in a column of fractions that may collapse when stored as float32;
            above it the run fails. Whole numbers are kept as integers instead.
        windows: windows over time series, the rows of a forecast (`task: multioutput`); `null`: each row stands for itself.
        csv: CSV dialect.
        columns: column to declared type. The type of other columns is inferred from all their values.
    """

    path: Names = ()
    format: Literal["auto", "csv", "parquet", "jsonl", "tfrecord"] = "auto"
    exclude: Names = ()
    splits: dict[str, Number | Names] = Field(default={"train": 0.7, "eval": 0.1, "test": 0.2})
    split_key: str | None = None
    max_bad_rows: Annotated[StrictInt, Field(ge=0, le=LARGEST)] = 0
    missing_values: Names | None = None
    label_separator: str | None = None
    max_float32_loss: Annotated[Number, Field(ge=0, le=1)] = 0.5
    windows: WindowsConfig | None = None
    csv: CsvConfig = CsvConfig()
    columns: dict[str, ColumnConfig] = Field(default_factory=dict)

    @field_validator("label_separator")
    @classmethod
    def _not_empty(cls, separator: str | None) -> str | None:
        if separator == "":
            raise ValueError('is empty; quote it in YAML: "|"')
        return separator

    @property
    def split_paths(self) -> dict[str, tuple[str, ...]] | None:
        """Split -> paths when splits are separate inputs, else None."""
        paths = {k: v for k, v in self.splits.items() if isinstance(v, tuple)}
        return paths or None

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        for needed in ("train", "eval"):
            if needed not in self.splits:
                raise ValueError(f"splits must name 'train' and 'eval' (others are free), received {sorted(self.splits)}")
        for name, value in self.splits.items():
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                raise ValueError(f"splits: {name!r} is not a name (letters, digits and '_' only)")
            if isinstance(value, float) and value <= 0:
                raise ValueError(f"splits.{name} must be a weight above 0, received {value}")
        paths = self.split_paths
        if paths and len(paths) != len(self.splits):
            raise ValueError("splits must be all weights or all paths, received both")
        if paths and self.path:
            raise ValueError("path and splits by path exclude each other: give one")
        if paths and self.split_key:
            raise ValueError("split_key has no effect when splits are separate inputs; remove it")
        if not paths and not self.path:
            raise ValueError("path is missing: a file, a glob or a list of them")
        if self.windows:
            self._check_windows()
        return self

    def _check_windows(self) -> None:
        if self.split_paths:
            raise ValueError("windows: are split by time, received splits by path; give path, and weights as splits")
        if self.split_key:
            raise ValueError(f"split_key: windows are split by time, received {self.split_key!r}; remove it")
        names = list(self.splits)
        if names[0] != "train" or ("test" in names and names[-1] != "test"):
            raise ValueError(f"splits: with windows these are periods in order, 'train' first and 'test' last, received {names}")
        for name, column in self.columns.items():
            if column.type in ("image", "sequence"):
                raise ValueError(f"columns: {name!r} has the type {column.type}, which windows cannot hold; list it in exclude")

    @property
    def of_networks(self) -> list[str]:
        """The keys of columns, `data.columns.NAME.KEY`, that only networks read."""
        used = ((name, key) for name, column in self.columns.items() for key in ("pool", "augment") if getattr(column, key))
        return [f"data.columns.{name}.{key}" for name, key in used]

    def unread_by_trees(self) -> str:
        """Returns which key boosted trees do not read, and what to do; empty if there is none."""
        found = self.of_networks
        return f"{found[0]}: boosted trees have no use for it; remove it, or train with tensorflow or pytorch" if found else ""
