"""Tasks that do several stages, from outside: each stage has its own name. The stand-in's tasks do nothing."""

import json

import pytest

from switchyard.components.errors import Failure, UserError
from switchyard.pipelines.commands import runs as runs_command
from switchyard.pipelines.runners.kubeflow.cluster.client import Connection, KubeflowClient
from switchyard.pipelines.runners.kubeflow.runs.following import Following, follow
from switchyard.pipelines.runners.kubeflow.task.failure import last_words
from tests.cluster.kfp_server import stand_in
from tests.cluster.pretending import GIVEN, Told, spec_of

pytestmark = pytest.mark.core
JOINT = "baseline-then-data-gate"
TASKS = {"ingest": "ingest", JOINT: "baseline,data_gate", "training": "training"}
STAGES = ["ingest", "baseline", "data_gate", "training"]


@pytest.fixture
def kfp(tmp_path):
    with stand_in(tmp_path / "kfp") as (server, host):
        yield server, KubeflowClient(Connection(host))


def followed(client):
    run_id = client.submit("one", client.experiment("mine"), {"pipeline_spec": spec_of(tasks=TASKS)}, **GIVEN).run_id
    told = Told()
    _, states = follow(client, run_id, TASKS, STAGES, told, Following(poll=0.02, heal=0))
    return run_id, {stage: (s.state, s.message) for stage, s in states.items()}, told


def shown(client, run_id, capsys):
    capsys.readouterr()
    runs_command.show_run(client.connection, None, run_id, as_json=True)
    return {t["name"]: (t["state"], t["error"]) for t in json.loads(capsys.readouterr().out)["tasks"]}


def test_every_stage_of_a_run_is_followed_and_shown(kfp, capsys):
    _, client = kfp
    run_id, states, told = followed(client)
    assert states == dict.fromkeys(STAGES, ("SUCCEEDED", ""))
    assert {stage for stage, status in told.statuses if status == "ran"} == set(STAGES)
    assert shown(client, run_id, capsys) == {s.replace("_", "-"): ("SUCCEEDED", None) for s in STAGES}


def test_stages_from_the_cache_are_shown_as_cached(kfp):
    server, client = kfp
    server.cached = {JOINT}
    _, _, told = followed(client)
    assert {stage for stage, status in told.statuses if status == "cached"} == {"baseline", "data_gate"}


def test_the_failed_stage_is_named_and_the_stages_before_it_succeeded(kfp, capsys):
    server, client = kfp
    words = last_words(Failure("gate", "the data gate stopped the run"), "data_gate")
    server.faults = {JOINT: [("FAILED", f"main: Error (exit code 1): {words}")]}
    run_id, states, told = followed(client)
    assert states["baseline"] == ("SUCCEEDED", "")
    assert states["data_gate"] == ("FAILED", "the data gate stopped the run")
    assert ("baseline", "failed") not in told.statuses
    assert ("training", "not run") in told.statuses
    assert "data_gate: warning: the data gate stopped the run" in told.said
    assert shown(client, run_id, capsys)["data-gate"] == ("FAILED", "the data gate stopped the run")


def test_a_task_killed_without_a_message_may_have_failed_in_any_of_its_stages(kfp):
    server, client = kfp
    server.faults = {JOINT: [("FAILED", "OOMKilled (exit code 137)")]}
    _, states, _ = followed(client)
    said = "one of baseline, data_gate: OOMKilled (exit code 137)"
    assert states["baseline"] == states["data_gate"] == ("FAILED", said)


@pytest.mark.parametrize("stage", ["data_gate", "data-gate", "baseline", JOINT])
def test_the_log_of_a_stage_is_that_of_its_task(kfp, capsys, stage):
    _, client = kfp
    run_id, _, _ = followed(client)
    capsys.readouterr()
    runs_command.print_logs(client.connection, run_id, stage, follow=False)
    assert capsys.readouterr().out == f"log of {JOINT}\n"


def test_an_unknown_stage_is_named_with_the_existing_ones(kfp):
    _, client = kfp
    run_id, _, _ = followed(client)
    with pytest.raises(UserError, match="its stages: ingest, baseline, data-gate, training"):
        runs_command.print_logs(client.connection, run_id, "evaluation", follow=False)
