"""Which files of this machine a pipeline reads."""

from __future__ import annotations

from pathlib import Path

from switchyard.components.ingest.layout import fixed_part
from switchyard.components.ingest.sources import find_files, is_local
from switchyard.pipelines.config.pipeline import PipelineConfig


def local_inputs(config: PipelineConfig) -> list[tuple[str, Path, list[Path]]]:
    """Returns the files of this machine that a pipeline reads, each group with its key in the config and its pattern.

    With them goes the folder that the pattern names: what lies between it and a file may carry columns.

    What lies on a mounted claim is the cluster's; what lies in an object store stays there.

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
        (f"{key}: {pattern}", _folder(pattern), [Path(f) for f in find_files([pattern], key)])
        for key, pattern in named
        if is_local(pattern) and not pattern.startswith(mounted or ("\0",))
    ]


def _folder(pattern: str) -> Path:
    return Path(pattern).parent if Path(pattern).is_file() else Path(fixed_part(pattern))
