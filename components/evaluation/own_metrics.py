"""The user's metrics: NumPy functions over all rows of the held-out split."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import Rows
from switchyard.components.metrics import METRICS
from switchyard.components.progress import warn
from switchyard.components.tasks import TASKS
from switchyard.components.user_code.loading import blamed, folder_of, load_function

_KEY = "evaluation.metrics"


def own_names(file: str | Path | None) -> list[str]:
    """Returns the names of a file's metrics, its top-level functions without a leading `_`, without importing it.

    Raises:
        UserError: the file has none, or one has the name of a built-in metric.
    """
    if file is None:
        return []
    body = ast.parse(Path(file).read_bytes()).body
    names = [node.name for node in body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    if not names:
        raise UserError(f"{_KEY}: {Path(file).name} has no function; define metric(labels, scores) in it")
    for name in names:
        if name in {metric.name for metric in METRICS}:
            raise UserError(f"{_KEY}: {Path(file).name}: {name!r} is a built-in metric; rename the function")
    return names


def own_metrics(file: str | None, rows: Rows, model: str) -> Mapping[str, float]:
    """Returns the user's metrics of a model; without those that are undefined, NaN or infinite, of which it warns.

    A champion's probability of classes that the data lacks is left out, so that all models have the same outputs. A model with
    predictions that are not finite has no metrics.

    Raises:
        UserError: a function fails, or returns no number.
    """
    task = TASKS[rows.task]
    labels = rows.labels.astype(np.int64) if task.has_classes or task.has_probabilities else rows.labels
    scores = rows.scores[model][:, : min(each.shape[1] for each in rows.scores.values())]
    found: dict[str, float] = {}
    if not np.isfinite(scores).all():
        return found
    for name in own_names(file):
        function = load_function(str(file), name)
        weighted = "weights" in inspect.signature(function).parameters
        if rows.weights is not None and not weighted:
            warn(f"{_KEY}: {name} has no parameter `weights`, so it weighs all rows the same, unlike the other metrics")
        with blamed(f"{_KEY}: {name} failed: ", folder_of(function)):
            value = function(labels.copy(), scores.copy(), **({"weights": rows.each.copy()} if weighted else {}))
        if np.ndim(value) or not np.issubdtype(np.asarray(value).dtype, np.number) or np.iscomplexobj(value):
            raise UserError(f"{_KEY}: {name} must return a number, received {type(value).__name__}")
        if math.isfinite(value):
            found[name] = float(value)
        else:
            warn(f"{_KEY}: {name} of {model} is undefined: the function returned {float(value)}")
    return found
