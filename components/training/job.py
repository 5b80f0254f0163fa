"""TrainingJob: what a process needs to train one model, as plain data, and the training of it in one process or in several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.contract import WHOLE, Hyperparameters, Report, TrainResult, WorkerGroup
from switchyard.components.training.request import CHECKPOINTS, EXPORT, hyperparameters, train_request
from switchyard.components.training.trainers import trainer_class
from switchyard.components.user_code.loading import UserCode


@dataclass(frozen=True)
class TrainingJob:
    """One training.

    Attributes:
        settings: the config's `trainer` as plain data, the user's code as a snapshot.
        examples: folder of `dataset.json`.
        transformed_examples: folder of the columns.
        state: folder of checkpoints and of the exported model; kept between a killed run and the next one.
    """

    settings: dict[str, Any]
    examples: str
    transformed_examples: str
    state: str

    @property
    def accelerator(self) -> AcceleratorProfile:
        """The devices that are asked for."""
        return AcceleratorProfile(**self.settings["accelerator"])

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The hyperparameters with everything decided."""
        return hyperparameters(self.settings["hyperparameters"], DatasetSummary.load(self.examples))

    @property
    def checkpoint_dir(self) -> Path:
        """Where training resumes from."""
        return Path(self.state) / CHECKPOINTS

    @property
    def export_dir(self) -> Path:
        """Where the finished model lies."""
        return Path(self.state) / EXPORT

    def to_json(self) -> str:
        """Returns what `from_json` takes."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrainingJob:
        """Returns the job."""
        return cls(**json.loads(text))

    def run(self, report: Report, group: WorkerGroup | None = None) -> TrainResult:
        """Trains in this process; raises as `Trainer.train`.

        Args:
            report: see Trainer.
            group: the processes that do this together; None: this one alone.
        """
        trainer = trainer_class(self.settings["framework"])()
        trainer.prepare(self.accelerator, group)
        summary = DatasetSummary.load(self.examples)
        state = Path(self.state)
        state.mkdir(parents=True, exist_ok=True)
        shard = group.shard if group else WHOLE
        request = train_request(self.settings, summary, Path(self.transformed_examples), state, shard)
        return trainer.train(request, report)

    def processes(self) -> int:
        """Returns how many processes this takes in all. Raises UserError when this machine cannot do it."""
        trainer = trainer_class(self.settings["framework"])()
        profile = trainer.resolve(self.accelerator)
        return trainer.processes(profile) * profile.nodes


def check_trainer(settings: Mapping[str, Any]) -> str:
    """Imports a trainer and the user's model, and returns the trainer's name.

    Args:
        settings: the config's `trainer` as plain data.

    Raises:
        UserError: one does not import, or the trainer cannot do on this machine what it is asked for.
    """
    trainer = trainer_class(settings["framework"])
    trainer().resolve(AcceleratorProfile(**settings["accelerator"]))
    trainer().check_hyperparameters(settings["hyperparameters"])
    if settings["code"]:
        UserCode(**settings["code"]).load()
    return trainer.name
