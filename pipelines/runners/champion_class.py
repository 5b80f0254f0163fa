"""The positive class of the champion of now: a run without the key `positive_class` keeps it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from components import tracking
from components.model_registry import champions_positive_class
from pipelines.config import PipelineConfig
from pipelines.runners.run_tracker import tracking_uri
from pipelines.runners.workspace import Workspace

_log = logging.getLogger(__name__)


def champions_class(config: PipelineConfig, workspace: Workspace) -> Callable[[], str | None]:
    """Returns a function that asks the registry; None: there is no champion of two classes, or the registry is away.

    A champion with the other class is compared all the same: its probabilities are turned.
    """

    def ask() -> str | None:
        uri = tracking_uri(config, workspace)
        if uri == workspace.mlflow_uri and not workspace.mlflow_database.exists():
            return None
        try:
            return champions_positive_class(tracking.client(uri), config.model_name)
        except Exception as error:  # MLflow raises what its many stores raise
            _log.warning("MLflow: %s", error)
            return None

    return ask
