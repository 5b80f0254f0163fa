"""Logs readable views of a finished stage's outputs to MLflow, by artifact type and for every runner."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.types import artifact_utils

from switchyard.components.data.summary import EVAL, TEST, TRAIN, DatasetSummary
from switchyard.components.data.summary import FILE as DATASET
from switchyard.components.pages.statistics import statistics_html
from switchyard.components.text.markdown import plain
from switchyard.components.text.redaction import mask
from switchyard.components.tracking import run as tracking

# MLflow's limits; its names of column types; and of what a data set is used for.
_DIGEST_LENGTH, _SCHEMA_LENGTH = 36, 1_000_000
_TYPES = {"integer": "long", "float": "double", "string": "string"}
_CONTEXTS = {TRAIN: "training", EVAL: "validation", TEST: "testing"}


def track_outputs(outputs: Mapping[str, Iterable[Any]]) -> None:
    """Logs the views of a finished stage's outputs to the current MLflow run."""
    for artifacts in outputs.values():
        for artifact in artifacts:
            view = _VIEWS.get(artifact.type_name)
            if view:
                view(artifact)


def _examples(artifact: Any) -> None:
    try:
        summary = DatasetSummary.load(artifact.uri)
    except FileNotFoundError:
        return  # transformed examples
    run = tracking.current_run()
    run.tags(
        {"data_fingerprint": summary.fingerprint, "task": summary.task, "unusable_columns": ", ".join(summary.empty_columns)}
    )
    run.metrics({f"rows_{split}": float(n) for split, n in summary.rows.items()} | {"bad_rows": float(summary.bad_rows)})
    run.text(json.dumps(dataclasses.asdict(summary), indent=1), f"data/{DATASET}")
    track_data(run, summary)


def track_data(run: tracking.Run, summary: DatasetSummary) -> None:
    """Logs each split as an input of a run: name, digest, schema and number of rows, which MLflow compares between runs."""
    columns = [{"name": name, **_column_type(kind)} for name, kind in summary.columns.items()]
    schema = json.dumps({"mlflow_colspec": columns})
    for split, rows in summary.rows.items():
        name, digest = dataset_of(summary, split)
        profile = json.dumps({"num_rows": rows, "columns": len(columns), "label": summary.label})
        run.dataset(
            name,
            digest,
            # Masked before it is cut: a password is recognized by what follows it.
            mask(", ".join(summary.files))[:1000],
            profile,
            schema=schema if len(schema) < _SCHEMA_LENGTH else "",
            context=_CONTEXTS.get(split, split),
        )


def dataset_of(summary: DatasetSummary, split: str) -> tuple[str, str]:
    """Returns the name and digest of a split in MLflow: another digest for other files, and for another number of rows."""
    content = f"{summary.fingerprint} {split} {summary.rows.get(split, 0)}"
    return split, hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_LENGTH]


def _column_type(kind: str) -> dict[str, Any]:
    item = kind.removeprefix("list of ")
    known = _TYPES.get(item, "string")
    return {"type": "array", "items": {"type": known}} if item != kind else {"type": known}


def _statistics(artifact: Any) -> None:
    found = {}
    for split in sorted(artifact_utils.decode_split_names(artifact.split_names), key=lambda s: s != "train"):
        with open(os.path.join(artifact.uri, f"Split-{split}", "FeatureStats.pb"), "rb") as file:
            found[split] = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read())
    page = statistics_html(found)
    tracking.current_run().text(page, "statistics/statistics.html")


def _schema(artifact: Any) -> None:
    tracking.current_run().file(os.path.join(artifact.uri, "schema.pbtxt"), "schema")


def _anomalies(artifact: Any) -> None:
    lines: dict[str, str] = {}
    run = tracking.current_run()
    for split in artifact_utils.decode_split_names(artifact.split_names):
        with open(os.path.join(artifact.uri, f"Split-{split}", "SchemaDiff.pb"), "rb") as file:
            anomalies = anomalies_pb2.Anomalies.FromString(file.read())
        for name, info in sorted(anomalies.anomaly_info.items()):
            lines[plain(f"{split}: {name}")] = plain(f"{info.short_description}. {info.description}")
        run.text(text_format.MessageToString(anomalies), f"anomalies/{split}.pbtxt")
    table = "".join(f"| {where} | {what} |\n" for where, what in lines.items())
    run.text(f"| where | anomaly |\n| --- | --- |\n{table}" if table else "No anomalies.\n", "anomalies/anomalies.md")
    run.metrics({"anomalies": float(len(lines))})


_VIEWS: dict[str, Callable[[Any], None]] = {
    "Examples": _examples,
    "ExampleStatistics": _statistics,
    "Schema": _schema,
    "ExampleAnomalies": _anomalies,
}
