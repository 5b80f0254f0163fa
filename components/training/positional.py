"""Positional feature names for exports: column names never reach a framework's code generator, graph or file names.

A trainer's export takes `f0`, `f1`, ... in the order of `ModelSpec.features`; `features.json` beside it maps them to names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from switchyard.components.errors import UserError

FILE = "features.json"
_Value = TypeVar("_Value")


def positional(features: Mapping[str, _Value], names: Sequence[str]) -> dict[str, _Value]:
    """Returns the features in `names` keyed by position: `f0`, `f1`, ..."""
    return {f"f{i}": features[name] for i, name in enumerate(names)}


def by_name(features: Mapping[str, _Value], names: Sequence[str]) -> dict[str, _Value]:
    """Returns positional features keyed by name, the input of the model that `build_model(spec)` returns."""
    return {name: features[f"f{i}"] for i, name in enumerate(names)}


def save_names(export_dir: Path, names: Sequence[str]) -> None:
    """Writes the feature names in positional order."""
    (export_dir / FILE).write_text(json.dumps(list(names)), encoding="utf-8")


def load_names(export_dir: Path) -> tuple[str, ...]:
    """Returns the feature names in positional order.

    Raises:
        UserError: the list is missing or unreadable, as in exports of older versions.
    """
    try:
        names = json.loads((export_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"model: the export has no readable {FILE}: it was made by an older version, with column names in its code; "
            "train again."
        )
    return tuple(names)
