"""A server that speaks KFP's v2beta1 API over HTTP and **executes** what it receives, by KFP's own local runner.

`python -m tests.cluster.kfp_server PORT FOLDER [--mlflow URI]`. A wrong spec fails the run, as on a cluster. For experiments
named `plugin...` it does what KFP's MLflow plugin does: the parent run, a nested run per task, both ended by it. Under the paths
`/page`, `/old` and `/guarded` it answers as a login page, KFP 1 and a server that wants a token do.
"""

import argparse
import datetime
import threading
import uuid
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, PlainTextResponse
from google.protobuf import json_format

from pipelines.runners.kubeflow.check import check
from pipelines.runners.kubeflow.local_backend import run_pipeline
from pipelines.runners.stage_process import Job, StageProcesses
from tests.kubeflow import backend_rules

API = "/apis/v2beta1"


def now():
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Run:
    """A run and what became of its tasks."""

    def __init__(self, server, body):
        self.id = str(uuid.uuid4())
        self.server, self.body, self.state, self.error = server, body, "PENDING", None
        self.created = now()
        self.finished = None
        self.tasks = {}
        self.folder = server.folder / self.id
        self.folder.mkdir(parents=True)
        self.terminated = False
        self.parent = None
        self.nested = {}
        documents = body["pipeline_spec"]
        self.spec, platform = documents["pipeline_spec"], documents.get("platform_spec", {})
        self.platform = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
        if body.get("plugins_input", {}).get("mlflow", {}).get("experiment_name", "").startswith("plugin"):
            self._plugin_start()
        self._task = ""

    def as_json(self):
        details = [
            {
                "run_id": self.id,
                "task_id": f"id-{name}",
                "display_name": name,
                "state": t["state"],
                "start_time": t["start"],
                "end_time": t.get("end"),
                "error": {"code": 1, "message": t["error"]} if t.get("error") else None,
                "child_tasks": [{"pod_name": f"pod-{name}"}],
            }
            for name, t in list(self.tasks.items())
        ]
        found = {
            "run_id": self.id,
            "display_name": self.body["display_name"],
            "experiment_id": self.body["experiment_id"],
            "state": self.state,
            "created_at": self.created,
            "finished_at": self.finished,
            "service_account": self.body.get("service_account"),
            "error": {"code": 2, "message": self.error} if self.error else None,
            "run_details": {"task_details": details},
        }
        if self.parent:
            entries = {
                "root_run_id": {"value": self.parent},
                "experiment_id": {"value": self.experiment},
                "run_url": {"value": f"{self.server.mlflow}/#/experiments/{self.experiment}/runs/{self.parent}"},
            }
            found["plugins_output"] = {"mlflow": {"entries": entries}}
        return found

    def execute(self):
        self.state = "RUNNING"
        try:
            check(self.spec)
            done = run_pipeline(self.spec, {}, self.server.folder / "root", self.folder / "kfp.log", self, containers=False)
            self.state = "CANCELED" if self.terminated else "SUCCEEDED" if done else "FAILED"
        except Exception as error:
            self.state, self.error = "FAILED", f"{type(error).__name__}: {error}"
        self.finished = now()
        if self.parent:
            self.server.client().set_terminated(self.parent, "FINISHED" if self.state == "SUCCEEDED" else "FAILED")

    # local_backend.Tasks
    def started(self, task):
        self._task = task
        self.tasks[task] = {"state": "RUNNING", "start": now()}
        if self.parent and task not in self.nested:
            tags = {"mlflow.parentRunId": self.parent}
            self.nested[task] = self.server.client().create_run(self.experiment, run_name=task, tags=tags).info.run_id

    def ended(self, task, outputs, *, succeeded):
        self.tasks[task] |= {"state": "SUCCEEDED" if succeeded else "FAILED", "end": now()}
        if task in self.nested:
            self.server.client().set_terminated(self.nested[task], "FINISHED" if succeeded else "FAILED")

    def run_command(self, command, environment, image, volumes):
        if self.terminated:
            return 1
        for variable in self.platform.get(f"exec-{self._task}", {}).get("fieldPathAsEnv", []):
            assert variable["fieldPath"] == "metadata.labels['pipeline/runid']", variable
            environment = {**environment, variable["name"]: self.id}
        # The volume that a run's workspace is on outlives its pods.
        environment = {**environment, "SWITCHYARD_STATE": str(self.folder / "state")}
        if self.parent:
            plugin = {
                "MLFLOW_TRACKING_URI": self.server.mlflow,
                "MLFLOW_RUN_ID": self.nested[self._task],
                "MLFLOW_EXPERIMENT_ID": self.experiment,
            }
            environment = {**environment, **plugin}
        log = self.folder / f"pod-{self._task}.log"
        job = Job("pipelines.runners.kubeflow.task_process:run", list(command), log, environment)

        def say(text):
            # In a pod it goes to standard error.
            with open(log, "a") as file:
                file.write(f"{self._task}: {text}\n")

        try:
            self.server.processes.run(job, say)
        except Exception as error:
            self.tasks[self._task]["error"] = str(error)
            return 1
        return 0

    def _plugin_start(self):
        client = self.server.client()
        name = self.body.get("plugins_input", {}).get("mlflow", {}).get("experiment_name") or "Default"
        found = client.get_experiment_by_name(name)
        self.experiment = found.experiment_id if found else client.create_experiment(name)
        self.parent = client.create_run(self.experiment, run_name=self.body["display_name"]).info.run_id


