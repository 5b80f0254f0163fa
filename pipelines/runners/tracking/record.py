"""Contents of a pipeline run's parent MLflow run at its start, for every runner."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from switchyard.components.text.redaction import mask
from switchyard.components.tracking.keys import key_of
from switchyard.components.tracking.model_registry import user_name
from switchyard.components.training.hooks import OF_OWN_TRAINING, hooks_in, may_train_itself, replaced
from switchyard.components.training.names import COMMON_TO_TREES, TREE_PARAMETER, TREES
from switchyard.components.user_code.loading import split_reference
from switchyard.pipelines.config.pipeline import PipelineConfig

_PACKAGES = (
    "tfx",
    "apache-beam",
    "tensorflow",
    "torch",
    "lightning",
    "keras",
    "transformers",
    "peft",
    "lightgbm",
    "kfp",
    "mlflow",
    "numpy",
    "pyarrow",
)
# Without writing the index, which runs a hook, and without a repository's file monitor.
_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
_RUNS = re.compile(r"filter\..+\.(clean|process)|remote\..+\.promisor|extensions\.partialclone", re.IGNORECASE)
# Keys of one section that are logged one by one; the config's text is an artifact of the run.
_MOST_KEYS = 100
# Tags that the stages' runs copy from their parent.
NESTED_TAGS = ("switchyard.pipeline", "mlflow.user")


@dataclass(frozen=True)
class RunRecord:
    """Name, experiment, tags, parameters and texts (artifact path -> content) of a parent run."""

    name: str
    experiment: str
    tags: dict[str, str]
    params: dict[str, Any]
    texts: dict[str, str]

    def to_json(self) -> str:
        """Returns the record as JSON, as it is passed to tasks on a cluster."""
        return json.dumps(asdict(self), sort_keys=True)

    def short_json(self) -> str:
        """Returns JSON with the name, experiment and nested tags, enough for later tasks to find or create the run."""
        tags = {k: v for k, v in self.tags.items() if k in NESTED_TAGS}
        return json.dumps({"name": self.name, "experiment": self.experiment, "tags": tags}, sort_keys=True)


def run_record(config: PipelineConfig, trainer: str, source: Path | None) -> RunRecord:
    """Returns the record of a run.

    Args:
        config: resolved config.
        trainer: names of the trainers.
        source: path of the YAML.
    """
    given = config.trainer
    hyper = _flat(given.hyperparameters.model_dump(mode="json"))
    if set(given.frameworks) & set(TREES):
        only = set(given.frameworks) <= set(TREES)
        hyper = {k: v for k, v in hyper.items() if not only or k.partition(".")[0] in COMMON_TO_TREES}
        hyper |= _flat(given.trees.model_dump(mode="json"), TREE_PARAMETER)
    if config.tune:
        # Tuned values differ by trainer and are not known yet; they are logged to the stages' runs.
        hyper = {k: v for k, v in hyper.items() if k not in config.tune.space}
    # What every trainer's model file replaces; a stage's run names the function.
    files = [split_reference(m, "")[0] if (m := given.model_file_for(f)) else None for f in given.frameworks]
    dropped = set.intersection(
        *({*replaced(hooks_in(file)), *(OF_OWN_TRAINING if may_train_itself(file) else ())} for file in files)
    )
    # A value that was set although it does not apply is kept: the run is refused for it.
    kept = given.hyperparameters.model_fields_set
    hyper = {k: v for k, v in hyper.items() if k not in dropped or k.partition(".")[0] in kept}
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
        params={**_settings(config), "trainer": trainer, **hyper},
        texts={
            "config/pipeline.yaml": config.public_yaml(),
            "config/versions.txt": "\n".join(versions()) + "\n",
        },
    )


def _settings(config: PipelineConfig) -> dict[str, str]:
    """Returns every value of the config by its key, without the hyperparameters, which have names of their own.

    A section with many keys, such as `data.columns` of a wide table, is one value: their number and a digest.
    """
    values = _shortened(config.model_dump(mode="json", exclude={"trainer": {"hyperparameters", "trees"}}))
    flat = {key_of(key): value for key, value in _flat(values).items()}
    return {key: mask(value if isinstance(value, str) else json.dumps(value)) for key, value in flat.items()}


def _shortened(values: dict[str, Any]) -> Any:
    short = {key: _shortened(value) if isinstance(value, dict) else value for key, value in values.items()}
    if len(short) <= _MOST_KEYS:
        return short
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return f"{len(values):,} keys, sha256 {digest[:16]}"


@functools.cache
def versions() -> list[str]:
    """Returns `name==version` for the packages that affect results."""
    return [f"{p}=={v}" for p in _PACKAGES if (v := _version(p))]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None  # an extra


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def _git(folder: Path) -> dict[str, str]:
    """Returns tags of the folder's commit. The folder may come from someone else: nothing that its repository names is run."""

    def ask(*command: str) -> str:
        done = subprocess.run([*_GIT, "-C", str(folder), *command], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = ask("rev-parse", "HEAD")
        settings = [line.partition("\t") for line in ask("config", "--show-scope", "--name-only", "--list").splitlines()]
        # To compare files, `git status` runs the filters that the repository's own settings name, and may fetch by its remotes.
        runs = not settings or any(scope in ("local", "worktree") and _RUNS.fullmatch(name) for scope, _, name in settings)
        status = () if runs or not commit else ask("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")
    except FileNotFoundError:
        return {}
    changed = "unknown" if status == () else "yes" if status else "no"
    return {"mlflow.source.git.commit": commit, "switchyard.git.uncommitted_changes": changed} if commit else {}
