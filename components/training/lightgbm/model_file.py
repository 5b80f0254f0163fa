"""Reads and writes `model.txt`, LightGBM's text format, and validates it before LightGBM parses it.

LightGBM trusts the text: it jumps by the sizes that the text states, and follows the indices of children and of features without
a check. A bundle's file is therefore parsed here, and LightGBM receives a text that is written anew from what was valid: numbers,
in trees whose children form a tree. Parameters, names and comments are not carried over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from switchyard.components.errors import UserError

FILE = "model.txt"
_BYTES = 1 << 30
_LEAVES, _COLUMNS, _CLASSES = 1 << 17, 1 << 24, 1 << 16
# Possessive: for a way back the expression would keep a hundred bytes per number.
_INTEGERS = re.compile(r"-?\d{1,10}(?: -?\d{1,10})*+")
_FLOATS = re.compile(r"{0}(?: {0})*+".format(r"-?\d{1,20}(?:\.\d{1,40})?(?:e[+-]?\d{1,3})?"))
# Without one, the sums of trees are the scores.
_OBJECTIVE = re.compile(r"binary sigmoid:1|regression|multiclass num_class:\d{1,5}|multiclassova num_class:\d{1,5} sigmoid:1|")
# Values per tree, from the number of its leaves.
_OF_SPLITS = ("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child")
_OF_SPLITS_TOO = ("internal_value", "internal_weight", "internal_count")
_OF_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
_CATEGORIES = ("cat_boundaries", "cat_threshold")
_WHOLE = frozenset((*_CATEGORIES, "split_feature", "decision_type", "left_child", "right_child"))
# `decision_type`: a bit for categories, one for the default direction, two for the kind of missing values.
_DECISIONS, _IS_CATEGORY = 16, 1


def save_model(text: str, path: Path, *, objective: str | None = None, start: Sequence[float] = ()) -> None:
    """Writes a model without its training parameters. Raises ValueError for a text that `load_model` would refuse.

    Args:
        text: the model, in LightGBM's text format.
        path: the file.
        objective: replaces the text's.
        start: by output, a value to add to all sums of trees.
    """
    if objective is not None:
        head, first, trees = text.partition("\nTree=")
        kept = [line for line in head.split("\n") if not line.startswith("objective=")]
        text = "\n".join([*kept, f"objective={objective}"]) + first + trees
    path.write_text("".join(_checked(text, start)), encoding="ascii")


def load_model(path: Path) -> str:
    """Returns a model's text, safe to pass to LightGBM.

    Raises:
        UserError: the file contains data that `save_model` does not write. LightGBM reads nothing of it.
    """
    try:
        if path.stat().st_size > _BYTES:
            raise ValueError(f"it is larger than {_BYTES >> 20} MiB")
        return "".join(_checked(path.read_text(encoding="ascii")))
    except (OSError, ValueError) as error:
        why = str(error)[:300] if isinstance(error, ValueError) else f"{type(error).__name__}"
        raise UserError(
            f"model: {path.name} is refused: {why}. It was changed, or not made by this version; train again."
        ) from None


def _checked(text: str, start: Sequence[float] = ()) -> Iterator[str]:
    """Yields the valid parts of a model, written anew, with a value added to the first tree of each output."""
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    values = _pairs(head.removeprefix("tree\n"))
    objective = values.get("objective", "")
    if values.get("version") != "v4" or not _OBJECTIVE.fullmatch(objective):
        raise ValueError(f"it has the version {values.get('version', '')[:20]!r} and the objective {objective[:40]!r}")
    classes = int(objective.partition("num_class:")[2].partition(" ")[0] or (values["num_class"] if not objective else 1))
    columns = int(_numbers("max_feature_idx", values, 1, whole=True)[0]) + 1
    # The new text names every column: a number alone must not make it long.
    named = values.get("feature_names", "").count(" ") + 1
    if not 0 < columns <= _COLUMNS or named != columns or not 0 < classes <= _CLASSES or not blocks or len(blocks) % classes:
        raise ValueError(f"it has {columns} columns, {classes} outputs and {len(blocks)} trees")
    yield f"tree\nversion=v4\nnum_class={classes}\nnum_tree_per_iteration={classes}\nlabel_index=0\n"
    yield f"max_feature_idx={columns - 1}\n" + (f"objective={objective}\n" if objective else "")
    yield f"feature_names={' '.join(f'Column_{i}' for i in range(columns))}\nfeature_infos={' '.join(['none'] * columns)}\n\n"
    for number, block in enumerate(blocks):
        first, _, lines = block.partition("\n")
        if first != str(number):
            raise ValueError(f"tree {number} is called {first[:20]!r}")
        yield f"Tree={number}\n{_tree(_pairs(lines), columns, start[number] if number < len(start) else 0.0)}\n\n"
    yield "end of trees\n"


def _pairs(lines: str) -> dict[str, str]:
    pairs = [line.partition("=")[::2] for line in lines.split("\n") if line]
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a value is given twice")
    return found


def _numbers(name: str, values: dict[str, str], count: int, *, whole: bool) -> np.ndarray:
    text = values.get(name, "")
    if text.count(" ") + 1 != count or not (_INTEGERS if whole else _FLOATS).fullmatch(text):
        raise ValueError(f"{name} are not {count} number(s)")
    found = np.fromstring(text, dtype=np.int64 if whole else np.float64, sep=" ")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} are not finite")
    return found


def _tree(values: dict[str, str], columns: int, start: float) -> str:
    """Returns a valid tree, written anew, with a value added to its leaves."""
    leaves, categories = (int(_numbers(name, values, 1, whole=True)[0]) for name in ("num_leaves", "num_cat"))
    if not 1 <= leaves <= _LEAVES or not 0 <= categories < leaves or values.get("is_linear", "0") != "0":
        raise ValueError(f"a tree has {leaves} leaves and {categories} sets of categories, or linear leaves")
    counts = {**dict.fromkeys((*_OF_SPLITS, *_OF_SPLITS_TOO), leaves - 1), **dict.fromkeys(_OF_LEAVES, leaves)}
    if leaves == 1:
        counts = {"leaf_value": 1}
    elif categories:
        counts["cat_boundaries"] = categories + 1
        counts["cat_threshold"] = values.get("cat_threshold", "").count(" ") + 1
    found = {name: _numbers(name, values, count, whole=name in _WHOLE) for name, count in counts.items()}
    if leaves > 1:
        _check_splits(found, columns, categories)
    if start:
        values = {**values, "leaf_value": " ".join(repr(float(leaf) + start) for leaf in found["leaf_value"])}
    # A tree of one leaf has nothing else.
    written = {"num_leaves": str(leaves), "num_cat": str(categories), **{name: values[name] for name in counts}}
    return "\n".join(f"{name}={value}" for name, value in {**written, "is_linear": "0", "shrinkage": "1"}.items())


def _check_splits(found: dict[str, np.ndarray], columns: int, categories: int) -> None:
    features, decisions = found["split_feature"], found["decision_type"]
    splits = len(features)
    if features.min() < 0 or features.max() >= columns or decisions.min() < 0 or decisions.max() >= _DECISIONS:
        raise ValueError("a tree splits by a column that does not exist, or by an unknown rule")
    parents = np.concatenate([np.arange(splits)] * 2)
    children = np.concatenate([found["left_child"], found["right_child"]])
    inner = children >= 0
    # Every split but the first is the child of one earlier split, and every leaf (-1, -2, ...) of one split: no cycle.
    whole = np.array_equal(np.sort(children), np.arange(-splits - 1, splits)[np.arange(-splits - 1, splits) != 0])
    if not whole or (children[inner] <= parents[inner]).any():
        raise ValueError("a tree's children form no tree")
    used = found["threshold"][(decisions & _IS_CATEGORY) == 1]
    if used.size and (used.min() < 0 or used.max() >= categories or (used != np.floor(used)).any()):
        raise ValueError("a tree splits by categories that it does not hold")
    if categories:
        bounds, words = found["cat_boundaries"], found["cat_threshold"]
        if bounds[0] != 0 or bounds[-1] != len(words) or (np.diff(bounds) < 0).any() or words.min() < 0 or words.max() >= 1 << 32:
            raise ValueError("a tree's categories are not within their limits")
