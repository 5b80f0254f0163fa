"""Rows on which the user's metrics are tried before a run: labels of the data, and scores as a model has before it learns."""

from __future__ import annotations

import numpy as np

from switchyard.components.evaluation.bootstrap import Rows
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.ingest.number_lists import wide_labels
from switchyard.components.ingest.scan import Scan, scan
from switchyard.components.ingest.texts import first_rows
from switchyard.components.ingest.typed import TypedColumns
from switchyard.components.tasks import TASKS

_MODEL = "untrained"
_ROWS = 64
_QUERY = 8
_NO_LIMIT = 2**62


def trial_rows(spec: InputSpec) -> Rows:
    """Returns at least 64 rows of classes, all of which occur, or up to 64 first labels of the data; and a model's scores.

    Scores are probabilities, for quantities labels of other rows, for a custom task between 0 and 1.
    """
    spec = spec.with_folders()
    found = scan(spec, BadRows(_NO_LIMIT), peek=True)
    task = TASKS[found.task]
    random = np.random.default_rng(0)
    labels = _labels(spec, found)
    outputs = task.outputs(found.classes, found.targets, spec.output_shape)
    scores = random.uniform(0.01, 0.99, (len(labels), outputs))
    if task.activation == "softmax":
        scores /= scores.sum(axis=1, keepdims=True)
    elif not (task.has_probabilities or task.own_shape or task.groups):
        scores = np.stack([random.permutation(labels) for _ in range(outputs)], axis=1) if labels.ndim == 1 else labels[::-1]
        scores = np.sort(scores, axis=1) if task.ascending else scores
    return Rows(
        found.task,
        labels,
        {_MODEL: np.asarray(scores, np.float32)},
        targets=found.targets,
        output_shape=spec.output_shape,
        label_shape=found.label_shape,
    )


def _labels(spec: InputSpec, found: Scan) -> np.ndarray:
    """Returns labels as `Rows` has them."""
    task = TASKS[found.task]
    if task.has_classes:
        classes = max(2, len(found.classes))
        return (np.arange(max(_ROWS, 2 * classes)) % classes).astype(np.float64)
    if task.has_probabilities:
        return np.random.default_rng(1).permuted(np.tile([[0.0], [1.0]], (_ROWS // 2, max(1, len(found.targets)))), axis=0)
    batch = TypedColumns(found.types, spec.missing_values or (), (*spec.labels, *spec.images)).convert(first_rows(spec, _ROWS))
    labels = wide_labels(batch, spec.labels)
    if task.groups:
        return np.hstack([labels, np.arange(len(labels))[:, np.newaxis] // _QUERY])
    return labels if task.wide_labels else labels[:, 0]
