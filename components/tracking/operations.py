"""The operations of `Run` as plain data, which a journal can hold, and how MLflow receives them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from switchyard.components.text.redaction import mask
from switchyard.components.tracking.journal_files import local_files
from switchyard.components.tracking.keys import metric_key
from switchyard.components.tracking.model_registry import Registration, register_model

# MLflow's limit of the parameters, and of the tags, of one request.
BATCH = 100

Operation = dict[str, Any]


def of_cached(now: int) -> list[Operation]:
    """Returns the operations of a stage that did nothing, at a time in milliseconds since 1970."""
    end = {"op": "end", "status": "FINISHED", "time": now}
    return [{"op": "metrics", "values": {"seconds": 0.0}, "step": 0, "time": now}, end]


def params_of(values: Mapping[str, Any]) -> Operation:
    """Returns the operation of `Run.params`."""
    return {"op": "params", "values": {k: mask(str(v))[:6000] for k, v in values.items()}}


def tags_of(values: Mapping[str, str]) -> Operation:
    """Returns the operation of `Run.tags`."""
    return {"op": "tags", "values": {k: mask(str(v))[:8000] for k, v in values.items()}}


def metrics_of(values: Mapping[str, float], step: int) -> Operation:
    """Returns the operation of `Run.metrics`."""
    named = {metric_key(name): value for name, value in values.items()}
    return {"op": "metrics", "values": named, "step": step, "time": int(time.time() * 1000)}


def _check_files(operation: Operation) -> None:
    """Raises for missing files: MLflow silently sends nothing for a missing folder."""
    for path in local_files(operation):
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path} no longer exists and cannot be sent")


def apply(mlflow_client: Any, run_id: str, operation: Operation) -> Registration | None:
    """Sends one operation of `Run` to MLflow; returns the outcome of a registration."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    kind = operation["op"]
    _check_files(operation)
    values = list(operation.get("values", {}).items())
    for start in range(0, len(values), BATCH):
        log_batch(mlflow_client, run_id, [{**operation, "values": dict(values[start : start + BATCH])}])
    if kind == "file":
        mlflow_client.log_artifact(run_id, operation["path"], operation["folder"] or None)
    elif kind == "file_as":
        folder, _, name = operation["name"].rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            renamed = os.path.join(temporary, name)
            shutil.copyfile(operation["path"], renamed)
            mlflow_client.log_artifact(run_id, renamed, folder or None)
    elif kind == "text":
        mlflow_client.log_text(run_id, operation["content"], operation["name"])
    elif kind == "table":
        mlflow_client.log_table(run_id, operation["columns"], operation["name"])
    elif kind == "dataset":
        source = json.dumps({"uri": operation["source"]})
        dataset = Dataset(
            operation["name"],
            operation["digest"],
            "local",
            source,
            schema=operation.get("schema") or None,
            profile=operation["profile"],
        )
        context = operation.get("context")  # absent in journals of earlier versions
        tags = [InputTag(MLFLOW_DATASET_CONTEXT, context)] if context else []
        mlflow_client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])
    elif kind == "end":
        mlflow_client.set_terminated(run_id, operation["status"], operation["time"])
    elif kind == "register":
        return register_model(mlflow_client, run_id, operation["model"])
    return None


def log_batch(mlflow_client: Any, run_id: str, operations: Sequence[Operation]) -> None:
    """Sends operations on parameters, tags and metrics in one request, at most `BATCH` values of each."""
    from mlflow.entities import Metric, Param, RunTag

    params, tags, metrics = [], [], []
    for operation in operations:
        for key, value in operation["values"].items():
            if operation["op"] == "params":
                params.append(Param(key, value))
            elif operation["op"] == "tags":
                tags.append(RunTag(key, value))
            else:
                metrics.append(Metric(key, float(value), operation["time"], operation["step"]))
    mlflow_client.log_batch(run_id, metrics=metrics, params=params, tags=tags)
