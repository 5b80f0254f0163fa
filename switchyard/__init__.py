"""Switchyard's public API; each name is imported on first use.

The folders `pipelines` and `components` beside this one are its subpackages, through links: see docs/decisions/.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

# `python -m switchyard...` puts the working directory first on the path; remove it, so that its files do not shadow libraries.
# Not done by `components.process.interpreter`, which might be shadowed itself. `sys.argv` holds `-m` until the module is found.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]

if TYPE_CHECKING:
    from switchyard.components.bundle.model import BundleModel
    from switchyard.components.bundle.pyfunc import PyfuncModel as PyfuncModel
    from switchyard.components.data.feature_spec import FeatureSpec
    from switchyard.components.errors import ArgumentError, DataGateError, StageError, TrainingError, UserError
    from switchyard.components.training.contract import Trainer, TrainRequest, TrainResult
    from switchyard.components.training.epoch_metrics import epoch_metrics
    from switchyard.components.training.hyperparameters import Trees
    from switchyard.components.training.ledger import TrainingLedger
    from switchyard.components.training.model_spec import ModelSpec
    from switchyard.pipelines.api.compile import compile  # noqa: A004
    from switchyard.pipelines.api.model_argument import load_model
    from switchyard.pipelines.api.predict import PredictedFile, predict
    from switchyard.pipelines.api.run import run
    from switchyard.pipelines.api.serve import serve
    from switchyard.pipelines.api.submit import SubmittedRun, SubmittedSchedule, schedule, submit
    from switchyard.pipelines.config.kubeflow import StageResources
    from switchyard.pipelines.config.load import load_config
    from switchyard.pipelines.runners.contract import RunResult
    from switchyard.pipelines.runners.kubeflow.compiler.compile import CompiledForKubeflow, compile_tfx_pipeline
    from switchyard.pipelines.runners.kubeflow.compiler.workflow_size import workflow_size
    from switchyard.pipelines.runners.kubeflow.local.try_out import run_compiled
    from switchyard.pipelines.runners.kubeflow.task.runtime import evaluate_condition as evaluate_condition
    from switchyard.pipelines.runners.kubeflow.task.runtime import run_driver as run_driver
    from switchyard.pipelines.runners.kubeflow.task.runtime import run_node as run_node

_MODULES = {
    "ArgumentError": "switchyard.components.errors",
    "BundleModel": "switchyard.components.bundle.model",
    "CompiledForKubeflow": "switchyard.pipelines.runners.kubeflow.compiler.compile",
    "DataGateError": "switchyard.components.errors",
    "FeatureSpec": "switchyard.components.data.feature_spec",
    "ModelSpec": "switchyard.components.training.model_spec",
    "PredictedFile": "switchyard.pipelines.api.predict",
    "RunResult": "switchyard.pipelines.runners.contract",
    "StageError": "switchyard.components.errors",
    "StageResources": "switchyard.pipelines.config.kubeflow",
    "SubmittedRun": "switchyard.pipelines.api.submit",
    "SubmittedSchedule": "switchyard.pipelines.api.submit",
    "TrainRequest": "switchyard.components.training.contract",
    "TrainResult": "switchyard.components.training.contract",
    "Trainer": "switchyard.components.training.contract",
    "TrainingError": "switchyard.components.errors",
    "TrainingLedger": "switchyard.components.training.ledger",
    "Trees": "switchyard.components.training.hyperparameters",
    "UserError": "switchyard.components.errors",
    "compile": "switchyard.pipelines.api.compile",
    "compile_tfx_pipeline": "switchyard.pipelines.runners.kubeflow.compiler.compile",
    "epoch_metrics": "switchyard.components.training.epoch_metrics",
    "load_config": "switchyard.pipelines.config.load",
    "load_model": "switchyard.pipelines.api.model_argument",
    "predict": "switchyard.pipelines.api.predict",
    "run": "switchyard.pipelines.api.run",
    "run_compiled": "switchyard.pipelines.runners.kubeflow.local.try_out",
    "schedule": "switchyard.pipelines.api.submit",
    "serve": "switchyard.pipelines.api.serve",
    "submit": "switchyard.pipelines.api.submit",
    "workflow_size": "switchyard.pipelines.runners.kubeflow.compiler.workflow_size",
}
# Imported by bundles and compiled pipelines: as stable as the public names, but not for users. Classes: `stages.py`.
_PERSISTED = {
    "PyfuncModel": "switchyard.components.bundle.pyfunc",
    "evaluate_condition": "switchyard.pipelines.runners.kubeflow.task.runtime",
    "run_driver": "switchyard.pipelines.runners.kubeflow.task.runtime",
    "run_node": "switchyard.pipelines.runners.kubeflow.task.runtime",
}
__all__ = [
    "ArgumentError",
    "BundleModel",
    "CompiledForKubeflow",
    "DataGateError",
    "FeatureSpec",
    "ModelSpec",
    "PredictedFile",
    "RunResult",
    "StageError",
    "StageResources",
    "SubmittedRun",
    "SubmittedSchedule",
    "TrainRequest",
    "TrainResult",
    "Trainer",
    "TrainingError",
    "TrainingLedger",
    "Trees",
    "UserError",
    "compile",
    "compile_tfx_pipeline",
    "epoch_metrics",
    "load_config",
    "load_model",
    "predict",
    "run",
    "run_compiled",
    "schedule",
    "serve",
    "submit",
    "workflow_size",
]


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name) or _PERSISTED.get(name)
    if module is None:
        raise AttributeError(f"module 'switchyard' has no attribute {name!r}; public names: {', '.join(__all__)}")
    found = getattr(import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
