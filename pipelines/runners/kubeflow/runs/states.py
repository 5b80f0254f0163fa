"""States of a run's stages, from KFP's v2beta1 API and from the run's Workflow."""

from __future__ import annotations

from collections.abc import Mapping

from switchyard.components.errors import StageError, UserError
from switchyard.pipelines.runners.kubeflow.cluster.client import KubeflowClient
from switchyard.pipelines.runners.kubeflow.cluster.run import TERMINAL, Run
from switchyard.pipelines.runners.kubeflow.cluster.workflow import StageState, Workflow
from switchyard.pipelines.runners.kubeflow.compiler.plan import stage_names, stages_of


def shown_states(run: Run, tasks: Mapping[str, str]) -> dict[str, StageState]:
    """Returns stage -> its state, for the stages that v2beta1 shows as started.

    Args:
        run: the run.
        tasks: name of the KFP task -> stage; for a joint task, its stages separated by commas.
    """
    shown = (run.shown[task].of_each(stage) for task, stage in tasks.items() if task in run.shown)
    return {stage: state for found in shown for stage, state in found.items()}


def not_run(tasks: Mapping[str, str], states: Mapping[str, StageState]) -> dict[str, StageState]:
    """Returns stage -> NOT_RUN, for the stages of an ended run that are not in `states`, those that started.

    Args:
        tasks: see `shown_states`.
        states: states of the stages that started.
    """
    return {s: StageState("NOT_RUN") for task in tasks.values() for s in stages_of(task) if s not in states}


def states_of(client: KubeflowClient, run: Run, workflow: Workflow | None) -> tuple[dict[str, str], dict[str, StageState]]:
    """Returns a run's tasks and their stages' states; of a run that failed or was terminated, also those that never started.

    Args:
        client: client of the KFP.
        run: the run.
        workflow: its Workflow; None if this KFP does not have it.

    Returns:
        stage -> KFP's task, and stage -> state, with KFP's names of stages.
    """
    names = workflow.task_names() if workflow else list(run.begun)
    if workflow and workflow.nodes and run.state in TERMINAL - {"SUCCEEDED"}:
        names = list(dict.fromkeys([*names, *_tasks_of(client, run)]))
    tasks = {n: ",".join(stage_names(n)) for n in names}
    states = workflow.stages(tasks) if workflow else shown_states(run, tasks)
    if workflow and workflow.nodes and run.state in TERMINAL - {"SUCCEEDED"}:
        states |= not_run(tasks, states)
    return {stage: n for n in names for stage in stage_names(n)}, states


def _tasks_of(client: KubeflowClient, run: Run) -> list[str]:
    try:
        spec = client.pipeline_of(run)
    except (UserError, StageError):
        return []  # its pipeline was deleted
    return list(((spec.get("root") or {}).get("dag") or {}).get("tasks") or {})
