"""Views for KFP's pages: extra outputs beside an artifact, chosen by the name of its class."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from switchyard.components.text.markdown import plain

# Limits the ROC points, as the page draws every one.
_MOST_POINTS = 200


def _statistics(uri: str, view: Any) -> None:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    from switchyard.components.pages.statistics import statistics_html

    found = {
        split: statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
        for split, path in _by_split(uri, "FeatureStats.pb")
    }
    Path(view.path).write_text(statistics_html(found), encoding="utf-8")


def _anomalies(uri: str, view: Any) -> None:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    lines = []
    for split, path in _by_split(uri, "SchemaDiff.pb"):
        anomalies = anomalies_pb2.Anomalies.FromString(path.read_bytes())
        for name, info in sorted(anomalies.anomaly_info.items()):
            cells = (split, name, info.short_description, info.description)
            lines.append("| " + " | ".join(map(plain, cells)) + " |\n")
    table = "| split | feature | anomaly | description |\n| --- | --- | --- | --- |\n" + "".join(lines)
    Path(view.path).write_text(table if lines else "No anomalies.\n", encoding="utf-8")


def _verdict(uri: str, view: Any) -> None:
    from switchyard.components.data_gate.findings import Verdict

    verdict = Verdict.load(uri)
    lines = [f"* {f.action}: {plain(f.sentence())}\n" for f in verdict.findings]
    text = f"**{'passed' if verdict.passed else 'stopped'}**\n\n" + "".join(lines or ["No findings.\n"])
    Path(view.path).write_text(text, encoding="utf-8")


def _report(uri: str, view: Any) -> None:
    Path(view.path).write_text((Path(uri) / "report.html").read_text(encoding="utf-8"), encoding="utf-8")


def _metrics(uri: str, view: Any) -> None:
    for name, value in _evaluated(uri).items():
        # Numbers only: KFP's MLflow plugin turns other values into 0.0.
        view.log_metric(name, float(value))


def _evaluated(uri: str) -> dict[str, float]:
    from switchyard.components.evaluation.results import Evaluation

    if (Path(uri) / "metrics.json").exists():
        result = Evaluation.load(uri)
        slices = {f"{name}[{key}]": v for key, values in result.candidate.slices.items() for name, v in values.items()}
        return {**result.metrics, **slices}
    import tensorflow_model_analysis as tfma

    found = {}
    for record in tfma.load_metrics(uri):
        keys = (k for k in record.slice_key.single_slice_keys)
        where = ",".join(f"{k.column}={_slice_value(k)}" for k in keys)
        for metric in record.metric_keys_and_values:
            value = metric.value.double_value.value
            if metric.value.HasField("double_value") and math.isfinite(value):
                name = f"{metric.key.model_name}.{metric.key.name}" if metric.key.model_name else metric.key.name
                found[f"{name}[{where}]" if where else name] = value
    return found


def _slice_value(key: Any) -> str:
    kind = key.WhichOneof("kind")
    value = getattr(key, kind) if kind else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _roc(uri: str, view: Any) -> None:
    rows = _confusion(uri)
    step = max(1, len(rows) // _MOST_POINTS)
    for row in rows[::step]:
        # Sums of sample weights, which may be below 1.
        fpr, tpr = row["fp"] / ((row["fp"] + row["tn"]) or 1), row["tp"] / ((row["tp"] + row["fn"]) or 1)
        view.log_roc_data_point(fpr=fpr, tpr=tpr, threshold=row["threshold"])


def _confusion(uri: str) -> list[dict[str, float]]:
    from switchyard.components.evaluation.results import Evaluation

    if (Path(uri) / "metrics.json").exists():
        return list(Evaluation.load(uri).candidate.plots.get("confusion", []))
    from switchyard.components.evaluation.tfma_results import read_plots

    return list(read_plots(uri, [""])[""].get("confusion", [])) if any(Path(uri).glob("plots*")) else []


def _by_split(uri: str, name: str) -> Iterator[tuple[str, Path]]:
    """Yields split and file, `train` first; one without split folders (TFX's Transform) as `all`."""
    found = sorted(Path(uri).glob(f"Split-*/{name}"), key=lambda p: (p.parent.name != "Split-train", p))
    for path in found:
        yield path.parent.name.removeprefix("Split-"), path
    if not found and (Path(uri) / name).exists():
        yield "all", Path(uri) / name


Writer = Callable[[str, Any], None]
# Artifact class -> suffix of the output's name -> KFP type and writer function.
VIEWS: Mapping[str, Mapping[str, tuple[str, Writer]]] = {
    "ExampleStatistics": {"html": ("HTML", _statistics)},
    "ExampleAnomalies": {"markdown": ("Markdown", _anomalies)},
    "DataVerdict": {"markdown": ("Markdown", _verdict)},
    "RunReport": {"html": ("HTML", _report)},
    "ModelEvaluation": {"metrics": ("Metrics", _metrics), "roc": ("ClassificationMetrics", _roc)},
}


def write_views(key: str, class_name: str, uri: str, views: Mapping[str, Any]) -> None:
    """Writes the views of the artifact `key` to its outputs in `views`."""
    for suffix, (_, write) in VIEWS.get(class_name, {}).items():
        view = views.get(f"{key}_{suffix}")
        if view is not None:
            os.makedirs(os.path.dirname(view.path), exist_ok=True)
            write(uri, view)
