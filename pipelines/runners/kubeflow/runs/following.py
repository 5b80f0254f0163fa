"""Follows a Kubeflow run: polls the state of its stages and retries it when a pod was evicted, drained or deleted."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from switchyard.components.errors import StageError, UserError
from switchyard.pipelines.runners.kubeflow.cluster.client import KubeflowClient, NoSuchRunError
from switchyard.pipelines.runners.kubeflow.cluster.run import TERMINAL, Run
from switchyard.pipelines.runners.kubeflow.cluster.workflow import StageState, Workflow
from switchyard.pipelines.runners.kubeflow.compiler.plan import stages_of
from switchyard.pipelines.runners.kubeflow.runs.states import not_run, shown_states
from switchyard.pipelines.terminal.progress import Display

_SHOWN = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "ran",
    "SKIPPED": "cached",
    "FAILED": "failed",
    "CANCELED": "cancelled",
    "CANCELING": "running",
    "PAUSED": "waiting",
    "NOT_RUN": "not run",
}
# How long v2beta1 may return an unchanged state before the Workflow itself is read, so that a reason is shown within 30 s.
_STILL_SECONDS = 20.0
# How long KFP may still show a retried run as failed.
_REVIVED_SECONDS = 60.0
_MISSES = 10
# Kubernetes' messages on a pod that cannot start without intervention.
_STUCK = re.compile(r"ImagePull|ErrImage|InvalidImageName|Unschedulable|ConfigError|exceeded quota|forbidden", re.I)


@dataclass(frozen=True)
class Following:
    """Settings for following a run.

    Attributes:
        poll: seconds between polls.
        heal: how many times a run whose pods were lost (an eviction, a drained node) is retried.
        still: seconds for which v2beta1 may return the state of an unfinished stage unchanged before the Workflow itself is read.
        stuck: seconds for which a pod may be unable to start (image, secret, no node) before following ends.
    """

    poll: float = 5.0
    heal: int = 2
    still: float = _STILL_SECONDS
    stuck: float = 600.0


def follow(
    client: KubeflowClient, run_id: str, tasks: Mapping[str, str], stages: Collection[str], display: Display, how: Following
) -> tuple[Run, dict[str, StageState]]:
    """Displays a run's stages until it ends; returns the run and stage -> final state. Tolerates short outages of the server.

    Args:
        client: client of the KFP.
        run_id: id of the run.
        tasks: name of the KFP task -> stage.
        stages: all stages, in order.
        display: shows the stages.
        how: see Following.

    Raises:
        UserError: the server stays unreachable.
        StageError: a stage cannot start.
        KeyboardInterrupt: the user stops following; the run continues.
    """
    with display:
        display.stages(stages)
        try:
            return _Follower(client, run_id, tasks, display, how).follow()
        except KeyboardInterrupt:
            display.say("submit", f"warning: the run continues; stop it with switchyard runs terminate {run_id}")
            raise


class _Follower:
    def __init__(self, client: KubeflowClient, run_id: str, tasks: Mapping[str, str], display: Display, how: Following) -> None:
        self._client, self._run_id, self._tasks, self._display, self._how = client, run_id, tasks, display, how
        self._shown: dict[str, StageState] = {}
        self._since: dict[str, float] = {}
        self._stuck: dict[str, float] = {}
        # Stage -> when v2beta1 last changed its state; when it changed any state; when the Workflow was read.
        self._changed: dict[str, float] = {}
        self._any_change = self._read = time.monotonic()
        self._revived = 0.0
        self._ended: object = None
        self._seen: dict[str, StageState] = {}
        self._frozen = False
        self._left, self._refused = how.heal, 0

    def follow(self) -> tuple[Run, dict[str, StageState]]:
        while True:
            run = self._poll()
            if run.state in TERMINAL:
                # The Workflow has more detail on the end than v2beta1, which may also lag behind.
                workflow = self._workflow()
                self._show(workflow.stages(self._tasks) if workflow else shown_states(run, self._tasks))
                if not self._heal(run):
                    # v2beta1 may lag behind; the Workflow has every stage that has started.
                    if workflow and workflow.nodes:
                        self._show(not_run(self._tasks, self._shown))
                    failed = any(s.state == "FAILED" for s in self._shown.values())
                    why = workflow.error if workflow and run.state == "FAILED" and not failed else ""
                    return replace(run, error=run.error or why), self._shown
            else:
                self._show(self._states(run))
                self._check_stuck()
            time.sleep(self._how.poll)

    def _poll(self) -> Run:
        for left in range(_MISSES - 1, -1, -1):
            try:
                return self._client.run(self._run_id)
            except NoSuchRunError:
                raise UserError(f"run {self._run_id} was deleted while it was followed; its outcome is unknown.") from None
            except (UserError, StageError) as error:
                if not left:
                    again = f"The run continues; see switchyard runs show {self._run_id}."
                    raise UserError(f"{error} {again}") from None
                self._display.say("submit", f"warning: {error} Trying again.")
                time.sleep(self._how.poll)
        raise AssertionError

    def _states(self, run: Run) -> dict[str, StageState]:
        found = shown_states(run, self._tasks)
        # Only the Workflow tells which stage of a joint task failed.
        unsaid = any(s.shared and s.state == "FAILED" and not s.failed for s in found.values())
        if self._frozen or unsaid or self._still(found) > self._how.still:
            workflow = self._workflow()
            if workflow is not None:
                self._frozen = self._frozen or workflow.compressed
                self._read = time.monotonic()
                return workflow.stages(self._tasks)
        # v2beta1 may lag behind and has no messages: it never reverts a state read from the Workflow.
        return {stage: s for stage, s in found.items() if self._newer(s, self._shown.get(stage))}

    def _still(self, found: dict[str, StageState]) -> float:
        """Returns for how many seconds v2beta1 has returned an unfinished stage unchanged, since the Workflow was last read."""
        now = time.monotonic()
        changed = [stage for stage, state in found.items() if state != self._seen.get(stage)]
        self._changed |= dict.fromkeys(changed, now)
        if found != self._seen:
            self._seen, self._any_change = found, now
        unfinished = [self._changed[stage] for stage, state in found.items() if state.state not in TERMINAL]
        return now - max(self._read, min([self._any_change, *unfinished]))

    @staticmethod
    def _newer(found: StageState, shown: StageState | None) -> bool:
        if shown is not None and shown.state == "PENDING" and shown.message and found.state not in TERMINAL:
            return False  # for v2beta1 a task whose pod waits is running
        return shown is None or (found.state != shown.state and (shown.state not in TERMINAL or found.state in TERMINAL))

    def _show(self, states: Mapping[str, StageState]) -> None:
        for stage, found in states.items():
            before = self._shown.get(stage)
            self._shown[stage] = found
            if before is None or before.state != found.state:
                self._since.setdefault(stage, time.monotonic())
                seconds = None
                if found.state in TERMINAL and not found.shared:
                    seconds = found.seconds if found.seconds is not None else time.monotonic() - self._since[stage]
                self._display.status(stage, _SHOWN.get(found.state, "running"), seconds)
            if found.message and (before is None or before.message != found.message):
                self._display.say(stage, f"warning: {found.message}")

    def _check_stuck(self) -> None:
        """Raises StageError for a stage that has been unable to start for too long."""
        now = time.monotonic()
        waiting = {s: f.message for s, f in self._shown.items() if f.state == "PENDING" and _STUCK.search(f.message)}
        self._stuck = {stage: self._stuck.get(stage, now) for stage in waiting}
        for stage, since in self._stuck.items():
            if now - since > self._how.stuck:
                raise StageError(
                    f"{stage} has been unable to start for {now - since:.0f} s: {waiting[stage]}. Fix it and the run "
                    f"resumes by itself; stop it with switchyard runs terminate {self._run_id}."
                )

    def _heal(self, run: Run) -> bool:
        """Retries a run whose pods were lost; returns whether to keep following it."""
        ended = run.end
        if ended == self._ended and time.monotonic() - self._revived < _REVIVED_SECONDS:
            return True  # KFP shows the previous end until the retry starts
        if not self._left or run.state != "FAILED":
            return False
        try:
            workflow = self._client.workflow(self._run_id)
            lost = workflow.only_lost() if workflow else []
            if not lost:
                return False
            self._client.retry(self._run_id)
        except (UserError, StageError) as error:
            # Temporarily unreachable; or the server has just restarted and does not treat the run as failed.
            self._refused += 1
            self._display.say("submit", f"warning: {error}")
            return self._refused < _MISSES
        self._left -= 1
        self._ended, self._revived = ended, time.monotonic()
        names = ", ".join(stage for task in lost for stage in stages_of(self._tasks.get(task, task)))
        self._display.say("submit", f"warning: the pod of {names} was evicted or deleted; retrying")
        self._shown.clear()
        return True

    def _workflow(self) -> Workflow | None:
        try:
            return self._client.workflow(self._run_id)
        except (UserError, StageError):
            return None  # unreachable; the next poll warns if this lasts
