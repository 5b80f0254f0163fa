"""The user's metrics: NumPy functions over all rows of the held-out split."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import Rows
from switchyard.components.metrics import METRICS
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
    """Returns the user's metrics of a model.

    Raises:
        UserError: a function fails, or returns no number.
    """
    labels = rows.labels if rows.task == "regression" else rows.labels.astype(np.int64)
    found = {}
    for name in own_names(file):
        function = load_function(str(file), name)
        with blamed(f"{_KEY}: {name} failed: ", folder_of(function)):
            value = function(labels.copy(), rows.scores[model].copy())
        if np.ndim(value) or not np.issubdtype(np.asarray(value).dtype, np.number) or np.iscomplexobj(value):
            raise UserError(f"{_KEY}: {name} must return a number, received {type(value).__name__}")
        found[name] = float(value)
    return found
