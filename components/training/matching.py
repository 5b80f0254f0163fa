"""Matches the weights of a version to a model, by name and shape, and names of weights to patterns. NumPy only.

Where a vocabulary changed, the rows of a table of its words follow the words.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError
from switchyard.components.text.visible import in_a_line
from switchyard.components.training.start import Start
from switchyard.components.training.vocabularies import Moved

_MOST_SHOWN = 12
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Model:
    """A model as this module sees it.

    Attributes:
        features: its features.
        weights: its weights, as initialized, by name.
        write: writes weights into it.
        outputs: computes its outputs of a batch by feature, without dropout and the like.
    """

    features: Sequence[FeatureSpec]
    weights: Arrays
    write: Callable[[Arrays], None]
    outputs: Callable[[Arrays], np.ndarray]


def fill(model: Model, given: Arrays, start: Start) -> None:
    """Writes the weights of a version into a model.

    Args:
        model: the model.
        given: the version's weights by name.
        start: the starting point.

    Raises:
        UserError: a weight is missing, left over, or has another shape; the message names it.
    """
    fresh = matching(start.initialize, [*model.weights, *given], "trainer.initialize")
    left = {name: value for name, value in given.items() if not _matches(name, start.initialize)}
    wanted = {name: value for name, value in model.weights.items() if name not in fresh}
    tables = _tables(model, wanted, left, start)
    shapes = {n: (left[n].shape, wanted[n].shape) for n in wanted if n in left and n not in tables}
    problems = {
        "only in the model": [n for n in wanted if n not in left],
        "only in the version": [n for n in left if n not in model.weights],
        "of another shape": [f"{n} ({list(a)} there, {list(b)} here)" for n, (a, b) in shapes.items() if a != b],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {_shown(names)}" for what, names in problems.items() if names)
        raise UserError(
            f"trainer.start_from: the weights of {start.origin} do not match the model ({listed}); build the same model, or name "
            "the weights that start anew in trainer.initialize"
        )
    values = {name: left[name] for name in shapes}
    for name, how in tables.items():
        rows = np.array(wanted[name])
        rows[how.kept] = left[name][how.old[how.kept]]
        values[name] = rows
    model.write(values)
    _check_read_by_tables_only(model, {name: values[name] for name in tables}, start)


def matching(patterns: Sequence[str], names: Collection[str], key: str) -> set[str]:
    """Returns the names that match a pattern of shell wildcards.

    Raises:
        UserError: a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"{key}: {pattern!r} matches no weight; the weights: {_shown(names)}")
    return {name for name in names if _matches(name, patterns)}


def frozen(patterns: Sequence[str], trainable: Collection[str]) -> set[str]:
    """Returns the names of the trainable weights that `trainer.freeze` lists.

    Raises:
        UserError: a pattern matches none, or all weights are frozen.
    """
    found = matching(patterns, trainable, "trainer.freeze")
    if found and len(found) == len(trainable):
        raise UserError(f"trainer.freeze: {', '.join(patterns)} freezes all {len(found)} weights; leave some to train")
    return found


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _tables(model: Model, wanted: Arrays, given: Arrays, start: Start) -> dict[str, Moved]:
    """Returns the weights with a row for each index of a vocabulary that changed -> how the rows move."""
    found: dict[str, Moved] = {}
    sizes = {f.name: f.vocabulary_size or 0 for f in model.features}
    for feature, how in start.moved.items():
        for name, value in wanted.items():
            shapes = (len(how.old), *value.shape[1:]), (how.old_size, *value.shape[1:])
            if value.ndim < 2 or name in found or name not in given or (value.shape, given[name].shape) != shapes:
                continue
            readers = _readers(model, name, sizes)
            if feature not in readers:
                continue
            for reader in readers:
                same = start.moved[reader].old if reader in start.moved else np.arange(sizes[reader])
                if not np.array_equal(same, how.old):
                    raise UserError(
                        f"trainer.start_from: {name} has the rows of both {feature!r} and {reader!r}, whose vocabularies differ; "
                        "give each feature an embedding of its own, or leave start_from out"
                    )
            found[name] = how
    return found


def _readers(model: Model, name: str, sizes: Mapping[str, int]) -> list[str]:
    """Returns the features whose indices choose rows of a weight.

    A row that no data reads does not change the outputs: one that holds no numbers shows who reads it.
    """
    value = model.weights[name]
    tried, other = (1, 2) if len(value) > 2 else (1, 0)
    if len(value) <= tried or not np.issubdtype(value.dtype, np.floating):
        return []
    marked = np.array(value)
    marked[tried] = np.nan
    model.write({name: marked})
    try:
        if np.isnan(model.outputs(_batch(model.features, {}, other))).any():
            return []
        features = [feature for feature, size in sizes.items() if size > tried]
        return [f for f in features if np.isnan(model.outputs(_batch(model.features, {f: tried}, other))).any()]
    finally:
        model.write({name: value})


def _check_read_by_tables_only(model: Model, tables: Arrays, start: Start) -> None:
    """Raises UserError if the model uses the indices of a changed vocabulary elsewhere than to choose rows of its tables."""
    if not start.moved:
        return
    # With equal rows an index makes no difference.
    model.write({name: np.broadcast_to(value[:1], value.shape).copy() for name, value in tables.items()})
    for feature, how in start.moved.items():
        one, other = (model.outputs(_batch(model.features, {feature: index}, 0)) for index in (0, len(how.old) - 1))
        if not np.array_equal(one, other, equal_nan=True):
            raise UserError(
                f"trainer.start_from: the vocabulary of {feature!r} is not that of {start.origin} ({how.old_size:,} indices "
                f"there, {len(how.old):,} here), and the model uses its indices other than to choose rows of an embedding, so "
                "its weights cannot follow the words; use an embedding, or leave start_from out"
            )
    model.write(tables)


def _batch(features: Sequence[FeatureSpec], chosen: Mapping[str, int], other: int) -> dict[str, np.ndarray]:
    """Returns two equal rows: the chosen index of a feature, `other` or 0 for the other vocabularies, 1 for numbers."""

    def value(feature: FeatureSpec) -> int:
        size = feature.vocabulary_size
        return chosen.get(feature.name, other if other < size else 0) if size else 1

    return {f.name: np.full((2, *f.shape), value(f), dtype=f.dtype) for f in features}


def _shown(names: Collection[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _MOST_SHOWN:,} more" if len(listed) > _MOST_SHOWN else ""
    return in_a_line(listed[:_MOST_SHOWN]) + more
