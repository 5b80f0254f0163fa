"""A server that misbehaves, as proxies, logins and restarts make one: the commands say so in a line, and continue if they can."""

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from switchyard.components.errors import StageError, UserError
from switchyard.pipelines.commands import runs as runs_command
from switchyard.pipelines.runners.kubeflow.cluster.client import Connection, KubeflowClient, NoSuchRunError
from switchyard.pipelines.runners.kubeflow.cluster.workflow import Node, Workflow
from switchyard.pipelines.runners.kubeflow.runs.following import Following, follow
from tests.cluster.pretending import GIVEN, TASKS, Told, spec_of, submitted

pytestmark = pytest.mark.core
JSON = "application/json"
RUN = {"run_id": "r1", "display_name": "one", "state": "RUNNING", "created_at": "2026-11-26T10:00:00Z"}
HEALTH = (200, JSON, b'{"tag_name": "2.17.0"}')
PAGE = (200, "text/html", b"<html><body>log in: run_id display_name state</body></html>")
BAD = {
    "a page": PAGE,
    "a page that calls itself JSON": (200, JSON, PAGE[2]),
    "half of an answer": (200, JSON, json.dumps(RUN).encode()[:40]),
    "a list": (200, JSON, b"[]"),
    "nothing": (200, JSON, b""),
    "an object of something else": (200, JSON, b"{}"),
    "an error in Latin-1": (500, "text/plain", "f\u00fcr immer weg".encode("latin-1")),
    "an error as a page": (502, "text/html", b"<html>Bad Gateway</html>"),
    "a date that is none": (200, JSON, json.dumps({**RUN, "created_at": "yesterday"}).encode()),
    "less than it says": (200, JSON, b"short"),
}


