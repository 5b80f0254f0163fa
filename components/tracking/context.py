"""The context of a process in a pipeline run: MLflow's address and runs, the stage, folders that outlive the process.

Only this module reads and writes the environment variables that carry it. A local runner passes a stage its context in memory
and sets the variables in the stage's process too: MLflow reads some of them, and the stage's child processes read the others.
A pod has only the variables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from switchyard.components.process import variables
from switchyard.components.text.redaction import TRACKING_URI, tracking_variables

_VARIABLES = {
    "tracking_uri": TRACKING_URI,
    "experiment_id": "MLFLOW_EXPERIMENT_ID",
    "run_id": "MLFLOW_RUN_ID",
    "parent_run_id": variables.PARENT_RUN_ID,
    "stage": variables.STAGE,
    "journal": variables.JOURNAL,
    "state": variables.STATE,
    "kfp_run_id": "KFP_RUN_ID",
    "record": variables.RECORD,
    "last_stages": variables.LAST_STAGES,
    "data_root": variables.DATA_ROOT,
    "files": variables.FILES,
    "stages": variables.STAGES,
}


@dataclass(frozen=True)
class RunContext:
    """The context of a process in a pipeline run; unknown values are empty.

    Attributes:
        tracking_uri: MLflow's address.
        experiment_id: experiment of the runs.
        run_id: MLflow run of the stage.
        parent_run_id: MLflow run of the pipeline.
        stage: name of the stage.
        journal: folder for records that cannot be sent to MLflow; set by local runners only.
        state: folder for checkpoints; outlives the process.
        kfp_run_id: run id of KFP, in a pod.
        record: JSON of the `RunRecord`, compressed if long (`carried_files.packed`), set when neither KFP nor `submit` created
            the parent run: complete in the first tasks that are certain to run; in the others only enough to find the run.
        last_stages: comma-separated stages without successors.
        data_root: folder for examples that bypasses KFP's launcher and its copies.
        files: folder in MLflow's artifact store of the files that were uploaded with the pipeline, see `uploaded_files`.
        stages: for a task with several stages, JSON of stage -> context, see `together`.
    """

    tracking_uri: str = ""
    experiment_id: str = ""
    run_id: str = ""
    parent_run_id: str = ""
    stage: str = ""
    journal: str = ""
    state: str = ""
    kfp_run_id: str = ""
    record: str = ""
    last_stages: str = ""
    data_root: str = ""
    files: str = ""
    stages: str = ""

    @classmethod
    def current(cls) -> RunContext:
        """Returns this process's context."""
        return cls.of(os.environ)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> RunContext:
        """Returns the context of a process with these environment variables."""
        return cls(**{field: environment.get(name, "") for field, name in _VARIABLES.items()})

    @classmethod
    def together(cls, stages: Mapping[str, RunContext]) -> RunContext:
        """Returns the context of a task with several stages, see `of_stage`."""
        return cls(stages=json.dumps({stage: asdict(context) for stage, context in stages.items()}))

    def of_stage(self, stage: str) -> RunContext:
        """Returns the context of one of several stages: its own values where set, else the task's."""
        own = json.loads(self.stages or "{}").get(stage, {})
        return replace(self, **{field: value for field, value in own.items() if value})

    def variables(self) -> dict[str, str]:
        """Returns the environment variables that carry this context."""
        return {name: value for field, name in _VARIABLES.items() if (value := getattr(self, field))}

    def for_child(self) -> dict[str, str]:
        """Returns the environment variables for a child process, including the tracking server's credentials."""
        return {**tracking_variables(), **self.variables()}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Sets the process's environment variables to this context within the block."""
        before = {name: os.environ.get(name) for name in _VARIABLES.values()}
        _set({name: getattr(self, field) or None for field, name in _VARIABLES.items()})
        try:
            yield
        finally:
            _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
