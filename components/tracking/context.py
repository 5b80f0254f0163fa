"""Where a process stands in a pipeline run: MLflow's address and runs, the stage, folders that outlive the process.

The only reader and writer of the variables that carry it. A runner on this machine hands a stage its context in memory; its
process sets the variables too, since MLflow reads some of them, and what the stage starts reads the others. A pod has the
variables alone.
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
    "stages": variables.STAGES,
}


@dataclass(frozen=True)
class RunContext:
    """A process's place in a pipeline run; what is empty is not known.

    Attributes:
        tracking_uri: MLflow's address.
        experiment_id: of the runs.
        run_id: the stage's MLflow run.
        parent_run_id: the pipeline's.
        stage: its name.
        journal: folder for what cannot be sent to MLflow; set by runners on this machine alone.
        state: folder for checkpoints, which outlives the process.
        kfp_run_id: KFP's run, in a pod.
        record: JSON of the `RunRecord`, where neither KFP nor `submit` made the parent run: all of it in the first tasks that are
            sure to run, in the others how the run is found.
        last_stages: those that nothing comes after, with commas between.
        data_root: where examples go, past KFP's launcher and its copies.
        stages: of a task that does several: JSON of stage -> its own context, see `together`.
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
    stages: str = ""

    @classmethod
    def current(cls) -> RunContext:
        """Returns this process's."""
        return cls.of(os.environ)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> RunContext:
        """Returns that of a process with these variables."""
        return cls(**{field: environment.get(name, "") for field, name in _VARIABLES.items()})

    @classmethod
    def together(cls, stages: Mapping[str, RunContext]) -> RunContext:
        """Returns the context of a task that does several stages, see `of_stage`."""
        return cls(stages=json.dumps({stage: asdict(context) for stage, context in stages.items()}))

    def of_stage(self, stage: str) -> RunContext:
        """Returns the context of one of several stages: as the runner said, else the whole task's."""
        own = json.loads(self.stages or "{}").get(stage, {})
        return replace(self, **{field: value for field, value in own.items() if value})

    def variables(self) -> dict[str, str]:
        """Returns the environment variables of a process that stands there."""
        return {name: value for field, name in _VARIABLES.items() if (value := getattr(self, field))}

    def for_child(self) -> dict[str, str]:
        """Returns the same for a process that this one starts, with what lets it in by the tracking server."""
        return {**tracking_variables(), **self.variables()}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Makes this the process's context for what runs inside."""
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
