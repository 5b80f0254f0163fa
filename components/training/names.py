"""Names shared by the config and the trainers: frameworks, optimizers, schedules, losses and the prefix of model parameters."""

from __future__ import annotations

from typing import Literal

NETWORKS = ("tensorflow", "pytorch")
# Frameworks of boosted trees, whose hyperparameters are `trainer.trees`.
TREES = ("lightgbm",)
# The framework that trains Hugging Face models.
HUGGINGFACE = "pytorch"
FRAMEWORKS = (*NETWORKS, *TREES)
# In the list of frameworks: the weighted mean of the other candidates.
ENSEMBLE = "ensemble"
Optimizer = Literal["adam", "adamw", "sgd", "rmsprop"]
Schedule = Literal["constant", "linear", "cosine", "step", "one_cycle"]
# Task -> the losses that `trainer.loss` can name, the default first; formulas: `losses.py`.
LOSSES: dict[str, tuple[str, ...]] = {
    "binary": ("cross_entropy", "focal", "hinge"),
    "multiclass": ("cross_entropy", "focal", "hinge"),
    "regression": ("mse", "mae", "huber", "poisson", "quantile"),
    "quantile": ("pinball",),
    "multioutput": ("mse", "mae", "huber", "poisson", "quantile"),
    "multilabel": ("cross_entropy", "focal", "hinge"),
    "ranking": ("listwise", "pairwise"),
    "custom": (),
}
# Hyperparameters that boosted trees take from `trainer.hyperparameters`.
COMMON_TO_TREES = ("seed", "class_weights")
# Prefix of the keys of `trainer.trees` where they are listed beside hyperparameters.
TREE_PARAMETER = "trees."
# Prefix of the user's model parameters where they are listed beside hyperparameters.
MODEL_PARAMETER = "model_parameters."
