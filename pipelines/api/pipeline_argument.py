"""The pipeline argument of run, compile and submit: the path of its YAML, its content, or a loaded config."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from switchyard.components.errors import UserError
from switchyard.pipelines.config.data_name import name_of
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.workspace import Workspace, default_workspace

Pipeline = str | os.PathLike[str] | Mapping[str, Any] | PipelineConfig
Overrides = Mapping[str, Any] | Sequence[str]


def load(
    pipeline: Pipeline, overrides: Overrides, trainer: str | Sequence[str] | None, workspace: str | os.PathLike[str] | None
) -> tuple[PipelineConfig, Path | None, Workspace]:
    """Returns the config, its YAML's path (None without one) and the workspace: the one given, or the one beside the YAML.

    Raises:
        UserError: the pipeline is invalid, or overrides are given for a loaded config.
    """
    source: Path | None = None
    values = with_trainer(overrides, trainer)
    if isinstance(pipeline, PipelineConfig):
        if values:
            raise UserError("overrides, trainer: a loaded config has its values; give them to load_config(path, overrides=...).")
        config = pipeline
    elif isinstance(pipeline, Mapping):
        config = load_config(None, document=named(pipeline), overrides=values)
    else:
        source = Path(pipeline)
        config = load_config(source, overrides=values)
    root = Path(workspace) if workspace is not None else default_workspace(source)
    place = Workspace(root.resolve())
    place.contain_libraries()
    return config, source.resolve() if source else None, place


def with_trainer(overrides: Overrides, trainer: str | Sequence[str] | None) -> Overrides:
    """Returns the overrides with the trainers added."""
    if not trainer:
        return overrides
    names = [trainer] if isinstance(trainer, str) else list(trainer)
    if isinstance(overrides, Mapping):
        return {**overrides, "trainer.framework": names[0] if len(names) == 1 else names}
    return [*overrides, f"trainer.framework={names[0] if len(names) == 1 else json.dumps(names)}"]


def named(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a config's content with a name, derived from its data if it has none."""
    data = document.get("data")
    paths = data.get("path") if isinstance(data, Mapping) else None
    paths = [paths] if isinstance(paths, str) else paths
    if "name" in document or not isinstance(paths, list | tuple) or not paths or not all(isinstance(p, str) for p in paths):
        return document  # load_config reports the problem
    return {"name": name_of(paths), **document}
