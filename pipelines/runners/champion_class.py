"""The current champion's positive class, the default of runs whose config does not set `positive_class`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from switchyard.components.errors import first_line
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.model_registry import champions_positive_class
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.runners.tracking.runs import tracking_uri
from switchyard.pipelines.workspace import Workspace

_log = logging.getLogger(__name__)


def champions_class(
    config: PipelineConfig, workspace: Workspace, say: Callable[[str], None] = _log.warning
) -> Callable[[], str | None]:
    """Returns a function that queries the registry; it returns None without a binary champion or with the registry unreachable.

    A champion with the other positive class is still compared: its probabilities are inverted.

    Args:
        config: names the registry and the model.
        workspace: provides the default registry.
        say: receives the warning when the registry is unreachable. A run's baseline stage prints its own.
    """

    def ask() -> str | None:
        uri = tracking_uri(config, workspace)
        if uri == workspace.mlflow_uri and not workspace.mlflow_database.exists():
            return None
        try:
            return champions_positive_class(tracking.client(uri), config.model_name)
        except Exception as error:  # MLflow passes on the exceptions of its store backends
            _log.info("MLflow", exc_info=True)
            say(
                f"warning: the registry did not return the champion ({first_line(error)}): the rarer class becomes the "
                "positive class, which may differ from the champion's; set positive_class to choose it"
            )
            return None

    return ask
