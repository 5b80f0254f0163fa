"""What a real KFP was seen to do (tests/kubeflow/README.md), and what we make of it. The stand-in's tasks do nothing."""

import json
import threading
import time

import pytest

from switchyard.components.errors import Failure, StageError, UserError
from switchyard.pipelines.commands import runs as runs_command
from switchyard.pipelines.runners.kubeflow.cluster.schedules import Schedule, Schedules, schedule_workflow
from switchyard.pipelines.runners.kubeflow.compiler.compile import CompiledForKubeflow
from switchyard.pipelines.runners.kubeflow.runs import logs
from switchyard.pipelines.runners.kubeflow.runs.following import Following, follow
from switchyard.pipelines.runners.kubeflow.task.failure import last_words
from tests.cluster.kfp_run import LAUNCHER
from tests.cluster.pretending import GIVEN, TASKS, Told, spec_of, submitted

pytestmark = pytest.mark.core


def followed(client, run_id, **how):
    told = Told()
    run, states = follow(client, run_id, TASKS, list(TASKS.values()), told, Following(**{"poll": 0.02, "heal": 0, **how}))
    return run, {stage: s.state for stage, s in states.items()}, told


def ended(client, run_id):
    return followed(client, run_id)[0]


# Following


@pytest.mark.parametrize("retries", [0, 1])
def test_a_run_is_followed_to_its_end(kfp, retries):
    _, client = kfp
    run, states, _ = followed(client, submitted(client, retries=retries))
    assert (run.state, states) == ("SUCCEEDED", dict.fromkeys(TASKS.values(), "SUCCEEDED"))


def test_following_works_with_compressed_states_and_a_frozen_v2beta1(kfp):
    server, client = kfp
    server.compresses, server.seconds = True, 0.3
    run, states, told = followed(client, submitted(client), still=0.1)
    assert "training" not in run.shown, "v2beta1 never shows it"
    assert states == dict.fromkeys(TASKS.values(), "SUCCEEDED")
    assert ("training", "running") in told.statuses, "progress is shown while it runs, not at the end alone"


def test_the_last_states_are_right_though_v2beta1_still_shows_tasks_that_run(kfp):
    server, client = kfp
    server.lag = 5.0
    run, states, told = followed(client, submitted(client))
    assert (run.state, run.shown.get("training")) == ("SUCCEEDED", None)
    assert states == dict.fromkeys(TASKS.values(), "SUCCEEDED")
    assert [stage for stage, status in told.statuses if status == "ran"] == list(TASKS.values())


def test_a_task_that_v2beta1_shows_as_running_in_a_run_that_has_succeeded_has_ended(kfp, capsys):
    server, client = kfp
    server.lag, server.seconds = 0.4, 0.5
    run, states, _ = followed(client, submitted(client))
    assert (run.state, run.shown["training"].state) == ("SUCCEEDED", "RUNNING")
    assert states["training"] == "SUCCEEDED"
    runs_command.show_run(client.connection, None, run.run_id, as_json=True)
    assert {t["state"] for t in json.loads(capsys.readouterr().out)["tasks"]} == {"SUCCEEDED"}


def test_a_run_whose_workflow_etcd_refuses_says_so_though_kfp_gives_no_reason(kfp, capsys):
    server, client = kfp
    server.too_large = "data-gate"
    run, states, _ = followed(client, submitted(client), heal=2)
    assert (run.state, server.runs[run.run_id].as_json()["error"]) == ("FAILED", None)
    assert states == {"ingest": "SUCCEEDED", "data_gate": "SUCCEEDED", "training": "NOT_RUN"}
    said = "etcdserver: request is too large: the run's Workflow has become larger than Kubernetes stores"
    assert run.error.startswith(said)
    runs_command.show_run(client.connection, None, run.run_id, as_json=True)
    assert json.loads(capsys.readouterr().out)["error"].startswith(said)


def test_a_cached_stage_is_shown_as_cached(kfp):
    server, client = kfp
    server.cached = {"ingest"}
    _, states, told = followed(client, submitted(client))
    assert states["ingest"] == "SKIPPED"
    assert ("ingest", "cached") in told.statuses
    assert ("ingest", "ran") not in told.statuses


def test_a_stage_fails_with_the_message_that_it_left_behind(kfp):
    server, client = kfp
    server.faults = {"data-gate": [("FAILED", "main: Error (exit code 1): column mean_radius is missing")]}
    run, states, told = followed(client, submitted(client), heal=2)
    assert run.state == "FAILED"
    assert states == {"ingest": "SUCCEEDED", "data_gate": "FAILED", "training": "NOT_RUN"}
    assert "data_gate: warning: column mean_radius is missing" in told.said


