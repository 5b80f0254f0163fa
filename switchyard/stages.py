"""Stable import paths for the classes named in compiled pipelines, for example `switchyard.stages.IngestExecutor`."""

from importlib import import_module
from typing import Any

# Name here -> path of the class.
CLASSES = {
    "Baseline": "switchyard.components.baseline.component.Baseline",
    "BaselineArtifact": "switchyard.components.artifacts.Baseline",
    "BaselineExecutor": "switchyard.components.baseline.component.Executor",
    "DataGate": "switchyard.components.data_gate.component.DataGate",
    "DataGateExecutor": "switchyard.components.data_gate.executor.Executor",
    "DataVerdictArtifact": "switchyard.components.artifacts.DataVerdict",
    "Ensemble": "switchyard.components.ensemble.component.Ensemble",
    "EnsembleExecutor": "switchyard.components.ensemble.executor.Executor",
    "Evaluation": "switchyard.components.evaluation.component.Evaluate",
    "EvaluationExecutor": "switchyard.components.evaluation.executor.Executor",
    "InfraValidation": "switchyard.components.infra_validation.component.InfraValidation",
    "InfraValidationExecutor": "switchyard.components.infra_validation.executor.Executor",
    "Ingest": "switchyard.components.ingest.component.Ingest",
    "IngestDriver": "switchyard.components.ingest.driver.Driver",
    "IngestExecutor": "switchyard.components.ingest.executor.Executor",
    "Registration": "switchyard.components.registration.component.Register",
    "RegistrationExecutor": "switchyard.components.registration.component.Executor",
    "Report": "switchyard.components.report.component.Report",
    "ReportExecutor": "switchyard.components.report.component.Executor",
    "RunReportArtifact": "switchyard.components.artifacts.RunReport",
    "Schema": "switchyard.components.data_gate.inferred_schema.InferredSchema",
    "SchemaExecutor": "switchyard.components.data_gate.inferred_schema.SchemaExecutor",
    "StartingPointArtifact": "switchyard.components.artifacts.StartingPoint",
    "Statistics": "switchyard.components.data_gate.inferred_schema.FineStatistics",
    "StatisticsExecutor": "switchyard.components.data_gate.inferred_schema.StatisticsExecutor",
    "Training": "switchyard.components.training.component.Training",
    "TrainingExecutor": "switchyard.components.training.executor.Executor",
    "Transform": "switchyard.components.transform.component.Transform",
    "TransformExecutor": "switchyard.components.transform.executor.Executor",
    "Tuning": "switchyard.components.tuning.component.Tuning",
    "TuningExecutor": "switchyard.components.tuning.executor.Executor",
    "WarmStart": "switchyard.components.warm_start.component.WarmStart",
    "WarmStartExecutor": "switchyard.components.warm_start.component.Executor",
    "preprocessing_fn": "switchyard.components.transform.preprocessing.preprocessing_fn",
}
_NAMES = {path: name for name, path in CLASSES.items()}


def public_path(path: str) -> str:
    """Returns the path for a class in a compiled pipeline: `switchyard.stages.NAME` for one of Switchyard's.

    Raises:
        LookupError: the class is Switchyard's but has no name here.
    """
    if path in _NAMES:
        return f"{__name__}.{_NAMES[path]}"
    if path.startswith(("switchyard.components.", "switchyard.pipelines.")):
        raise LookupError(f"{path}: is a private path; give the class a name in {__name__}")
    return path


def __getattr__(name: str) -> Any:
    if name not in CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = CLASSES[name].rpartition(".")
    return getattr(import_module(module), attribute)
