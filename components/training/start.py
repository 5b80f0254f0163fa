"""The registered version that a training starts from, and what of it must be the same as in the training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError, damaged_artifact, first_line
from switchyard.components.text.visible import in_a_line
from switchyard.components.training.vocabularies import Moved, Vocabulary, moved, read_vocabularies

# In a trainer's export, and in a starting point: the weights by name.
WEIGHTS = "weights.safetensors"
FILE = "start.json"
# Tags of a run and of a registered version, properties of a model; the first is a parameter, too.
STARTED_FROM, STARTED_FROM_DIGEST = "start_from", "start_from.digest"


@dataclass(frozen=True)
class Origin:
    """The registered version that a training starts from, `start.json` of a starting point.

    Attributes:
        name: name of the registered model.
        version: its version; empty if the model has no champion yet.
        digest: digest of the version's manifest.
        framework: name of its trainer.
        task, classes, targets: see `BundleInfo`.
        features: names of its transformed features.
    """

    name: str
    version: str = ""
    digest: str = ""
    framework: str = ""
    task: str = ""
    classes: tuple[Any, ...] = ()
    targets: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"

    @property
    def lineage(self) -> str:
        """The version as a URI of MLflow's; `none` without one."""
        return f"models:/{self.name}/{self.version}" if self.version else "none"

    @property
    def tags(self) -> dict[str, str]:
        """The tags of an MLflow run."""
        return {STARTED_FROM: self.lineage, **({STARTED_FROM_DIGEST: self.digest} if self.digest else {})}

    def save(self, folder: Path) -> None:
        """Writes `start.json`."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Origin:
        """Reads `start.json`."""
        file = Path(folder) / FILE
        try:
            loaded = json.loads(file.read_text(encoding="utf-8"))
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in loaded.items()}
            return cls(**fields)
        except (ValueError, TypeError, AttributeError) as error:
            raise damaged_artifact(file, str(folder), first_line(error)) from error


@dataclass(frozen=True)
class Start:
    """The starting point in a trainer's request.

    Attributes:
        origin: the version, for messages.
        weights: safetensors file with its weights by name.
        moved: feature whose vocabulary changed -> how its indices moved.
        initialize: patterns of names of weights that start as initialized.
    """

    origin: str
    weights: Path
    moved: Mapping[str, Moved] = field(default_factory=dict)
    initialize: tuple[str, ...] = ()

    def columns(self, name: str) -> int | None:
        """Returns the number of columns of a matrix among the weights; None if there is no such matrix."""
        with safe_open(self.weights, framework="numpy") as file:
            shape: list[int] = file.get_slice(name).get_shape() if name in set(file.keys()) else []
        return shape[1] if len(shape) == 2 else None


def start_of(
    folder: Path,
    transformed: Path,
    *,
    framework: str,
    predicts: Mapping[str, Any],
    features: Sequence[FeatureSpec],
    initialize: Sequence[str],
) -> Start | None:
    """Returns the starting point of a training; None if the model has no champion yet.

    Args:
        folder: folder of the starting point.
        transformed: folder of the transformed examples.
        framework: name of the trainer.
        predicts: `task`, `classes` and `targets` of the data.
        features: the transformed features.
        initialize: see `Start`.

    Raises:
        UserError: the version does not fit the trainer or the data.
    """
    origin = Origin.load(folder)
    if not origin.version:
        return None
    check_framework(origin, framework)
    here = {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in predicts.items()}
    other = [f"{k}: {_shown(getattr(origin, k))} there, {_shown(v)} here" for k, v in here.items() if getattr(origin, k) != v]
    if other and not initialize:
        raise UserError(
            f"trainer.start_from: {origin} predicts something else ({'; '.join(other)}); start from another version, or name the "
            "weights of the output in trainer.initialize"
        )
    names = {f.name for f in features}
    if names != set(origin.features):
        only = {"there": set(origin.features) - names, "here": names - set(origin.features)}
        listed = "; ".join(f"only {where}: {in_a_line(sorted(found))}" for where, found in only.items() if found)
        raise UserError(
            f"trainer.start_from: {origin} was trained on other features ({listed}); start from a version with the same ones, or "
            "leave start_from out"
        )
    changed = _changed(origin, read_vocabularies(folder), read_vocabularies(transformed))
    return Start(str(origin), folder / WEIGHTS, changed, tuple(initialize))


def write_weights(file: Path, weights: Mapping[str, np.ndarray]) -> None:
    """Writes weights by name as safetensors."""
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, file)


def read_weights(file: Path) -> dict[str, np.ndarray]:
    """Returns weights by name from safetensors, of which a reader executes nothing.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return dict(load_file(file))
    except SafetensorError as error:
        raise UserError(f"trainer.start_from: {file.name} cannot be read: {error}; start from another version") from error


def check_framework(origin: Origin, framework: str) -> None:
    """Raises UserError unless a version was trained by the trainer of this name."""
    if origin.framework != framework:
        raise UserError(
            f"trainer.start_from: {origin} is a model of {origin.framework}, and the trainer is {framework}; give a version of "
            f"{framework}, or train with {origin.framework}"
        )


def _changed(origin: Origin, old: Mapping[str, Vocabulary], new: Mapping[str, Vocabulary]) -> dict[str, Moved]:
    found = {}
    for name in sorted({*old, *new}):
        try:
            if name not in old or name not in new:
                raise ValueError(f"only {'there' if name in old else 'here'} they are indices")
            how = moved(old[name], new[name])
        except ValueError as error:
            raise UserError(
                f"trainer.start_from: values of the feature {name!r} may mean something else than in {origin}: {error}; leave "
                "start_from out"
            ) from None
        if how is not None:
            found[name] = how
    return found


def _shown(value: Any) -> str:
    return (in_a_line(value) or "none") if isinstance(value, tuple) else str(value)
