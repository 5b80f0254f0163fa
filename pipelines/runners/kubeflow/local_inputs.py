"""Local files that a pipeline reads."""

from __future__ import annotations

from pathlib import Path

from switchyard.components.ingest.images import image_files
from switchyard.components.ingest.layout import fixed_part
from switchyard.components.ingest.sources import find_files, is_local
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.stage_settings import input_spec


def local_inputs(config: PipelineConfig) -> list[tuple[str, Path, list[Path]]]:
    """Returns the local files that a pipeline reads, as tuples of `config key: pattern`, folder and files.

    The folder is the fixed part of the pattern: the path between it and a file may encode columns. Files on a mounted claim or in
    an object store are excluded.

    Raises:
        UserError: a pattern matches nothing.
    """
    named = [("data.path", p) for p in config.data.path]
    named += [(f"data.splits.{k}", p) for k, paths in (config.data.split_paths or {}).items() for p in paths]
    if config.validation.serving_sample:
        named.append(("validation.serving_sample", config.validation.serving_sample))
    resources = (config.kubeflow.defaults, config.kubeflow.stages.get("ingest"))
    mounted = tuple(v.path.rstrip("/") + "/" for s in resources if s for v in s.volumes)
    return [
        (f"{key}: {pattern}", _folder(pattern), [Path(f) for f in _with_images(config, find_files([pattern], key))])
        for key, pattern in named
        if is_local(pattern) and not pattern.startswith(mounted or ("\0",))
    ]


def _with_images(config: PipelineConfig, files: list[str]) -> list[str]:
    return [*files, *image_files(input_spec(config), files)]


def _folder(pattern: str) -> Path:
    return Path(pattern).parent if Path(pattern).is_file() else Path(fixed_part(pattern))