@contextmanager
def server(answers):
    """Yields the address of a server that answers paths (patterns) so; a list: one after the other, the last for ever."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            found = next((a for pattern, a in answers.items() if re.search(pattern, self.path)), (404, JSON, b"{}"))
            if isinstance(found, list):
                found = found.pop(0) if len(found) > 1 else found[0]
            status, kind, body = found
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body) + (1000 if body == b"short" else 0)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{found.server_port}"
    finally:
        found.shutdown()
        found.server_close()


def client_of(host):
    return KubeflowClient(Connection(host, timeout=5))


# A list without runs and a run without a Workflow are answers.
ASKED = [(ask, bad) for ask in ("run", "runs", "workflow") for bad in BAD if ask == "run" or bad != "an object of something else"]


@pytest.mark.parametrize(("ask", "bad"), ASKED)
def test_an_answer_that_is_not_kfps_is_an_error_of_one_line(ask, bad):
    answer = BAD[bad]
    if ask == "runs" and bad == "a date that is none":
        answer = (200, JSON, b'{"runs": [' + answer[2] + b"]}")
    if ask == "workflow" and bad == "a date that is none":
        answer = (
            200,
            JSON,
            json.dumps({"pipeline_runtime": {"workflow_manifest": '{"status": {"compressedNodes": "AAAA"}}'}}).encode(),
        )
    with server({"/runs": answer}) as host:
        client = client_of(host)
        asked = {
            "run": lambda: client.run("r1"),
            "runs": lambda: client.runs(None, 10),
            "workflow": lambda: client.workflow("r1"),
        }
        with pytest.raises((StageError, UserError)) as error:
            asked[ask]()
    assert "cannot " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("health", [PAGE, (200, JSON, b"<html>"), (200, JSON, b"[]")])
def test_a_login_page_instead_of_kfp_is_found_first(health):
    with (
        server({"healthz": health}) as host,
        pytest.raises((StageError, UserError), match=r"answers with a web page|returned an answer"),
    ):
        client_of(host).check()


def test_an_endless_list_is_ended():
    page = (200, JSON, b'{"runs": [], "next_page_token": "again"}')
    with server({"/runs": page}) as host:
        assert client_of(host).runs(None, 200) == []


def test_following_a_run_tolerates_invalid_answers():
    done = (200, JSON, json.dumps({**RUN, "state": "SUCCEEDED"}).encode())
    running = (200, JSON, json.dumps(RUN).encode())
    bad = [running, *BAD.values(), running, done]
    bad.remove(BAD["an object of something else"])
    with server({"v1beta1": PAGE, "/runs/r1": bad}) as host:
        told = Told()
        run, _ = follow(client_of(host), "r1", TASKS, list(TASKS.values()), told, Following(poll=0.01))
    assert run.state == "SUCCEEDED"
    assert any("returned an answer that is not KFP's" in line for line in told.said)


def test_the_reason_why_a_stage_waits_is_shown_while_others_change():
    def answer(done):
        tasks = [{"display_name": n, "state": "RUNNING" if n == "training" else "SUCCEEDED"} for n in ("training", *done)]
        return (200, JSON, json.dumps({**RUN, "run_details": {"task_details": tasks}}).encode())

    def workflow(phase, message):
        nodes = {"d": {"displayName": "training", "type": "DAG", "phase": "Running"}}
        nodes["p"] = {"displayName": "executor", "type": "Pod", "phase": phase, "message": message, "boundaryID": "d"}
        manifest = json.dumps({"status": {"nodes": nodes}})
        return (200, JSON, json.dumps({"pipeline_runtime": {"workflow_manifest": manifest}}).encode())

    names = [f"stage{n}" for n in range(20)]
    runs = [*(answer(names[:n]) for n in range(20)), (200, JSON, json.dumps({**RUN, "state": "SUCCEEDED"}).encode())]
    told = Told()
    with server({"v1beta1": workflow("Pending", "ImagePullBackOff: no image"), "/runs/r1": runs}) as host:
        tasks = {n: n for n in ("training", *names)}
        follow(client_of(host), "r1", tasks, list(tasks), told, Following(poll=0.05, still=0.2))
    assert told.events.index("training: warning: ImagePullBackOff: no image") < told.events.index("stage15: ran")


def test_deleting_a_followed_run_ends_the_command_at_once(kfp):
    fake, client = kfp
    fake.faults = {"training": [("RUNNING", "")]}
    run_id = submitted(client)
    told = Told()
    deletion = threading.Timer(0.3, lambda: client.service("RunServiceApi").run_service_delete_run(run_id))
    deletion.start()
    with pytest.raises(UserError, match=f"run {run_id} was deleted while it was followed"):
        follow(client, run_id, TASKS, list(TASKS.values()), told, Following(poll=0.05))
    deletion.join()
    assert told.said == []


@pytest.mark.parametrize("run_id", ["", "  ", "no such run", "../experiments", "a/b?c=d#e", "Ü\u202e"])
def test_a_name_of_no_run_is_refused(kfp, run_id):
    _, client = kfp
    with pytest.raises(UserError, match=r"unknown run|is empty|no /apis"):
        client.run(run_id)


def test_control_characters_in_names_of_runs_are_escaped(kfp, capsys):
    _, client = kfp
    name = "nightly [/red] \x1b[2J\u202e ünïcode\nstate: SUCCEEDED"
    run = client.submit(name, client.experiment("mine"), {"pipeline_spec": spec_of()}, **GIVEN)
    runs_command.list_runs(client.connection, None, None, 20, as_json=False)
    runs_command.show_run(client.connection, None, run.run_id, as_json=False)
    shown = capsys.readouterr().out
    assert "nightly [/red] \\x1b[2J\\u202e ünïcode\\nstate: SUCCEEDED" in shown
    assert "\x1b" not in shown


def test_two_hundred_runs_are_listed(kfp, capsys):
    fake, client = kfp
    fake.seconds = 0
    experiment = client.experiment("mine")
    for number in range(200):
        client.submit(f"run {number}", experiment, {"pipeline_spec": spec_of()}, **GIVEN)
    runs_command.list_runs(client.connection, None, None, 200, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [r["name"] for r in rows] == [f"run {n}" for n in reversed(range(200))]


def test_a_page_instead_of_a_log_is_not_shown_as_the_log():
    with server({"/log": PAGE, "/k8s": (200, "text/html; charset=utf-8", b"<html>")}) as host:
        client = client_of(host)
        assert client.log_of_node("r1", "node") is None
        assert client.log_of_pod("r1", "pod", "kubeflow") is None


@pytest.mark.parametrize("text", ['{"error_message": "x"}', '{ "error_message":"x"}', '\n{"error_message" : "x"}'])
def test_an_error_instead_of_a_log_is_not_shown_as_the_log(text):
    with server({"/log": (200, "text/plain", text.encode())}) as host:
        assert client_of(host).log_of_node("r1", "node") is None


def test_a_run_is_shown_by_v2_if_its_workflow_cannot_be_read(capsys):
    run = {**RUN, "state": "SUCCEEDED", "run_details": {"task_details": [
        {"display_name": "ingest-driver", "state": "SUCCEEDED"}, {"display_name": "ingest", "state": "SUCCEEDED"},
    ]}}  # fmt: skip
    with server({"healthz": HEALTH, "v1beta1": PAGE, "/runs/r1": (200, JSON, json.dumps(run).encode())}) as host:
        runs_command.show_run(Connection(host), None, "r1", as_json=True)
    said = capsys.readouterr()
    assert [(t["name"], t["state"]) for t in json.loads(said.out)["tasks"]] == [("ingest", "SUCCEEDED")]
    assert "warning: cannot get the Workflow of run r1" in said.err


@pytest.mark.parametrize(
    ("started", "finished", "seconds"),
    [
        ("2026-11-26T10:00:00Z", "2026-11-26T09:59:57Z", 0.0),
        ("2026-11-26T10:00:00Z", "2026-11-26T10:00:07", None),
        ("", "", None),
        ("2026-11-26T10:00:00Z", "2026-11-26T10:00:07Z", 7.0),
    ],
)
def test_clocks_that_differ_give_no_negative_seconds(started, finished, seconds):
    assert Node("n", "n", "Pod", "Succeeded", "", "", "", started, finished).seconds == seconds


def test_a_run_that_does_not_exist_has_its_own_error(kfp):
    _, client = kfp
    with pytest.raises(NoSuchRunError, match="unknown run nothing"):
        client.run("nothing")


def test_a_workflow_without_nodes_has_no_stages():
    assert Workflow({}).stages({"a": "a"}) == {}
    assert Workflow({"status": None, "metadata": None}).executors("a") == []