class Server:
    """The API's state."""

    def __init__(self, folder, mlflow):
        self.folder, self.mlflow = folder.resolve(), mlflow
        folder.mkdir(parents=True, exist_ok=True)
        self.runs, self.experiments, self.recurring = {}, {}, {}
        self.processes = StageProcesses(folder / "preload.log", ["kfp.dsl.executor_main", "pipelines.runners.kubeflow.node_run"])
        self.processes.warm()

    def client(self):
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.mlflow)


def make_app(server):
    app = FastAPI()

    @app.middleware("http")
    async def guard(request: Request, call_next):
        path = request.url.path
        if path.startswith("/page/"):
            return HTMLResponse("<html>log in</html>")
        if path.startswith("/old/"):
            return PlainTextResponse("404 page not found", status_code=404)
        if path.startswith("/guarded/"):
            given = request.headers.get("authorization")
            cookie = request.headers.get("cookie")
            if given is None and cookie is None:
                return PlainTextResponse("who are you", status_code=401)
            if given != "Bearer right" and cookie != "session=right":
                return PlainTextResponse('{"error": "User is not authorized"}', status_code=403)
            request.scope["path"] = path.removeprefix("/guarded")
        return await call_next(request)

    @app.get(API + "/healthz")
    def healthz():
        return {"multi_user": False}

    @app.get(API + "/experiments")
    def experiments():
        return {"experiments": list(server.experiments.values())}

    @app.post(API + "/experiments")
    async def make_experiment(request: Request):
        body = await request.json()
        experiment = {**body, "experiment_id": str(uuid.uuid4()), "created_at": now()}
        server.experiments[experiment["experiment_id"]] = experiment
        return experiment

    @app.post(API + "/runs")
    async def make_run(request: Request):
        from kfp.pipeline_spec import pipeline_spec_pb2

        body = await request.json()
        try:
            json_format.ParseDict(body["pipeline_spec"]["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
        except json_format.ParseError as error:
            raise HTTPException(400, f"invalid pipeline spec: {error}") from None
        run = Run(server, body)
        server.runs[run.id] = run
        threading.Thread(target=run.execute, daemon=True).start()
        return run.as_json()

    def get(run_id):
        if run_id not in server.runs:
            raise HTTPException(404, f"Run {run_id} not found")
        return server.runs[run_id]

    @app.get(API + "/runs")
    def runs(page_size: int = 10, page_token: str = "", experiment_id: str = ""):
        found = [
            r.as_json() for r in reversed(server.runs.values()) if not experiment_id or r.body["experiment_id"] == experiment_id
        ]
        start = int(page_token or 0)
        token = str(start + page_size) if start + page_size < len(found) else ""
        return {"runs": found[start : start + page_size], "total_size": len(found), "next_page_token": token}

    @app.get(API + "/runs/{run_id}")
    def one(run_id):
        return get(run_id).as_json()

    @app.post(API + "/runs/{run_id}:terminate")
    def terminate(run_id):
        run = get(run_id)
        run.terminated = True
        if run.state == "RUNNING":
            # As Kubernetes ends a pod.
            for process in list(server.processes._running):
                process.terminate()
        return {}

    @app.post(API + "/runs/{run_id}:retry")
    def retry(run_id):
        run = get(run_id)
        if run.state not in ("FAILED", "CANCELED"):
            raise HTTPException(400, "only failed runs can be retried")
        run.terminated = False
        run.state = "RUNNING"
        threading.Thread(target=run.execute, daemon=True).start()
        return {}

    @app.post(API + "/recurringruns")
    async def recurring(request: Request):
        body = await request.json()
        made = {**body, "recurring_run_id": str(uuid.uuid4()), "created_at": now()}
        server.recurring[made["recurring_run_id"]] = made
        return made

    @app.get(API + "/recurringruns/{recurring_id}")
    def recurring_one(recurring_id):
        return server.recurring[recurring_id]

    @app.get("/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log")
    def log(run_id, pod, follow: str = ""):
        path = get(run_id).folder / f"{pod}.log"
        if not path.exists():
            raise HTTPException(404, "no such pod")
        return PlainTextResponse(path.read_text())

    return app


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mlflow")
    parser.add_argument("--certificate", type=Path, help="PEM with key and certificate")
    options = parser.parse_args()
    server = Server(options.folder, options.mlflow)
    tls = {"ssl_certfile": options.certificate, "ssl_keyfile": options.certificate} if options.certificate else {}
    with backend_rules.imposed():
        uvicorn.run(make_app(server), host="127.0.0.1", port=options.port, log_level="warning", **tls)


if __name__ == "__main__":
    main()
