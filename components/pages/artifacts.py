"""Logs readable views of a finished stage's outputs to MLflow, by artifact type and for every runner."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.types import artifact_utils

from switchyard.components.data.summary import FILE as DATASET
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.pages.statistics import statistics_html
from switchyard.components.tracking import run as tracking


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
    run.dataset("examples", summary.fingerprint, ", ".join(summary.files)[:1000], json.dumps({"rows": summary.rows}))


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
            lines[f"{split}: {name}"] = f"{info.short_description}. {info.description}"
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
