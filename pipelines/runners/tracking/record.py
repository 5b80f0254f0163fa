"""What the parent MLflow run of a pipeline run holds from its start, whichever runner makes it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from switchyard.components.tracking.model_registry import user_name
from switchyard.pipelines.config.pipeline import PipelineConfig

_PACKAGES = ("tfx", "apache-beam", "tensorflow", "torch", "lightning", "keras", "kfp", "mlflow", "numpy", "pyarrow")
# What the runs of stages have of their parent's tags.
NESTED_TAGS = ("switchyard.pipeline", "mlflow.user")


@dataclass(frozen=True)
class RunRecord:
    """Name, experiment, tags, parameters, and texts by the name of their artifact."""

    name: str
    experiment: str
    tags: dict[str, str]
    params: dict[str, Any]
    texts: dict[str, str]

    def to_json(self) -> str:
        """Returns the record as tasks on a cluster are given it."""
        return json.dumps(asdict(self), sort_keys=True)

    def short_json(self) -> str:
        """Returns what a task needs that is not the first: where the run is, or how it is named if it must be made."""
        tags = {k: v for k, v in self.tags.items() if k in NESTED_TAGS}
        return json.dumps({"name": self.name, "experiment": self.experiment, "tags": tags}, sort_keys=True)


def run_record(config: PipelineConfig, trainer: str, source: Path | None) -> RunRecord:
    """Returns the record of a run.

    Args:
        config: resolved.
        trainer: names of the trainers.
        source: the YAML.
    """
    hyper = config.trainer.hyperparameters.model_dump(mode="json")
    if config.tune:
        # Each trainer's own, once they are found: see the stages' runs.
        hyper = {k: v for k, v in hyper.items() if k not in config.tune.space}
    return RunRecord(
        name=f"{config.name} {trainer}",
        experiment=config.experiment,
        tags={
            "mlflow.source.name": str(source or "switchyard run"),
            "mlflow.source.type": "LOCAL",
            "mlflow.user": user_name(),
            "switchyard.version": metadata.version("switchyard"),
            "switchyard.pipeline": config.name,
            "switchyard.trainer": trainer,
            **_git(source.parent if source else Path.cwd()),
        },
        params={"trainer": trainer, "label": config.label, "task": config.task, **_flat(hyper)},
        texts={
            "config/pipeline.yaml": config.public_yaml(),
            "config/versions.txt": "\n".join(versions()) + "\n",
        },
    )


def versions() -> list[str]:
    """Returns `name==version` of the packages that a result depends on."""
    return [f"{p}=={metadata.version(p)}" for p in _PACKAGES]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def _git(folder: Path) -> dict[str, str]:
    def ask(*command: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = ask("rev-parse", "HEAD")
        changed = "yes" if commit and ask("status", "--porcelain", "--untracked-files=no") else "no"
    except FileNotFoundError:
        return {}
    return {"mlflow.source.git.commit": commit, "switchyard.git.uncommitted_changes": changed} if commit else {}
