"""What lies in a Baseline artifact."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.class_order import same_classes
from components.dataset import DatasetSummary
from components.model_bundle import BundleInfo, RawFeature

_FILE = "baseline.json"


@dataclass(frozen=True)
class BaselineContents:
    """What a run is compared with.

    Attributes:
        version: the champion's; None: there is none, or it could not be asked for.
        framework: the champion's.
        model_uri: the artifact that the champion was registered from.
        misfits: why the champion cannot take this data; empty when it can.
        previous_run: MLflow run of the last data gate that let its data pass; None: there is none.
        note: what a person should know, for example that MLflow is away.
        digest: of the champion's manifest, as it was registered.
    """

    version: str | None
    framework: str
    model_uri: str
    misfits: list[str]
    previous_run: str | None
    note: str
    digest: str | None = None

    @property
    def comparable(self) -> bool:
        """There is a champion, and it takes this data."""
        return self.version is not None and not self.misfits

    def save(self, uri: str) -> None:
        """Writes it into the artifact."""
        Path(uri, _FILE).write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, uri: str) -> BaselineContents:
        """Reads it from the artifact."""
        loaded: dict[str, Any] = json.loads(Path(uri, _FILE).read_text(encoding="utf-8"))
        return cls(**loaded)


def champion_folder(uri: str) -> Path:
    """Where the champion's MLflow Model lies in a Baseline artifact."""
    return Path(uri) / "champion"


def previous_statistics(uri: str, split: str) -> Path:
    """Where the previous run's statistics of a split lie, if there are any."""
    return Path(uri) / "previous" / f"{split}.pb"


def misfits(info: BundleInfo, summary: DatasetSummary) -> list[str]:
    """Returns why a bundle cannot take a data set: one sentence each, none when it fits."""
    found = []
    if info.task != summary.task:
        found.append(f"it is for a {info.task} task, the data is {summary.task}")
    if info.label != summary.label:
        found.append(f"it predicts {info.label!r}, the label is {summary.label!r}")
    elif not same_classes(info.classes, summary.classes):
        found.append(f"its classes are {info.classes}, the data has {list(summary.classes)}")
    for feature in info.features:
        kind = summary.columns.get(feature.name)
        if kind is None:
            if feature.width is not None:
                found.append(f"it needs the column {feature.name!r}, which the data has not")
        elif reason := _mismatch(feature, kind):
            found.append(f"column {feature.name!r}: {reason}")
    return found


def _mismatch(feature: RawFeature, kind: str) -> str:
    scalar = kind.removeprefix("list of ")
    if (feature.dtype == "string") != (scalar == "string"):
        return f"it takes {feature.dtype}, the data holds {kind}"
    if feature.dtype == "int64" and scalar == "float":
        return "it takes integers, the data holds floats"
    if kind.startswith("list") and not (feature.is_list or (feature.width or 1) > 1):
        return "it takes one value a row, the data holds lists"
    return ""