def test_stages_that_never_ran_are_followed_and_shown_as_not_run(kfp, capsys):
    server, client = kfp
    server.faults = {"data-gate": [("FAILED", "main: Error (exit code 1): no such column")]}
    run, _, told = followed(client, submitted(client))
    assert [(stage, status) for stage, status in told.statuses if status == "not run"] == [("training", "not run")]
    runs_command.show_run(client.connection, None, run.run_id, as_json=True)
    shown = {t["name"]: (t["state"], t["seconds"]) for t in json.loads(capsys.readouterr().out)["tasks"]}
    assert shown["training"] == ("NOT_RUN", None)
    runs_command.show_run(client.connection, None, run.run_id, as_json=False)
    assert "training   NOT_RUN" in capsys.readouterr().out


def test_no_stage_of_a_run_that_succeeds_or_still_runs_is_shown_as_not_run(kfp, capsys):
    server, client = kfp
    assert "NOT_RUN" not in followed(client, submitted(client))[1].values()
    server.faults = {"data-gate": [("RUNNING", "")]}
    run_id = submitted(client)
    while "data-gate" not in server.runs[run_id].tasks:
        time.sleep(0.01)
    runs_command.show_run(client.connection, None, run_id, as_json=True)
    assert [t["state"] for t in json.loads(capsys.readouterr().out)["tasks"]] == ["SUCCEEDED", "RUNNING"]
    client.terminate(run_id)


def test_a_run_that_is_healed_shows_no_stage_as_not_run(kfp):
    server, client = kfp
    server.faults = {"data-gate": [("ERROR", "pod deleted")]}
    run, _, told = followed(client, submitted(client), heal=1)
    assert run.state == "SUCCEEDED"
    assert "not run" not in [status for _, status in told.statuses]


def test_a_stages_exit_code_is_known_although_the_launcher_always_exits_with_1(kfp):
    server, client = kfp
    left = last_words(Failure("user", "trainer.model: no such file"))
    server.faults = {"training": [("FAILED", f"main: Error (exit code 1): {left}")]}
    run_id = submitted(client)
    _, states = follow(client, run_id, TASKS, list(TASKS.values()), Told(), Following(poll=0.02))
    assert (states["training"].exit_code, states["training"].message) == (2, "trainer.model: no such file")
    assert states["ingest"].exit_code is None


def test_a_pod_that_cannot_start_is_reported_with_the_reason(kfp):
    server, client = kfp
    server.faults = {"training": [("PENDING", "ImagePullBackOff: Back-off pulling image switchyard:1")]}
    run_id = submitted(client)
    ender = threading.Timer(1.5, client.terminate, [run_id])
    ender.start()
    _, _, told = followed(client, run_id, still=0.2)
    ender.join()
    assert "training: warning: ImagePullBackOff: Back-off pulling image switchyard:1" in told.said


@pytest.mark.parametrize("message", ["PodInitializing", "ContainerCreating"])
def test_a_pod_that_waits_for_its_image_or_for_a_secret_is_reported_with_what_shows_which(kfp, message):
    server, client = kfp
    server.faults = {"training": [("PENDING", message)]}
    run_id = submitted(client)
    ender = threading.Timer(1.0, client.terminate, [run_id])
    ender.start()
    _, _, told = followed(client, run_id, still=0.2, stuck=0.3)
    ender.join()
    [said] = [s for s in told.said if message in s]
    assert "its image is being pulled, or a secret or claim that it mounts is missing" in said
    assert "kubectl describe pod -n kubeflow breast-cancer-" in said


def test_a_reason_is_shown_within_half_a_minute():
    assert Following().still + 2 * Following().poll <= 30.0


def test_a_pod_that_cannot_start_for_long_ends_the_command_with_the_fix(kfp):
    server, client = kfp
    server.faults = {"training": [("PENDING", "Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")]}
    run_id = submitted(client)
    with pytest.raises(StageError, match=rf"training has been unable to start .*Insufficient nvidia.*runs terminate {run_id}"):
        followed(client, run_id, still=0.1, stuck=0.3)
    client.terminate(run_id)


def test_ctrl_c_reports_that_the_run_continues_and_how_to_terminate_it(kfp, monkeypatch):
    server, client = kfp
    server.faults = {"training": [("RUNNING", "")]}
    run_id = submitted(client)
    looks = iter([client.run] * 2)

    def look(run_id):
        for found in looks:
            return found(run_id)
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "run", look)
    told = Told()
    with pytest.raises(KeyboardInterrupt):
        follow(client, run_id, TASKS, list(TASKS.values()), told, Following(poll=0.02))
    assert told.said[-1] == f"submit: warning: the run continues; stop it with switchyard runs terminate {run_id}"
    client.terminate(run_id)


