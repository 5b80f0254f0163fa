"""The requests of `training_inputs`, and both trainers. Imports both frameworks."""

from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer
from tests.training_inputs import HYPER, SPECS, TASKS, Killed, examples, in_memory, killed_at, no_report, request, sources

__all__ = [
    "FRAMEWORKS",
    "HYPER",
    "SPECS",
    "TASKS",
    "Killed",
    "examples",
    "in_memory",
    "killed_at",
    "no_report",
    "request",
    "sources",
]

FRAMEWORKS = [TensorflowTrainer, PytorchTrainer]
