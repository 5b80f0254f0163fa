"""Positional names for exports: what a column is called never reaches a framework's code generator, graph or file name.

A trainer's export takes `f0`, `f1`, ... in the order of `ModelSpec.features`; `features.json` beside it says which is which.
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
    """Returns the features of `names` by place: `f0`, `f1`, ..."""
    return {f"f{i}": features[name] for i, name in enumerate(names)}


def by_name(features: Mapping[str, _Value], names: Sequence[str]) -> dict[str, _Value]:
    """Returns positional features by name: what `build_model(spec)`'s model is called with."""
    return {name: features[f"f{i}"] for i, name in enumerate(names)}


def save_names(export_dir: Path, names: Sequence[str]) -> None:
    """Writes which name stands at which place."""
    (export_dir / FILE).write_text(json.dumps(list(names)), encoding="utf-8")


def load_names(export_dir: Path) -> tuple[str, ...]:
    """Reads which name stands at which place.

    Raises:
        UserError: there is no such list: an older version made the export.
    """
    try:
        names = json.loads((export_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"model: the export has no readable {FILE}: it was made before column names stayed out of it; train again."
        )
    return tuple(names)
