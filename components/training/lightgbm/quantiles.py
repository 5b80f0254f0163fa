"""A model of quantiles: a booster of LightGBM's own objective for each quantile, all of which grow side by side.

LightGBM's objective sets each leaf to the quantile of its rows, in the label's unit. A gradient, as of `objectives`, has no unit:
trees of it would never reach labels in thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from switchyard.components.training.lightgbm.library import lightgbm
from switchyard.components.training.lightgbm.model_file import save_model

# A round in which a booster found no split.
_NO_TREE = "num_leaves=1\nnum_cat=0\nleaf_value=0"
_OF_ALL = ("num_class=", "num_tree_per_iteration=", "objective=", "tree_sizes=")


class QuantileBoosters:
    """A booster per quantile. Together they are one model, whose rounds have a tree for each quantile.

    Args:
        params: LightGBM's parameters but the objective.
        quantiles: as texts, ascending.
        train: the training split.
        held: the eval split.
        before: the file of a model whose rounds come first, with its scores for both splits, each (B, quantiles); None to begin.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        quantiles: Sequence[str],
        train: lightgbm.Dataset,
        held: lightgbm.Dataset,
        before: tuple[Path, Sequence[np.ndarray]] | None,
    ) -> None:
        self._before = _trees(before[0].read_text(encoding="ascii")) if before else []
        self._boosters: list[lightgbm.Booster] = []
        self._grown: list[list[bool]] = [[] for _ in quantiles]
        for i, quantile in enumerate(quantiles):
            for split, scores in zip((train, held), before[1] if before else (), strict=False):
                split.set_init_score(np.ascontiguousarray(scores[:, i]))  # a booster copies them
            booster = lightgbm.Booster({**params, "objective": "quantile", "alpha": float(quantile)}, train)
            self._boosters.append(booster.add_valid(held, "held"))

    def update(self) -> bool:
        """Grows a tree for each quantile that finds a split; returns whether there is one. A round without is none."""
        for booster, grown in zip(self._boosters, self._grown, strict=True):
            trees = booster.num_trees()
            booster.update()
            grown.append(booster.num_trees() > trees)
        if any(grown[-1] for grown in self._grown):
            return True
        for grown in self._grown:
            grown.pop()
        return False

    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scores of both splits, (B, quantiles) each."""
        train, held = (
            np.stack([_scores(evaluate) for evaluate in of], axis=1)
            for of in ([b.eval_train for b in self._boosters], [b.eval_valid for b in self._boosters])
        )
        return train, held

    def save(self, path: Path) -> None:
        """Writes all trees as one model."""
        texts = [b.model_to_string(num_iteration=-1) for b in self._boosters]
        each = [iter(_trees(text)) for text in texts]
        new = [
            next(trees) if grown else _NO_TREE
            for of_round in zip(*self._grown, strict=True)
            for trees, grown in zip(each, of_round, strict=True)
        ]
        head = [line for line in texts[0].partition("\nTree=")[0].split("\n") if not line.startswith(_OF_ALL)]
        outputs = f"num_class={len(texts)}\nnum_tree_per_iteration={len(texts)}"
        trees = "".join(f"\nTree={i}\n{tree}" for i, tree in enumerate([*self._before, *new]))
        save_model("\n".join([*head, outputs]) + trees, path, objective="")


def _trees(text: str) -> list[str]:
    """Returns the lines of each tree of a model's text."""
    return [block.partition("\n")[2].strip("\n") for block in text.partition("\nend of trees")[0].split("\nTree=")[1:]]


def _scores(evaluate: Callable[[Callable[[np.ndarray, Any], list[Any]]], Any]) -> np.ndarray:
    """Returns the scores of a split, (B,), which LightGBM passes to metrics."""
    found: list[np.ndarray] = []

    def keep(scores: np.ndarray, data: Any) -> list[Any]:
        found.append(scores.copy())
        return []

    evaluate(keep)
    return found[0]
