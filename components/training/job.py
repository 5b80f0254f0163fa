"""Defines a training job, which crosses processes as JSON, and runs it in one process or in several."""

from __future__ import annotations

from pathlib import Path

from switchyard.components.config import Section
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.contract import Report, TrainResult, WorkerGroup
from switchyard.components.training.example_source import WHOLE
from switchyard.components.training.hooks import hooks_in
from switchyard.components.training.hyperparameters import Hyperparameters
from switchyard.components.training.losses import OF_MODEL, Loss, named_loss
from switchyard.components.training.names import LOSSES
from switchyard.components.training.request import CHECKPOINTS, EXPORT, hyperparameters, train_request
from switchyard.components.training.settings import TrainerSettings
from switchyard.components.training.trainers import boosts_trees, trainer_class


class TrainingJob(Section):
    """A training job.

    Attributes:
        settings: settings of the training stage.
        examples: folder with `dataset.json`.
        transformed_examples: folder with the columns.
        state: folder for checkpoints and the exported model; kept between a killed run and the next one.
        start: folder of the starting point, see `components.training.start`; None without one.
    """

    settings: TrainerSettings
    examples: str
    transformed_examples: str
    state: str
    start: str | None = None

    @property
    def accelerator(self) -> AcceleratorProfile:
        """The requested devices."""
        return self.settings.accelerator

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The hyperparameters with all defaults resolved."""
        trees = self.settings.trees if boosts_trees(self.settings.framework) else None
        return hyperparameters(self.settings.hyperparameters, DatasetSummary.load(self.examples), trees)

    @property
    def loss(self) -> Loss:
        """The loss with its parameters, without the user's function."""
        name, parameters = self.settings.loss, self.settings.loss_parameters
        if "build_loss" in self.hooks:
            return Loss(self.hooks["build_loss"])
        if self.settings.loss_code:
            return Loss(name or "", parameters)
        summary = DatasetSummary.load(self.examples)
        if name is None and not LOSSES[summary.task]:
            return Loss(OF_MODEL)
        return named_loss(summary.task, name, parameters, summary.targets)

    @property
    def hooks(self) -> dict[str, str]:
        """The user's functions beside `build_model`: name -> `file.py:function`."""
        code, callbacks = self.settings.code, self.settings.callbacks_code
        found = {hook: f"{Path(code.path).name}:{hook}" for hook in hooks_in(code.path)} if code else {}
        of_key = {"build_callbacks": f"{Path(callbacks.path).name}:{callbacks.function}"} if callbacks else {}
        return found | of_key

    @property
    def checkpoint_dir(self) -> Path:
        """Folder of the checkpoints."""
        return Path(self.state) / CHECKPOINTS

    @property
    def export_dir(self) -> Path:
        """Folder of the exported model."""
        return Path(self.state) / EXPORT

    def run(self, report: Report, group: WorkerGroup | None = None) -> TrainResult:
        """Trains in this process; raises the same errors as `Trainer.train`.

        Args:
            report: see `Trainer.train`.
            group: the processes that train together; None if this process trains alone.
        """
        trainer = trainer_class(self.settings.framework)()
        # A trial's values are known only now.
        trainer.check_settings(self.settings.model_dump(mode="json", exclude_defaults=True))
        trainer.prepare(self.accelerator, group)
        summary = DatasetSummary.load(self.examples)
        state = Path(self.state)
        state.mkdir(parents=True, exist_ok=True)
        shard = group.shard if group else WHOLE
        request = train_request(
            self.settings,
            summary,
            Path(self.transformed_examples),
            state,
            shard,
            trainer=trainer.name,
            boosts_trees=trainer.boosts_trees,
            start=Path(self.start) if self.start else None,
        )
        return trainer.train(request, report)

    def processes(self) -> int:
        """Returns the total number of processes. Raises UserError if this machine does not support the job."""
        trainer = trainer_class(self.settings.framework)()
        profile = trainer.resolve(self.accelerator)
        return trainer.processes(profile) * profile.nodes


def check_trainer(settings: TrainerSettings) -> str:
    """Imports a trainer and the user's model; returns the trainer's name.

    Args:
        settings: settings of the training stage.

    Raises:
        UserError: an import fails, or the trainer does not support the settings on this machine.
    """
    trainer = trainer_class(settings.framework)
    trainer().resolve(settings.accelerator)
    trainer().check_settings(settings.model_dump(mode="json", exclude_defaults=True))
    for code in (settings.code, settings.loss_code, settings.callbacks_code):
        if code:
            code.load()
    return trainer.name
