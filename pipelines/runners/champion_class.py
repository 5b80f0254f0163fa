"""The positive class of the champion of now: a run without the key `positive_class` keeps it."""

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
    """Returns a function that asks the registry; None: there is no champion of two classes, or the registry is away.

    A champion with the other class is compared all the same: its probabilities are turned.

    Args:
        config: names the registry and the model.
        workspace: has the registry where the config names none.
        say: takes what a person should know when the registry is away; a run's baseline stage says it by itself.
    """

    def ask() -> str | None:
        uri = tracking_uri(config, workspace)
        if uri == workspace.mlflow_uri and not workspace.mlflow_database.exists():
            return None
        try:
            return champions_positive_class(tracking.client(uri), config.model_name)
        except Exception as error:  # MLflow raises what its many stores raise
            _log.info("MLflow", exc_info=True)
            say(
                f"warning: the registry did not name the champion ({first_line(error)}): the rarer class will be the positive "
                "one, even if it is not the champion's; positive_class chooses it"
            )
            return None

    return ask
