"""The warm start stage. It reads MLflow, which is outside the workspace, so it must run uncached.

The cache key of a training holds the version that this stage found.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from switchyard.components.artifacts import CONTENT, StartingPoint
from switchyard.components.bundle.model import bundle_folder, bundle_info, model_folders, training_data
from switchyard.components.bundle.source import ModelRef
from switchyard.components.errors import StageError, UserError, first_line
from switchyard.components.progress import say, warn
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext
from switchyard.components.tracking.mlflow_errors import is_denial, refusal
from switchyard.components.tracking.model_registry import CHAMPION
from switchyard.components.tracking.references import name_and_selector
from switchyard.components.training.names import FRAMEWORKS
from switchyard.components.training.start import WEIGHTS, Origin, check_framework
from switchyard.components.training.vocabularies import FILE as VOCABULARIES


class Executor(base_executor.BaseExecutor):
    """The warm start executor: reads MLflow's registry, writes `starting_point`."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class.

        Raises:
            UserError: the version does not exist, was changed, is another framework's, or holds no weights to start from.
            StageError: the registry is unreachable.
        """
        artifact = artifact_utils.get_single_instance(output_dict["starting_point"])
        folder = Path(artifact.uri)
        folder.mkdir(parents=True, exist_ok=True)
        origin = _fetch(exec_properties["start_from"], exec_properties["model_name"], exec_properties["framework"], folder)
        origin.save(folder)
        # Where it lies, and which runs found it, makes no difference to a training.
        content = json.dumps([origin.name, origin.version, origin.digest]) if origin.version else "fresh"
        artifact.set_string_custom_property(CONTENT, hashlib.sha256(content.encode()).hexdigest())
        tracking.current_run().tags(origin.tags)


def _fetch(reference: str, model_name: str, framework: str, folder: Path) -> Origin:
    """Copies the weights of the selected version to a folder, after the digests of all its files were verified."""
    uri = RunContext.current().tracking_uri
    if not uri:
        raise UserError(
            "trainer.start_from: there is no tracking server to read versions from; set tracking.uri, or leave it out"
        )
    name, selector = name_and_selector(reference) or (model_name, CHAMPION)
    ref = ModelRef(uri, name, selector)
    if reference == CHAMPION and _champion(ref) is None:
        warn(f"{name} has no champion yet: the training starts fresh")
        return Origin(name)
    with ref.open() as opened:
        info = bundle_info(opened.folder)
        inner = opened.folder / "artifacts" / bundle_folder(opened.folder)
        # Of an ensemble, the member of the trainer's framework.
        found = {model.name: place for model, place in zip(info.models, model_folders(inner, info), strict=True)}
        if info.members and framework not in found:
            raise UserError(
                f"trainer.start_from: {name} version {opened.version} is an ensemble of {', '.join(found)}, and the trainer is "
                f"{framework}; give a version of {framework}, or leave it out"
            )
        origin = Origin(
            name=name,
            version=opened.version,
            digest=opened.digest or "",
            framework=framework if info.members else info.framework,
            task=info.task,
            classes=tuple(info.classes),
            targets=tuple(info.targets),
            features=tuple(info.transformed),
        )
        if framework in FRAMEWORKS:  # the name of another trainer is known where it is imported
            check_framework(origin, framework)
        weights = found.get(framework, inner) / "model" / WEIGHTS
        for file in (weights, training_data(opened.folder) / VOCABULARIES):
            if not file.is_file():
                raise UserError(
                    f"trainer.start_from: {origin} holds no {file.name}: an older version made it; train and register it again "
                    "without start_from, or start from a newer version"
                )
            shutil.copyfile(file, folder / file.name)
    say(f"the training starts from {origin}, digest {origin.digest[:16]}")
    return origin


def _champion(ref: ModelRef) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return ref.alias(CHAMPION)
    except MlflowException as error:
        if is_denial(error):
            raise UserError(refusal(ref.uri, error)) from error
        raise StageError(f"the registry is unreachable: {first_line(error)}") from error


class WarmStartSpec(types.ComponentSpec):
    """The component's interface. `start_from`: see `TrainerConfig`; `framework`: the trainer's name."""

    PARAMETERS = {name: ExecutionParameter(type=str) for name in ("start_from", "model_name", "framework")}
    INPUTS: dict[str, Any] = {}
    OUTPUTS = {"starting_point": ChannelParameter(type=StartingPoint)}


class WarmStart(base_component.BaseComponent):
    """A component that fetches the version that a training starts from, at the start of a run.

    Outputs:
        starting_point: `start.json` (`Origin`), and, unless the model has no champion yet, weights and vocabularies.
    """

    SPEC_CLASS = WarmStartSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, start_from: str, model_name: str, framework: str) -> None:
        super().__init__(
            WarmStartSpec(
                start_from=start_from,
                model_name=model_name,
                framework=framework,
                starting_point=types.Channel(StartingPoint),
            )
        )
