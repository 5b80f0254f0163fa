"""The contents of a Baseline artifact."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FILE = "baseline.json"


@dataclass(frozen=True)
class Misfit:
    """A reason why a champion cannot judge some rows of the held-out split: column, reason, number of rows."""

    column: str
    reason: str
    rows: int

    def sentence(self, of: int) -> str:
        """Returns the misfit in one line."""
        return f"{self.column!r} {self.reason} ({self.rows:,} of {of:,} rows)"


@dataclass(frozen=True)
class BaselineContents:
    """The baseline that a run is compared with.

    Attributes:
        version: the champion's version; None if there is none or the registry was unreachable.
        framework: the champion's framework.
        model_uri: URI of the model artifact that the champion was registered from.
        previous_run: MLflow run of the last data gate that passed; None if there is none.
        note: message for the user, for example that MLflow is unreachable.
        digest: digest of the champion's manifest at registration.
        name: name of the registered model.
        obstacle: reason why the champion can judge no row of this data; empty if it can judge some.
        rows: number of rows of the held-out split.
        judged: number of these rows that the champion can judge.
        misfits: reasons for the other rows; a row may count for several.
        trained_on: the data set that the champion was trained on, if it differs from this run's; else empty.
    """

    version: str | None
    framework: str
    model_uri: str
    previous_run: str | None
    note: str
    digest: str | None = None
    name: str = ""
    obstacle: str = ""
    rows: int = 0
    judged: int = 0
    misfits: list[Misfit] = field(default_factory=list)
    trained_on: str = ""

    @property
    def share(self) -> float:
        """Share of the held-out rows that the champion can judge."""
        return self.judged / self.rows if self.rows else 0.0

    @property
    def origin(self) -> str:
        """The other data set that the champion was trained on, in one line; empty if it is the same or unknown."""
        return f"champion version {self.version} was trained on another data set, {self.trained_on}" if self.trained_on else ""

    def comparable(self, least: float) -> bool:
        """Returns whether a champion exists and can judge a share of at least `least` of the held-out rows."""
        return self.version is not None and not self.obstacle and self.judged > 0 and self.share >= least

    def why_not(self, least: float) -> str:
        """Returns the reason why there is no comparison, in one line; empty if there is one."""
        if self.version is None:
            return self.note
        if self.comparable(least):
            return ""
        return f"champion version {self.version} of {self.name} cannot be compared: {self.obstacle or self._too_few(least)}"

    def reasons(self) -> list[str]:
        """Returns the reasons why the champion cannot judge some rows, one line each, by descending number of rows."""
        return [m.sentence(self.rows) for m in sorted(self.misfits, key=lambda m: -m.rows)]

    def _too_few(self, least: float) -> str:
        needed = f"evaluation.comparable requires {least:.0%}"
        return (
            f"it can predict {self.judged:,} of {self.rows:,} rows ({self.share:.0%}), {needed}; {'; '.join(self.reasons()[:3])}"
        )

    def save(self, uri: str) -> None:
        """Writes the contents to the artifact."""
        Path(uri, _FILE).write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, uri: str) -> BaselineContents:
        """Reads the contents from the artifact."""
        loaded: dict[str, Any] = json.loads(Path(uri, _FILE).read_text(encoding="utf-8"))
        return cls(**{**loaded, "misfits": [Misfit(**m) for m in loaded["misfits"]]})


def champion_folder(uri: str) -> Path:
    """Returns the folder of the champion's MLflow Model in a Baseline artifact."""
    return Path(uri) / "champion"


def previous_statistics(uri: str, split: str) -> Path:
    """Returns the path of the previous run's statistics of a split; the file may not exist."""
    return Path(uri) / "previous" / f"{split}.pb"
