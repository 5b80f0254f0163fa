"""Windows over time series: their settings, the names of their columns, and what a bundle knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class WindowSettings:
    """The config's `data.windows` and what belongs to it.

    Attributes:
        label: column to forecast.
        splits: names of the splits in the order of their periods.
    """

    order: str
    past: int
    future: int
    label: str
    group: str | None = None
    known: Sequence[str] = ()
    static: Sequence[str] = ()
    gaps: str = "refuse"
    splits: Sequence[str] = ()

    @property
    def length(self) -> int:
        """Rows of a window."""
        return self.past + self.future

    @property
    def targets(self) -> list[str]:
        """Names of the label columns."""
        return future_names(self.label, self.future)


def future_names(label: str, future: int) -> list[str]:
    """Returns the names of the label columns of windows: `<label>_1` is one step after the last past row."""
    return [f"{label}_{step}" for step in range(1, future + 1)]


def ahead_name(column: str) -> str:
    """Returns the name of the list of a column's values that are known ahead."""
    return f"{column}_ahead"


@dataclass(frozen=True)
class KnownWindows:
    """How the windows of a data set were made, for files to predict; stored as `DatasetSummary.windows`.

    Attributes:
        settings: the config's settings.
        step: usual difference between the orders of neighbours, in the unit of the order; None if gaps are ignored.
        columns: column of the long table -> fields of its `RawFeature`; the order, the group, the label and the features.
        past: columns whose past values are a list.
        still: columns of which the last past row's value is taken.
        dropped: reason -> windows or series left out.
        rows_at: split that evaluates -> its windows at each step of the order that begins a future, by time, as its rows are;
            empty of data that an older version wrote.
    """

    settings: WindowSettings
    step: int | None
    columns: Mapping[str, Mapping[str, Any]]
    past: Sequence[str]
    still: Sequence[str]
    dropped: Mapping[str, int]
    rows_at: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns plain data for `of`."""
        return asdict(self)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> KnownWindows:
        """Returns what `as_dict` stored."""
        given = {f.name: stored[f.name] for f in fields(cls) if f.name in stored}
        return cls(**{**given, "settings": WindowSettings(**given["settings"])})
