"""Reads and follows the logs of a run's pods, from whichever of KFP's sources has them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from difflib import SequenceMatcher

from switchyard.components.errors import StageError, UserError
from switchyard.components.progress import warn
from switchyard.pipelines.runners.kubeflow.cluster.client import KubeflowClient, NoSuchRunError
from switchyard.pipelines.runners.kubeflow.cluster.run import TERMINAL, Run
from switchyard.pipelines.runners.kubeflow.cluster.workflow import Node, Workflow

_POLL_SECONDS = 2.0
# Consecutive failed polls tolerated while following a log.
_MISSES = 10
# Lines printed last that another log of the same pod is compared with.
_COMPARED = 2000


def log_of(client: KubeflowClient, run_id: str, workflow: Workflow, node: Node) -> str | None:
    """Returns a pod's log, or None.

    KFP's API has those of finished pods of runs that Argo did not compress, its page those of pods that exist, and the store
    those that KFP's launcher wrote when the stage ended, also once the pod is deleted.
    """
    text = client.log_of_node(run_id, node.id) if node.finished and not workflow.compressed else None
    if text is None:
        text = client.log_of_pod(run_id, workflow.pod_name(node), workflow.namespace)
    if text is None and node.finished and (archived := workflow.archived_log(node)):
        text = client.log_in_store(archived, workflow.namespace)
    return text


def following_log(client: KubeflowClient, run: Run, workflow: Workflow, node: Node, text: str) -> Iterator[str]:
    """Polls, and yields what follows `text`, until the run or the pod ends: KFP itself cannot follow a log."""
    misses = 0
    while run.state not in TERMINAL and not node.finished:
        time.sleep(_POLL_SECONDS)
        try:
            run = client.run(run.run_id)
            workflow = client.workflow(run.run_id) or workflow
            node = workflow.nodes.get(node.id, node)
            found = log_of(client, run.run_id, workflow, node)
        except NoSuchRunError:
            raise
        except (StageError, UserError) as error:
            misses += 1
            if misses == _MISSES:
                raise
            warn(f"{error} Trying again.")
            continue
        misses = 0
        if found is not None:
            yield unread(text, found)
            text = found


def unread(printed: str, found: str) -> str:
    """Returns the lines of `found` that follow those of `printed`.

    The two may be different logs of the same pod: the store's lacks the lines of KFP's launcher, and Kubernetes drops the
    beginning of a long log. Without a common line, all of `found` is returned.
    """
    if found.startswith(printed):
        return found[len(printed) :]
    whole, newline, begun = printed.rpartition("\n")
    before, after = (whole + newline).splitlines(keepends=True)[-_COMPARED:], found.splitlines(keepends=True)
    codes = SequenceMatcher(None, before, after).get_opcodes()
    common = next((i for i, code in enumerate(codes) if code[0] == "equal"), None)
    if common is None:
        return ("\n" if begun else "") + found
    new = "".join(line for tag, _, _, start, end in codes[common:] if tag != "equal" for line in after[start:end])
    if begun:
        # The last line printed is incomplete.
        return new[len(begun) :] if new.startswith(begun) else f"\n{new}"
    return new
