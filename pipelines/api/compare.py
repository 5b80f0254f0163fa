"""Measures two registered versions of a model on the same rows of a file."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchyard.components.errors import StageError, UserError, did_you_mean
from switchyard.components.metrics import DIRECTION, METRICS, PRIMARY, base, direction
from switchyard.components.tasks import RANKING, TASKS
from switchyard.components.text.visible import in_a_line
from switchyard.components.tracking.model_registry import Version
from switchyard.pipelines.api.compare_clusters import clusters_of
from switchyard.pipelines.api.compare_own import Change, custom_labels, measure_own

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from switchyard.components.bundle.model import BundleInfo
    from switchyard.components.data.summary import DatasetSummary


@dataclass(frozen=True)
class OnSameRows:
    """Two versions on the same rows: metric -> values, and metric -> (improvement, interval) of the second over the first.

    Of metrics of the user's own, whose direction is not known, `changes` has the second's value minus the first's. Undefined
    values are None: the AUC of a single class, the precision without positive predictions. `weighted_by` is the column
    of the sample weights, empty if all rows weigh the same. `unlabelled`: rows of the file without a label
    or group, which are left out, and `incomplete` windows with a gap or a missing number. `unmeasured`: the user's own metrics,
    whose functions no bundle contains and no file gives. `note`: why intervals are too narrow, or absent.
    """

    rows: int
    primary: str
    metrics: dict[str, dict[str, float | None]]
    better: dict[str, Change]
    weighted_by: str = ""
    unlabelled: int = 0
    unmeasured: tuple[str, ...] = ()
    incomplete: int = 0
    note: str = ""
    changes: dict[str, Change] = field(default_factory=dict)


def compare_on(
    uri: str, name: str, chosen: Sequence[Version], data: Path, sample_weight: str | None, own: Path | None, key: Path | None
) -> OnSameRows:
    """Returns the metrics of two versions on the labelled rows of a file, and how much better the second is.

    Args:
        uri: MLflow's server or database.
        name: the registered model.
        chosen: the two versions.
        data: file with rows and their labels.
        sample_weight: column to weigh the rows by; None: that of the versions; empty: all weigh the same.
        own: file with metrics of the user's own, as `evaluation.metrics`.
        key: file with the public key or certificate that both signatures must verify with; None: only digests are checked.

    Raises:
        UserError: the versions predict something else, are not as they were registered or signed, or the rows do not fit them.
        StageError: the file has no rows.
    """
    from switchyard.components.import_order import import_torch_first

    import_torch_first()
    from switchyard.components.bundle.model import load_bundle, reordered, training_data
    from switchyard.components.bundle.source import ModelRef
    from switchyard.components.data.summary import DatasetSummary
    from switchyard.components.evaluation.bootstrap import Rows, replicates, unit_weights, weighted_metrics

    scores: dict[str, Any] = {}
    targets: dict[str, Any] = {}
    weighed: dict[str, pd.Series] = {}
    classes: list[Any] = []
    forecasts: dict[str, pd.DataFrame] = {}
    for version in chosen:
        with ModelRef(uri, name, version.version, verify_by=key).open() as opened:
            bundle = load_bundle(opened.folder, opened.digest)
            info = bundle.info
            _check_measurable(name, info, own)
            # The positive class may differ: scores are reordered to the first version's classes.
            summary = DatasetSummary.load(str(training_data(opened.folder)))
            shapes = info.output_shape, summary.label_shape
            targets[version.version] = (
                info.task,
                info.label,
                sorted(map(str, info.classes)),
                info.targets,
                summary.group,
                shapes,
            )
            classes = classes or info.classes
            _check_same_target(name, targets)
            weight = info.sample_weight if sample_weight is None else sample_weight
            frame, incomplete = _read_rows(data, summary, info, weight)
            given, frame = len(frame), _labelled(frame, info, summary, data)
            forecasts[version.version] = frame[list(info.labels)] if summary.windows else frame[:0]
            if sample_weight:
                _check_choice(sample_weight, frame, info, data)
            if weight and weight in frame:
                weighed[weight] = frame[weight]
            if len(weighed) > 1:
                listed = " and ".join(map(repr, weighed))
                raise UserError(
                    f"{name}: versions {' and '.join(v.version for v in chosen)} have different sample weights, {listed}; choose "
                    "one column for both by --sample-weight COLUMN, or --sample-weight '' to weigh all rows the same"
                )
            try:
                scores[version.version] = reordered(bundle.scores(frame), info, classes)
            except UserError as error:
                raise UserError(f"{data}: {error}") from None
    _check_same_windows(forecasts)
    labels = _encoded(frame, info, classes, summary, data)
    scores = {v: s.clip(1e-7, 1 - 1e-7) if TASKS[info.task].has_probabilities else s for v, s in scores.items()}
    weighted_by = next(iter(weighed), "")
    weights = _weights(weighed[weighted_by], weighted_by, data) if weighed else None
    functions = {v: weighted_metrics(info.task, labels, s, info.targets) for v, s in scores.items()}
    of_units = unit_weights(info.task, labels, weights)
    measured = {v: {m: float(f(of_units)) for m, f in of.items()} for v, of in functions.items()}
    clusters, note = clusters_of(frame, summary, data)
    shape: dict[str, Any] = {"output_shape": info.output_shape, "label_shape": summary.label_shape}
    rows = Rows(info.task, labels, scores, targets=info.targets, weights=weights, clusters=clusters, **shape)
    of_own, changes = measure_own(own, rows)
    existing = {v: {m: _existing(value) for m, value in {**of, **of_own[v]}.items()} for v, of in measured.items()}
    known = {*(metric.name for metric in METRICS), *changes}
    return OnSameRows(
        len(labels),
        PRIMARY.get(info.task, ""),
        existing,
        _improvements(measured, replicates(rows)),
        weighted_by,
        unlabelled=given - len(labels),
        unmeasured=tuple(sorted({m for v in chosen for m in v.metrics if base(m) not in known})),
        incomplete=incomplete,
        note=note,
        changes=changes,
    )


def _improvements(
    measured: Mapping[str, Mapping[str, float]], samples: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, Change]:
    """Returns metric -> improvement of the second version over the first, with its interval if there are replicates."""
    from switchyard.components.evaluation.bootstrap import interval

    first, second = measured
    return {
        m: (
            _existing(direction(m) * (measured[second][m] - measured[first][m])),
            interval(direction(m) * (samples[second][m] - samples[first][m])) if samples[first] else None,
        )
        for m in measured[first]
        if base(m) in DIRECTION
    }


def _check_same_target(name: str, targets: Mapping[str, Sequence[Any]]) -> None:
    """Raises UserError unless all versions predict the same; `targets`: version -> task, label and what belongs to them."""
    if len(set(map(repr, targets.values()))) > 1:
        listed = "; ".join(f"version {v} predicts {label} ({task})" for v, (task, label, *_) in targets.items())
        raise UserError(
            f"{name}: {listed}, perhaps with different classes, quantiles, groups or shapes; they cannot be compared on the "
            "same rows."
        )


def _check_measurable(name: str, info: BundleInfo, own: Path | None) -> None:
    if TASKS[info.task].own_shape and own is None:
        raise UserError(
            f"--data: {name} is a {info.task} task, measured by the file of evaluation.metrics, which is no part of the model; "
            "give the file by --metrics FILE, or leave --data out"
        )


def _with_listed(known: pd.DataFrame, info: BundleInfo, separator: str, data: Path) -> pd.DataFrame:
    """Returns the rows with a column of 0 and 1 for each class that the label column lists."""
    import pyarrow as pa

    from switchyard.components.ingest.bad_rows import BadRows
    from switchyard.components.ingest.class_lists import class_lists, expanded

    bad = BadRows(0)
    column = pa.RecordBatch.from_arrays([pa.array(known[info.label].tolist())], names=[info.label])
    ones, others = expanded(
        class_lists(column, info.label, separator, (), str(data), bad, known.index.tolist()), info.label, info.targets
    )
    if bad.count:
        raise UserError(f"--data: {bad.first(1).strip()}; correct it")
    if others:
        raise UserError(f"{data}: {info.label} holds {in_a_line(others[:5])}; the models' classes are {in_a_line(info.targets)}.")
    return known.assign(**{n: c.to_numpy() for n, c in zip(ones.schema.names, ones.columns, strict=True)})


def _labelled(frame: pd.DataFrame, info: BundleInfo, summary: DatasetSummary, data: Path) -> pd.DataFrame:
    """Returns the rows with every label, and with the group of a ranking."""
    from switchyard.components.ingest.class_lists import lists_classes

    group, lists = summary.group, lists_classes(info.task, info.label, info.targets)
    needed = [*([info.label] if lists else info.labels), *([group] if group else [])]
    for label in needed:
        if label not in frame:
            what = "group" if label == group else "label"
            raise UserError(f"{data}: has no column {label!r}, the {what}. Columns: {in_a_line(frame.columns)}.")
    known = frame[frame[needed].notna().all(axis=1)]
    if known.empty and needed:
        raise UserError(f"{data}: no row has a value of {info.label!r}, the label. Give rows whose outcome is known.")
    return _with_listed(known, info, summary.label_separator, data) if lists else known


def _check_choice(weight: str, frame: pd.DataFrame, info: BundleInfo, data: Path) -> None:
    if info.task == RANKING:
        raise UserError("--sample-weight: a ranking is measured by query, not by row; remove it")
    if weight in info.labels:
        raise UserError(f"--sample-weight: the column {weight!r} is the label; name another column")
    if weight not in frame:
        raise UserError(
            f"--sample-weight: {data} has no column {weight!r}.{did_you_mean(weight, frame.columns)} "
            f"Columns: {in_a_line(frame.columns)}."
        )


def _weights(column: pd.Series, name: str, data: Path) -> np.ndarray:
    """Returns the sample weights of the rows, float64 (B,)."""
    import numpy as np
    import pandas as pd

    weights = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    if not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
        raise UserError(
            f"{data}: {name}, the sample weights, must be finite numbers of 0 or more, not all 0; correct them, or use "
            "--sample-weight '' to weigh all rows the same"
        )
    return weights


def _existing(value: float) -> float | None:
    return None if math.isnan(value) else value


def _check_same_windows(forecasts: Mapping[str, pd.DataFrame]) -> None:
    """Raises UserError unless the windows of all versions have the same labels, row by row; `forecasts`: version -> labels."""
    first, *others = forecasts.values()
    if not all(len(first) == len(other) and (first.to_numpy() == other.to_numpy()).all() for other in others):
        counts = " and ".join(f"{len(labels):,}" for labels in forecasts.values())
        raise UserError(
            f"--data: versions {' and '.join(forecasts)} read different windows ({counts} of them), as their "
            "data.windows or columns differ; compare versions with the same data.windows"
        )


def _read_rows(data: Path, summary: DatasetSummary, info: BundleInfo, weight: str) -> tuple[pd.DataFrame, int]:
    """Reads rows in the same way as the model's training data; returns them, and the number of windows left out.

    Columns that the model does not need may hold any values.
    """
    import pandas as pd

    from switchyard.components.ingest.bad_rows import BadRows
    from switchyard.components.ingest.csv_options import CsvOptions
    from switchyard.components.ingest.declared import plain_numbers
    from switchyard.components.ingest.images import in_parts, with_images
    from switchyard.components.ingest.readers import reader
    from switchyard.components.ingest.sources import find_files, format_of

    if summary.windows is not None:
        return _read_windows(data, summary)
    options = CsvOptions.of(summary.csv)
    numbers = {f.name for f in info.features if f.dtype != "string"} | {*info.labels, weight}
    needed = {*(f.name for f in info.features), *info.labels, info.label, weight, summary.group, summary.split_key}
    frames = []
    for file in find_files([str(data)], "--data"):
        kind = format_of(file, "auto")
        read = reader(kind, options, lambda name: name in needed)
        with closing(read(file, BadRows(0), summary.missing_values)) as batches:
            parts = (with_images(b, summary.images, file) for b in in_parts(batches, summary.images))
            plain = (plain_numbers(b, numbers, options) if kind == "csv" else b for b in parts)
            frames += [b.to_pandas(integer_object_nulls=True) for b in plain]
    if not frames:
        raise StageError(f"{data}: no rows.")
    return pd.concat(frames, ignore_index=True), 0


def _read_windows(data: Path, summary: DatasetSummary) -> tuple[pd.DataFrame, int]:
    """Returns the windows of a long table whose labels are known, indexed by their order, and the number of the others."""
    import pandas as pd

    from switchyard.components.ingest.sources import find_files, format_of
    from switchyard.components.prediction.windows import write_labelled_windows

    kinds = {file: format_of(file, "auto") for file in find_files([str(data)], "--data")}
    with tempfile.TemporaryDirectory(prefix="switchyard-windows-") as folder:
        path = Path(folder) / "windows.parquet"
        order, left_out = write_labelled_windows(summary, kinds, path)
        return pd.read_parquet(path).set_axis(order), left_out


def _encoded(frame: pd.DataFrame, info: BundleInfo, classes: Sequence[Any], summary: DatasetSummary, data: Path) -> np.ndarray:
    """Returns the labels of rows, see `bootstrap.Rows`. Raises UserError for values that are no label of the models."""
    import numpy as np
    import pyarrow as pa

    from switchyard.components.evaluation.ranking import query_codes
    from switchyard.components.ingest.labels import ZERO_OR_ONE, zero_or_one

    if TASKS[info.task].own_shape:
        return custom_labels(frame, info.labels, summary.label_shape, data)
    kept = ZERO_OR_ONE if zero_or_one(info.task) else classes
    each = [_labels(frame[label], kept) for label in info.labels]
    for label, values in zip(info.labels, each, strict=True):
        if np.isnan(values).any():
            unknown = sorted({str(v) for v in frame[label][np.isnan(values)]})[:5]
            known = f"the models' classes are {in_a_line(kept)}" if kept else "the models predict numbers"
            raise UserError(f"{data}: {label} holds {in_a_line(unknown)}; {known}.")
    if summary.group:
        each.append(query_codes(pa.array(frame[summary.group].tolist())))
    return np.stack(each, axis=1) if len(each) > 1 else each[0]


def _labels(column: pd.Series, classes: Sequence[Any]) -> np.ndarray:
    """Returns class indices, or the values of a regression, float64 (B,); NaN for values that are no class or no number."""
    import numpy as np
    import pandas as pd

    from switchyard.components.ingest.labels import class_of

    if not classes:
        return pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    index = {c: float(i) for i, c in enumerate(classes)}
    found = (class_of(v.item() if isinstance(v, np.generic) else v, classes, untyped=True) for v in column)
    return np.asarray([np.nan if c is None else index[c] for c in found])
