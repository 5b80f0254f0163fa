"""Settings of one trainer, as its stages receive them: the section `trainer` with what the framework decides."""

from __future__ import annotations

from typing import Any

from switchyard.components.config import Section
from switchyard.components.ingest.config import AugmentConfig
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.hyperparameters_config import HyperparametersConfig, TreesConfig
from switchyard.components.user_code.loading import UserCode


class TrainerSettings(Section):
    """The settings of training and tuning for one framework.

    Attributes:
        version: version of Switchyard.
        bundle: format version of the written bundle.
        framework: as in the config; a user's file is replaced by its snapshot.
        own_preprocessing: whether the user provides a `preprocessing_fn`.
        code: snapshot of the user's model; None selects the default model.
        model_parameters: see `TrainerConfig`.
        loss: name of the loss; None selects the task's own.
        loss_code: snapshot of the user's loss.
        loss_parameters: see `TrainerConfig`.
        callbacks_code: snapshot of the user's callbacks.
        start_from: see `TrainerConfig`; which version that is, the warm start's artifact says.
        initialize: see `TrainerConfig`.
        freeze: see `TrainerConfig`.
        sample_weight: see `TrainerConfig`.
        augment: column of images -> how they are changed in training.
        hyperparameters: see `TrainerConfig`.
        trees: see `TrainerConfig`; None for a framework of networks.
        accelerator: devices, precision, determinism.
        dependencies: packages of the user's code, if there is any that makes the model; part of the bundle's requirements.
    """

    version: str
    bundle: int
    framework: str
    own_preprocessing: bool
    code: UserCode | None
    model_parameters: dict[str, Any]
    loss: str | None
    loss_code: UserCode | None
    loss_parameters: dict[str, Any]
    callbacks_code: UserCode | None = None
    start_from: str | None = None
    initialize: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    sample_weight: str | None = None
    augment: dict[str, AugmentConfig] = {}
    hyperparameters: HyperparametersConfig
    trees: TreesConfig | None = None
    accelerator: AcceleratorProfile
    dependencies: tuple[str, ...] = ()
