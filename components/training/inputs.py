"""Makes a training's inputs available in local folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.training.columns import FILE, SUFFIX
from switchyard.components.training.vocabularies import FILE as VOCABULARIES
from switchyard.components.user_code.tokenizer import FOLDER as TOKENIZER
from switchyard.components.user_code.tokenizer import copy_folder

# The stages' input with the version to start from.
STARTING_POINT = "starting_point"


def local_summary(summary: DatasetSummary, state: Path) -> str:
    """Writes the dataset summary to `state` and returns that folder."""
    state.mkdir(parents=True, exist_ok=True)
    summary.save(str(state))
    return str(state)


def local_columns(uri: str, state: Path) -> str:
    """Returns the local folder of the transformed examples; those in an object store are copied, as files are memory-mapped."""
    if "://" not in uri:
        return uri
    import tensorflow as tf

    target = state / "transformed_examples"
    for split in ("train", "eval"):
        (target / f"Split-{split}").mkdir(parents=True, exist_ok=True)
        for name in tf.io.gfile.listdir(os.path.join(uri, f"Split-{split}")):
            if name.endswith(SUFFIX):
                _copy(os.path.join(uri, f"Split-{split}", name), target / f"Split-{split}" / name)
    for name in (FILE, VOCABULARIES):
        if tf.io.gfile.exists(os.path.join(uri, name)):
            _copy(os.path.join(uri, name), target / name)
    return str(target)


def local_tokenizer(uri: str, state: Path) -> Path | None:
    """Returns the local folder of the tokenizer that made the transformed examples; None without one."""
    import tensorflow as tf

    source = os.path.join(uri, TOKENIZER)
    if not tf.io.gfile.exists(source):
        return None
    if "://" not in uri:
        return Path(source)
    copy_folder(source, str(state / TOKENIZER))
    return state / TOKENIZER


def local_start(inputs: Mapping[str, Sequence[Any]], state: Path) -> str | None:
    """Copies a stage's starting point to `state` and returns its folder; None without one."""
    given = inputs.get(STARTING_POINT)
    if not given:
        return None
    import tensorflow as tf

    target = state / "start"
    target.mkdir(parents=True, exist_ok=True)
    for name in tf.io.gfile.listdir(given[0].uri):
        _copy(os.path.join(given[0].uri, name), target / name)
    return str(target)


def _copy(source: str, target: Path) -> None:
    import tensorflow as tf

    if not target.exists():
        # Atomic: the stage may be interrupted here and retried.
        temporary = target.with_name(f"new_{target.name}")
        tf.io.gfile.copy(source, str(temporary), overwrite=True)
        temporary.rename(target)
