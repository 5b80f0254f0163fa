"""The registry stage as a TFX component. It is cheap, and what it does lies outside of the workspace: run it uncached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from components import tracking
from components.evaluation.results import Evaluation
from components.progress import say, warn

FILE = "registration.json"


class Executor(base_executor.BaseExecutor):
    """`model` and `evaluation` in; `registration` out."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class."""
        name = exec_properties["model_name"]
        model = artifact_utils.get_single_instance(input_dict["model"])
        evaluation = Evaluation.load(artifact_utils.get_single_uri(input_dict["evaluation"]))
        run = tracking.ambient(parent=True)
        framework = model.get_string_custom_property("framework")
        version = run.register(
            {
                "name": name,
                "bundle": str(Path(model.uri) / "Format-Serving"),
                "uri": model.uri,
                "blessed": evaluation.blessed,
                "tags": {"framework": framework},
                "description": f"{framework}, " + ", ".join(f"{k} {v:.4g}" for k, v in evaluation.metrics.items()),
            }
        )
        status = "not blessed" if not evaluation.blessed else "put off" if version is None else "champion"
        if status == "put off":
            warn(f"{name} could not be registered now; `switchyard upload` does it")
        say({"champion": f"{name} version {version} is champion", "not blessed": "recorded, not promoted"}.get(status, status))
        tracking.ambient().tags({"registration": status, "model_version": version or ""})
        folder = Path(artifact_utils.get_single_uri(output_dict["registration"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps({"name": name, "version": version, "status": status}), encoding="utf-8")


class RegistrySpec(types.ComponentSpec):
    """`model_name`: name in the registry."""

    PARAMETERS = {"model_name": ExecutionParameter(type=str)}
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
    }
    OUTPUTS = {"registration": ChannelParameter(type=standard_artifacts.PushedModel)}


class Register(base_component.BaseComponent):
    """Records the model with MLflow; a blessed one gets the alias `champion`.

    Outputs:
        registration: `registration.json` with name, version and status (champion, not blessed, put off).
    """

    SPEC_CLASS = RegistrySpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, model: types.BaseChannel, evaluation: types.BaseChannel, model_name: str) -> None:
        super().__init__(
            RegistrySpec(
                model_name=model_name,
                model=model,
                evaluation=evaluation,
                registration=types.Channel(standard_artifacts.PushedModel),
            )
        )
