"""What ingest reads: the config's `data` and `label` as plain data, and the files that they match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from switchyard.components.ingest.class_lists import lists_classes
from switchyard.components.ingest.declared import TEXT
from switchyard.components.ingest.layout import folder_columns
from switchyard.components.ingest.sources import Listing, list_files
from switchyard.components.tasks import TASKS


@dataclass(frozen=True)
class InputSpec:
    """Specification of the input: the config's `data` and `label` as plain data.

    Attributes:
        columns: column -> declared type, see `switchyard.components.ingest.declared`.
        csv: options that differ from the defaults of `CsvOptions`.
        targets: see `DatasetSummary.targets`.
        group: see `DatasetSummary.group`; also the `split_key`.
        sample_weight: column with the weights of the rows.
        images: column of images -> (height, width, channels); `columns` declares it as text.
        sequences: column of lists -> `length`, `keep` and any `pool`, see `ColumnConfig`.
        label_separator: separator of class names in a label column that lists them as text.
        windows: arguments of `WindowSettings`; the files then hold a long table, see `switchyard.components.ingest.windowed`.
        output_shape: see `DatasetSummary.output_shape`.
    """

    path: Sequence[str]
    weights: Mapping[str, float]
    format: str
    exclude: Sequence[str]
    max_bad_rows: int
    label: str
    task: str
    split_paths: Mapping[str, Sequence[str]] | None = None
    split_key: str | None = None
    missing_values: Sequence[str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    csv: Mapping[str, str | None] = field(default_factory=dict)
    positive_class: str | None = None
    max_float32_loss: float = 0.5
    targets: Sequence[str] = ()
    group: str | None = None
    sample_weight: str | None = None
    images: Mapping[str, Sequence[int]] = field(default_factory=dict)
    sequences: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    label_separator: str = ""
    windows: Mapping[str, Any] | None = None
    output_shape: Sequence[int] = ()

    @property
    def labels(self) -> list[str]:
        """The label columns; those of listed classes are known after a scan, see `Scan.targets`."""
        if self.targets and self.task in TASKS and TASKS[self.task].has_labels:
            return list(self.targets)
        return [self.label] * bool(self.label)

    @property
    def lists_classes(self) -> bool:
        """Whether the label column lists the classes of each row."""
        return self.task in TASKS and lists_classes(self.task, self.label, self.targets)

    @property
    def given(self) -> dict[str, Any]:
        """Fields that differ from their defaults."""
        factories = {f.name: f.default_factory() if f.default_factory is not MISSING else f.default for f in fields(self)}
        return {name: getattr(self, name) for name, default in factories.items() if getattr(self, name) != default}

    @property
    def patterns(self) -> list[str]:
        """All files, folders and globs."""
        return [*self.path, *(p for paths in (self.split_paths or {}).values() for p in paths)]

    @property
    def folder_columns(self) -> list[str]:
        """Columns encoded in folder names."""
        files = [f for group in self.files().values() for f in group]
        return list(dict.fromkeys(n for f in files for n in folder_columns(f, self.patterns)))

    def with_folders(self) -> InputSpec:
        """Returns a copy that declares folder columns as text, because 01 is not 1."""
        undeclared = [n for n in self.folder_columns if n not in self.columns]
        return replace(self, columns={**dict.fromkeys(undeclared, TEXT), **self.columns}) if undeclared else self

    @cached_property
    def listings(self) -> dict[str | None, Listing]:
        """Split -> files that its patterns matched, cached; the key is None for files whose rows are split by hash."""
        if self.split_paths:
            return {split: list_files(paths) for split, paths in self.split_paths.items()}
        return {None: list_files(self.path)}

    def files(self) -> dict[str | None, list[str]]:
        """Split -> files, see `listings`."""
        return {split: found.files for split, found in self.listings.items()}