def test_a_terminated_run_is_not_shown_as_failed_although_kfp_reports_it_so(kfp, capsys):
    server, client = kfp
    server.faults = {"training": [("RUNNING", "")]}
    run_id = submitted(client)
    threading.Timer(0.5, client.terminate, [run_id]).start()
    run, _, _ = followed(client, run_id, heal=2)
    assert (server.runs[run_id].state, run.state) == ("FAILED", "CANCELED")
    runs_command.terminate_run(client.connection, None, run_id)
    assert f"run {run_id} has ended already: CANCELED" in capsys.readouterr().out


# Healing


def test_a_run_whose_pod_was_evicted_is_retried(kfp):
    server, client = kfp
    server.faults = {"training": [("ERROR", "pod deleted"), ("FAILED", "The node was low on resource: memory.")]}
    run, states, told = followed(client, submitted(client), heal=2)
    assert run.state == "SUCCEEDED"
    assert states["training"] == "SUCCEEDED"
    assert len([s for s in told.said if "the pod of training was evicted or deleted" in s]) == 2


def test_a_run_is_healed_up_to_a_limit(kfp):
    server, client = kfp
    server.faults = {"training": [("ERROR", "pod deleted")] * 2}
    assert followed(client, submitted(client), heal=1)[0].state == "FAILED"


def test_healing_waits_for_a_restarted_server(kfp):
    server, client = kfp
    server.faults, server.busy = {"training": [("ERROR", "pod deleted")]}, 2
    run, _, told = followed(client, submitted(client), heal=1)
    assert run.state == "SUCCEEDED"
    assert any("Workflow must be Failed/Error to retry" in s for s in told.said)


def test_healing_does_not_retry_a_task_that_failed_by_itself(kfp):
    server, client = kfp
    server.faults = {"training": [("FAILED", "main: Error (exit code 1): the loss is not finite")]}
    run, _, told = followed(client, submitted(client), heal=2)
    assert run.state == "FAILED"
    assert not any("evicted or deleted" in s for s in told.said)


def test_a_user_error_that_names_a_column_called_evicted_is_not_retried(kfp):
    server, client = kfp
    words = "main: Error (exit code 1): label: there is no column 'evictd'. Did you mean 'evicted'? (switchyard exit code 2)"
    server.faults = {"training": [("FAILED", words)]}
    run, _, told = followed(client, submitted(client), heal=2)
    assert run.state == "FAILED"
    assert not any("evicted or deleted" in s for s in told.said)


def test_healing_waits_for_a_temporarily_unreadable_workflow(kfp, monkeypatch):
    """With the client's answer mocked: the stand-in is never away for one path alone."""
    server, client = kfp
    server.faults = {"training": [("ERROR", "pod deleted")]}
    asked, misses = client.workflow, iter([StageError("KFP failed (503)")] * 2)

    def workflow(run_id):
        for error in misses:
            raise error
        return asked(run_id)

    monkeypatch.setattr(client, "workflow", workflow)
    run, _, _ = followed(client, submitted(client), heal=1)
    assert run.state == "SUCCEEDED"


# Seeing


def test_show_has_the_states_and_messages_of_a_run_that_was_compressed(kfp, capsys):
    server, client = kfp
    server.compresses = True
    server.faults = {"training": [("FAILED", "main: Error (exit code 1): the loss is not finite")]}
    run_id = submitted(client)
    ended(client, run_id)
    runs_command.show_run(client.connection, None, run_id, as_json=True)
    shown = {t["name"]: t for t in json.loads(capsys.readouterr().out)["tasks"]}
    assert {name: t["state"] for name, t in shown.items()} == {
        "ingest": "SUCCEEDED",
        "data-gate": "SUCCEEDED",
        "training": "FAILED",
    }
    assert shown["training"]["error"] == "the loss is not finite"
    runs_command.show_run(client.connection, None, run_id, as_json=False)
    assert "None" not in capsys.readouterr().out


@pytest.mark.parametrize("collects_pods", [False, True], ids=["pods kept", "pods deleted"])
@pytest.mark.parametrize(("compresses", "retries"), [(False, 0), (True, 0), (False, 1), (True, 1)])
def test_logs_are_found_of_compressed_runs_of_retried_stages_and_of_deleted_pods(kfp, capsys, compresses, retries, collects_pods):
    server, client = kfp
    server.collects_pods = collects_pods
    server.compresses = compresses
    run_id = submitted(client, retries=retries)
    ended(client, run_id)
    runs_command.print_logs(client.connection, run_id, "data_gate", follow=False)
    assert capsys.readouterr().out == "log of data-gate\n"


