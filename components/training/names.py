"""The names that the config and the trainers share: frameworks, optimizers, the model's own parameters."""

from __future__ import annotations

from typing import Literal

FRAMEWORKS = ("tensorflow", "pytorch")
Optimizer = Literal["adam", "adamw", "sgd", "rmsprop"]
Schedule = Literal["constant", "linear", "cosine", "step", "one_cycle"]
# Before the name of a parameter of the user's model, where hyperparameters are named beside it.
MODEL_PARAMETER = "model_parameters."
