"""Maps framework names to trainer classes, imported on first use."""

from __future__ import annotations

import importlib
import importlib.util

from switchyard.components.errors import UserError, did_you_mean
from switchyard.components.training.contract import Trainer
from switchyard.components.training.names import FRAMEWORKS, TREES
from switchyard.components.user_code.loading import load_function

TRAINERS = {name: f"switchyard.components.training.{name}.trainer:{name.capitalize()}Trainer" for name in FRAMEWORKS}


def check_installed(framework: str) -> None:
    """Raises UserError, which names the extra, if a framework is one and is not installed; imports nothing."""
    if framework in TREES and importlib.util.find_spec(framework) is None:
        raise UserError(
            f"trainer.framework: {framework} is not installed; install the extra: pip install 'switchyard[{framework}]'"
        )


def trainer_class(framework: str) -> type[Trainer]:
    """Returns the trainer class for a framework name, `package.module:Class` or `/path/to/file.py:Class`.

    Raises:
        UserError: the name is unknown, the import fails, or the object is not a Trainer.
    """
    reference = TRAINERS.get(framework, framework)
    module, colon, name = reference.rpartition(":")
    if not colon:
        raise UserError(
            f"trainer.framework: {framework!r} is not a trainer; allowed: {', '.join(TRAINERS)}, or 'package.module:Class'."
            f"{did_you_mean(framework, TRAINERS)}"
        )
    check_installed(framework)
    if module.endswith(".py"):
        found: object = load_function(module, name)
    else:
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"trainer.framework: cannot import {framework!r}: {error}. Give 'module:Class', the module installed or "
                "beside the YAML."
            ) from error
    if not (isinstance(found, type) and issubclass(found, Trainer)):
        raise UserError(f"trainer.framework: {framework!r} is not a subclass of switchyard.components.training.contract.Trainer.")
    return found


def boosts_trees(framework: str) -> bool:
    """Returns whether a trainer reads `trainer.trees`; imports only a trainer of the user's, see `trainer_class`."""
    return framework in TREES if framework in FRAMEWORKS else trainer_class(framework).boosts_trees
