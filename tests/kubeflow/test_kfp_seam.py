"""What runs the tasks of KFP's local runner, where KFP has no place for it."""

import pytest
from kfp.local import docker_task_handler, status, subprocess_task_handler
from kfp.local.orchestrator import task_executor

from switchyard.components.compat.kfp_local import tasks_run_by

pytestmark = pytest.mark.core


class Recorder:
    def __init__(self):
        self.seen = []

    def started(self, task):
        self.seen.append(("started", task))

    def ended(self, task, outputs, *, succeeded):
        self.seen.append(("ended", task, outputs, succeeded))

    def run_command(self, command, environment, image, volumes):
        self.seen.append(("run", list(command), dict(environment), image, dict(volumes)))
        return 7


@pytest.mark.parametrize(("found", "succeeded"), [(status.Status.SUCCESS, True), (status.Status.FAILURE, False)])
def test_a_task_is_reported_and_run_outside_kfp_and_kfp_is_restored(monkeypatch, found, succeeded):
    monkeypatch.setattr(task_executor, "execute_single_task", lambda **given: ({"a": 1}, found))
    modules = (task_executor, subprocess_task_handler, docker_task_handler)
    functions = ("execute_single_task", "run_local_subprocess", "run_docker_container")
    before = [getattr(m, f) for m, f in zip(modules, functions, strict=True)]
    recorder = Recorder()
    with tasks_run_by(recorder, *modules):
        assert task_executor.execute_single_task(task_name="x") == ({"a": 1}, found)
        assert subprocess_task_handler.run_local_subprocess(["sh"], {"A": "1"}) == 7
        assert docker_task_handler.run_docker_container(None, "image", ["sh"], {"v": {}}, environment={"B": "2"}) == 7
    assert recorder.seen == [
        ("started", "x"),
        ("ended", "x", {"a": 1}, succeeded),
        ("run", ["sh"], {"A": "1"}, "", {}),
        ("run", ["sh"], {"B": "2"}, "image", {"v": {}}),
    ]
    assert [getattr(m, f) for m, f in zip(modules, functions, strict=True)] == before
