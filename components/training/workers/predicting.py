"""Predicts in a job of the run's training server, which has imported the model's framework, instead of importing it again.

A stage that evaluates or validates a PyTorch model thus needs TensorFlow alone, for the transform graph, and saves the seconds
and the memory of PyTorch's import.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchyard.components.bundle.code import PREDICTORS, load_predictor_class
from switchyard.components.import_order import hide_gpus_from_tensorflow
from switchyard.components.training.workers.training_process import TrainingServer, running_server

if TYPE_CHECKING:
    from switchyard.components.training.contract import Predictor


def predictor_class(bundle: Path, predictor: str) -> Any:
    """Returns the class of `load_predictor_class`, or one whose predictors run in the framework's training server."""
    server = running_server(predictor) if predictor in PREDICTORS else None
    return _Elsewhere(server, bundle, predictor) if server else load_predictor_class(bundle, predictor)


@dataclass(frozen=True)
class _Elsewhere:
    server: TrainingServer
    bundle: Path
    predictor: str

    def load_predictor(self, export_dir: Path) -> Predictor:
        """See Trainer."""
        if self.predictor == "pytorch":
            hide_gpus_from_tensorflow()
        return self.server.predictor(self.bundle, self.predictor, export_dir)
