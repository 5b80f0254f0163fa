"""Applies tuned hyperparameters to the settings of training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switchyard.components.training.hyperparameters_config import HyperparametersConfig, TreesConfig
from switchyard.components.training.names import MODEL_PARAMETER, TREE_PARAMETER
from switchyard.components.training.settings import TrainerSettings

BEST = "best.json"


def best_values(folder: str | Path) -> dict[str, Any]:
    """Returns hyperparameter -> value from the tuning stage's output."""
    found: dict[str, Any] = json.loads((Path(folder) / BEST).read_text(encoding="utf-8"))
    return found


def with_values(settings: TrainerSettings, values: Mapping[str, Any]) -> TrainerSettings:
    """Returns the settings with overrides: hyperparameters, `trees.NAME` and `model_parameters.NAME`."""
    trees = {k.removeprefix(TREE_PARAMETER): v for k, v in values.items() if k.startswith(TREE_PARAMETER)}
    hyper = {k: v for k, v in values.items() if not k.startswith((MODEL_PARAMETER, TREE_PARAMETER))}
    model = {k.removeprefix(MODEL_PARAMETER): v for k, v in values.items() if k.startswith(MODEL_PARAMETER)}
    own = {**settings.hyperparameters.model_dump(), **hyper}
    if "epochs" in hyper:
        own["steps"] = None
    update: dict[str, Any] = {
        "hyperparameters": HyperparametersConfig.model_validate(own),
        "model_parameters": {**settings.model_parameters, **model},
    }
    if trees and settings.trees:
        update["trees"] = TreesConfig.model_validate({**settings.trees.model_dump(), **trees})
    return settings.model_copy(update=update)