def began(server, run_id, stage):
    """Waits until a stage runs, and returns the file of its pod's log."""
    while stage not in server.runs[run_id].tasks:
        time.sleep(0.01)
    return server.runs[run_id].folder / f"pod-{stage}.log"


@pytest.mark.parametrize("stored", [False, True], ids=["the pod's log", "the log that remains of a deleted pod"])
def test_a_running_stages_log_is_followed_to_its_end_and_printed_once(kfp, capsys, monkeypatch, stored):
    server, client = kfp
    # The log that KFP's launcher stored has none of its own lines.
    server.compresses = server.collects_pods = stored
    server.faults = {"data-gate": [("RUNNING", "")]}
    monkeypatch.setattr(logs, "_POLL_SECONDS", 0.05)
    run_id = submitted(client)
    log = began(server, run_id, "data-gate")
    log.write_text("first\n")

    def write():
        for text in ("second\nthi", "rd\n", f"{LAUNCHER} uploads\n", "last\n"):
            time.sleep(0.3)
            with log.open("a") as file:
                file.write(text)
        server.faults["data-gate"].clear()

    writer = threading.Thread(target=write)
    writer.start()
    runs_command.print_logs(client.connection, run_id, "data_gate", follow=True)
    writer.join()
    printed = capsys.readouterr().out
    assert printed == f"first\nsecond\nthird\n{LAUNCHER} uploads\nlast\nlog of data-gate\n"
    assert followed(client, run_id)[0].state == "SUCCEEDED"


@pytest.mark.parametrize(
    ("printed", "found", "new"),
    [
        ("a\nb\n", "a\nb\nc\n", "c\n"),
        ("a\nb", "a\nbc\nd\n", "c\nd\n"),
        ("[KFP launcher] starts\na\nb\n", "a\nb\nc\n", "c\n"),
        ("a\nb\n[KFP launcher] ends\n", "a\nb\n", ""),
        ("a\nb\nc\n", "b\nc\nd\n", "d\n"),
        ("[KFP launcher] starts\na\nbo", "a\nboth\nc\n", "th\nc\n"),
        ("a\nhal", "b\n", "\nb\n"),
        ("a\n", "b\n", "b\n"),
        ("", "a\n", "a\n"),
        ("a\nb\n", "", ""),
    ],
)
def test_of_another_log_of_a_pod_only_the_lines_not_yet_printed_follow(printed, found, new):
    assert logs.unread(printed, found) == new


def test_a_terminals_commands_in_a_log_are_printed_as_text(kfp, capsys):
    server, client = kfp
    run_id = submitted(client)
    ended(client, run_id)
    (server.runs[run_id].folder / "pod-data-gate.log").write_bytes(b"column \x1b]0;owned\x07\x1b[2J fine\n\tnext\n")
    runs_command.print_logs(client.connection, run_id, "data_gate", follow=False)
    assert capsys.readouterr().out == "column \\x1b]0;owned\\x07\\x1b[2J fine\n\tnext\n"


def test_an_error_returned_as_a_log_is_an_error(kfp):
    server, client = kfp
    run_id = submitted(client)
    ended(client, run_id)
    (server.runs[run_id].folder / "pod-training.log").unlink()
    with pytest.raises(UserError, match=r"KFP has no log of breast-cancer-.*-system-container-impl-[0-9]+.*kubectl logs"):
        runs_command.print_logs(client.connection, run_id, "training", follow=False)


# Schedules


def compiled():
    return CompiledForKubeflow("", spec_of(), None, TASKS, dict.fromkeys(TASKS.values(), ()))


def scheduled(client, root="s3://bucket/root", **changes):
    given = {
        "name": "breast_cancer 0 3 * * *", "experiment_id": client.experiment("mine"), "cron": "0 0 3 * * *", "catchup": False,
        "most": 1, "service_account": "runner", "mlflow_experiment": "mine",
    }  # fmt: skip
    return Schedules(client).make(compiled(), root, Schedule(**{**given, **changes}))


def test_a_schedule_starts_runs_with_the_root_that_kfp_would_have_dropped(kfp):
    server, client = kfp
    made = scheduled(client, catchup=True, most=3)
    run = server.tick(server.recurring[made.recurring_run_id])
    assert run is not None, "the first tick starts a run"
    assert run.spec["defaultPipelineRoot"] == "s3://bucket/root"
    assert run.body["service_account"] == "runner"
    assert run.body["plugins_input"] == {"mlflow": {"experiment_name": "mine"}}
    kept = server.recurring[made.recurring_run_id]
    assert (kept["no_catchup"], kept["max_concurrency"]) == (False, "3")
    assert run.name.startswith(schedule_workflow("breast_cancer 0 3 * * *"))
    [listed] = [r for r in client.runs(None, 10) if r.run_id == run.id]
    assert listed.schedule == made.recurring_run_id
    assert ended(client, run.id).state == "SUCCEEDED"


