"""The files that a pipeline reads: those on this machine, and whether this machine reads the others."""

from __future__ import annotations

from pathlib import Path

from switchyard.components.ingest.images import images_of_input
from switchyard.components.ingest.layout import fixed_part
from switchyard.components.ingest.sources import find_files, is_local
from switchyard.components.ingest.stores import remote_size
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.stage_settings import input_spec


def local_inputs(config: PipelineConfig) -> list[tuple[str, Path, list[Path]]]:
    """Returns the local files that a pipeline reads, as tuples of `config key: pattern`, folder and files.

    The folder is the fixed part of the pattern: the path between it and a file may encode columns. Files on a mounted claim or in
    an object store are excluded.

    Raises:
        UserError: a pattern matches nothing.
    """
    named = [(key, pattern, config.data.format) for key, pattern in _of_ingest(config)]
    if config.validation.serving_sample:
        named.append(("validation.serving_sample", config.validation.serving_sample, "auto"))
    return [
        (f"{key}: {pattern}", _folder(pattern), [Path(f) for f in _with_images(config, find_files([pattern], key), kind)])
        for key, pattern, kind in named
        if is_local(pattern) and not _is_mounted(pattern, config)
    ]


def _with_images(config: PipelineConfig, files: list[str], kind: str) -> list[str]:
    return [*files, *images_of_input(input_spec(config), files, kind)]


def remote_bytes(config: PipelineConfig) -> int | None:
    """Returns the bytes of the training data in object stores.

    None: some of it is on a claim, which only the cluster reads, or has images, whose files would all be looked up from here.

    Raises:
        UserError: an object store cannot be listed from this machine.
    """
    patterns = [p for _, p in _of_ingest(config)]
    if any(is_local(p) and _is_mounted(p, config) for p in patterns):
        return None
    remote = [p for p in patterns if not is_local(p)]
    if remote and input_spec(config).images:
        return None
    return remote_size(remote) if remote else 0


def _of_ingest(config: PipelineConfig) -> list[tuple[str, str]]:
    """Returns the patterns that ingest reads, each after its config key."""
    splits = config.data.split_paths or {}
    return [("data.path", p) for p in config.data.path] + [(f"data.splits.{k}", p) for k, paths in splits.items() for p in paths]


def _is_mounted(path: str, config: PipelineConfig) -> bool:
    resources = (config.kubeflow.defaults, config.kubeflow.stages.get("ingest"))
    mounted = tuple(v.path.rstrip("/") + "/" for s in resources if s for v in s.volumes)
    return path.startswith(mounted or ("\0",))


def _folder(pattern: str) -> Path:
    return Path(pattern).parent if Path(pattern).is_file() else Path(fixed_part(pattern))
