"""What lies in a Baseline artifact."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FILE = "baseline.json"


@dataclass(frozen=True)
class Misfit:
    """Why a champion cannot judge some rows of the held-out split: column, reason, how many rows."""

    column: str
    reason: str
    rows: int

    def sentence(self, of: int) -> str:
        """Returns it in one line."""
        return f"{self.column!r} {self.reason} ({self.rows:,} of {of:,} rows)"


@dataclass(frozen=True)
class BaselineContents:
    """What a run is compared with.

    Attributes:
        version: the champion's; None: there is none, or it could not be asked for.
        framework: the champion's.
        model_uri: the artifact that the champion was registered from.
        previous_run: MLflow run of the last data gate that let its data pass; None: there is none.
        note: what a person should know, for example that MLflow is away.
        digest: of the champion's manifest, as it was registered.
        name: of the registered model.
        obstacle: why the champion can judge no row of this data; empty when it can judge some.
        rows: of the held-out split.
        judged: those of them that the champion can judge.
        misfits: why not the others; a row may be in several.
        trained_on: the data set that the champion was trained on, where it is another one than this run's.
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
        """Of the held-out rows that the champion can judge."""
        return self.judged / self.rows if self.rows else 0.0

    @property
    def origin(self) -> str:
        """Which other data set the champion was trained on, in one line; empty when it is this one, or not known."""
        return f"champion version {self.version} was trained on another data set, {self.trained_on}" if self.trained_on else ""

    def comparable(self, least: float) -> bool:
        """Whether there is a champion that can judge a share of at least `least` of the held-out rows."""
        return self.version is not None and not self.obstacle and self.judged > 0 and self.share >= least

    def why_not(self, least: float) -> str:
        """Returns why there is no comparison, in one line; empty when there is one."""
        if self.version is None:
            return self.note
        if self.comparable(least):
            return ""
        return f"champion version {self.version} of {self.name} cannot be compared: {self.obstacle or self._too_few(least)}"

    def reasons(self) -> list[str]:
        """Returns why the champion cannot judge some rows, one line a reason, the most rows first."""
        return [m.sentence(self.rows) for m in sorted(self.misfits, key=lambda m: -m.rows)]

    def _too_few(self, least: float) -> str:
        needed = f"evaluation.comparable asks for {least:.0%}"
        return f"it can judge {self.judged:,} of {self.rows:,} rows ({self.share:.0%}), {needed}; {'; '.join(self.reasons()[:3])}"

    def save(self, uri: str) -> None:
        """Writes it into the artifact."""
        Path(uri, _FILE).write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, uri: str) -> BaselineContents:
        """Reads it from the artifact."""
        loaded: dict[str, Any] = json.loads(Path(uri, _FILE).read_text(encoding="utf-8"))
        return cls(**{**loaded, "misfits": [Misfit(**m) for m in loaded["misfits"]]})


def champion_folder(uri: str) -> Path:
    """Where the champion's MLflow Model lies in a Baseline artifact."""
    return Path(uri) / "champion"


def previous_statistics(uri: str, split: str) -> Path:
    """Where the previous run's statistics of a split lie, if there are any."""
    return Path(uri) / "previous" / f"{split}.pb"