def test_a_recurring_run_with_an_inline_spec_and_plugins_never_starts_in_the_stand_in_either(kfp):
    """Why a pipeline is uploaded for a schedule."""
    server, client = kfp
    given = {"display_name": "x", "experiment_id": "1", "pipeline_spec": {"pipeline_spec": spec_of()}, "mode": "ENABLE"}
    service = client.service("RecurringRunServiceApi")
    for plugins, starts in (({"mlflow": {"experiment_name": "mine"}}, False), (None, True)):
        recurring = client.model("V2beta1RecurringRun", **given, **({"plugins_input": plugins} if plugins else {}))
        made = service.recurring_run_service_create_recurring_run(recurring)
        assert str(made.status) == "ENABLED"
        assert (server.tick(server.recurring[made.recurring_run_id]) is not None) is starts


def test_the_same_pipeline_scheduled_again_is_uploaded_once_and_another_is_a_version_of_it(kfp):
    server, client = kfp
    versions = [scheduled(client, root=root).version for root in ("s3://a", "s3://b", "s3://b")]
    assert len(server.pipelines) == 1
    assert versions[0] != versions[1] == versions[2]


def test_a_schedule_that_kfp_stores_without_a_pipeline_is_deleted_and_refused(kfp, monkeypatch):
    server, client = kfp
    monkeypatch.setattr(server, "documents_of", lambda body: None)
    shown = client.service("PipelineServiceApi").__class__
    monkeypatch.setattr(shown, "pipeline_service_get_pipeline_version", lambda *a, **k: client.model("V2beta1PipelineVersion"))
    with pytest.raises(StageError, match="would never start a run"):
        scheduled(client)
    assert server.recurring == {}


def test_schedules_are_listed_paused_resumed_and_deleted(kfp, capsys):
    server, client = kfp
    made = scheduled(client).recurring_run_id
    runs_command.pause_schedule(client.connection, made)
    assert server.tick(server.recurring[made]) is None
    runs_command.list_schedules(client.connection, None, as_json=True)
    [row] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["state"], row["cron"], row["catchup"], row["max_concurrency"]) == ("DISABLED", "0 0 3 * * *", False, "1")
    runs_command.resume_schedule(client.connection, made)
    assert server.tick(server.recurring[made]) is not None
    time.sleep(0.5)
    runs_command.delete_schedule(client.connection, made, force=False)
    assert server.recurring == {}
    with pytest.raises(UserError, match="unknown recurring run"):
        runs_command.pause_schedule(client.connection, made)


def test_a_schedule_with_running_runs_is_deleted_only_by_force_because_kfp_orphans_them(kfp, capsys):
    server, client = kfp
    server.faults = {"ingest": [("RUNNING", "")]}
    made = scheduled(client).recurring_run_id
    run = server.tick(server.recurring[made])
    while run.state != "RUNNING":
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"has runs in progress: {run.id}"):
        runs_command.delete_schedule(client.connection, made, force=False)
    assert made in server.recurring
    runs_command.delete_schedule(client.connection, made, force=True)
    assert f"orphaned: {run.id}" in capsys.readouterr().out
    run.terminated = True


# Workspace


@pytest.mark.parametrize("patch", [{}, {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}])
def test_the_stand_in_refuses_a_workspace_as_a_stock_kfp_does(kfp, patch):
    _, client = kfp
    workspace = {"size": "1Gi", "kubernetes": {"pvcSpecPatch": patch}}
    platform = {"platforms": {"kubernetes": {"pipelineConfig": {"workspace": workspace}}}}
    with pytest.raises(StageError, match="500"):
        client.submit("one", client.experiment("mine"), {"pipeline_spec": spec_of(), "platform_spec": platform}, **GIVEN)


def test_a_claim_with_access_modes_is_accepted(kfp):
    _, client = kfp
    workspace = {"size": "1Gi", "kubernetes": {"pvcSpecPatch": {"accessModes": ["ReadWriteOnce"]}}}
    platform = {"platforms": {"kubernetes": {"pipelineConfig": {"workspace": workspace}}}}
    spec = {"pipeline_spec": spec_of(), "platform_spec": platform}
    assert client.submit("one", client.experiment("mine"), spec, **GIVEN).run_id
