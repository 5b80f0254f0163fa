"""Names shared by the config and the trainers: frameworks, optimizers, schedules and the prefix of model parameters."""

from __future__ import annotations

from typing import Literal

FRAMEWORKS = ("tensorflow", "pytorch")
Optimizer = Literal["adam", "adamw", "sgd", "rmsprop"]
Schedule = Literal["constant", "linear", "cosine", "step", "one_cycle"]
# Prefix of the user's model parameters where they are listed beside hyperparameters.
MODEL_PARAMETER = "model_parameters."
