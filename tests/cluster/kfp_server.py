"""A server that speaks KFP's API over HTTP and **executes** what it receives, by KFP's own local runner.

`python -m tests.cluster.kfp_server PORT FOLDER [--mlflow URI]`. A wrong spec fails the run, as on a cluster. What KFP 2.17.0
was seen to do, faults and all, it does too: tests/kubeflow/README.md. For experiments named `plugin...` it does what KFP's
MLflow plugin does: the parent run, a nested run per task, both ended by it. Under the paths `/page`, `/old` and `/guarded` it
answers as a login page, KFP 1 and a server that wants a token do. `stand_in` is the server in this process, whose tasks do
nothing, or what a test says.
"""

import argparse
import contextlib
import email
import json
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import uvicorn
import yaml
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from google.protobuf import json_format

from tests.cluster import grace
from tests.cluster.kfp_run import Run, now

API = "/apis/v2beta1"


class Server:
    """The API's state.

    Attributes:
        pretend: tasks do nothing.
        faults: task -> (state, message) of each try that fails, in order; RUNNING or PENDING: until the run is terminated.
        cached: tasks that are found in the cache, where they do nothing.
        seconds: that such a task takes.
        lag: seconds for which v2beta1 shows older states of tasks, also when the run has succeeded.
        too_large: the task after which etcd refuses the Workflow.
        compresses: Argo compresses the states of nodes once a task has ended, and v2beta1 shows no later ones.
        collects_pods: pods are deleted once they ended, as Argo's `podGC` does; their logs remain in the store.
        version: that the server calls itself.
        busy: so many requests for a retry are refused, as just after the server's restart.
    """

    def __init__(self, folder, mlflow, *, pretend=False):
        self.folder, self.mlflow, self.pretend = folder.resolve(), mlflow, pretend
        folder.mkdir(parents=True, exist_ok=True)
        self.runs, self.experiments, self.recurring, self.pipelines = {}, {}, {}, {}
        self.faults, self.cached, self.seconds, self.compresses, self.busy = {}, set(), 0.02, False, 0
        self.collects_pods = False
        self.lag, self.too_large = 0.0, ""
        self.version = "2.17.0"
        self.kubernetes = None
        if not pretend:
            from tests.cluster.kubernetes_api import Kubernetes

            self.kubernetes = Kubernetes(folder, lambda: [p for r in list(self.runs.values()) for p in r.pods()])
            from switchyard.pipelines.runners.local.process import StageProcesses

            modules = ["kfp.dsl.executor_main", "switchyard.pipelines.runners.kubeflow.task.node"]
            self.processes = StageProcesses(folder / "preload.log", modules)
            self.processes.warm()

    def client(self):
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.mlflow)

    def start(self, body, documents, **given):
        run = Run(self, body, documents, **given)
        self.runs[run.id] = run
        threading.Thread(target=run.execute, daemon=True).start()
        return run

    def documents_of(self, body):
        """Returns spec and platform of what is to be run; None: there is no spec."""
        if body.get("pipeline_spec"):
            given = body["pipeline_spec"]
            return given["pipeline_spec"], given.get("platform_spec")
        reference = body.get("pipeline_version_reference")
        return (
            self.pipelines[reference["pipeline_id"]]["versions"][reference["pipeline_version_id"]]["documents"]
            if reference
            else None
        )

    def tick(self, recurring):
        """What the controller does when the time has come; returns the run, or None."""
        documents = self.documents_of(recurring)
        if recurring["status"] != "ENABLED" or documents is None:
            return None  # "Failed to fetch a template with an empty pipeline spec manifest", in the controller's log alone
        recurring["count"] = recurring.get("count", 0) + 1
        workflow = "".join(c if c.isalnum() else "-" for c in recurring["display_name"].lower())[:25]
        name = f"{workflow}-{recurring['count']}-{recurring['recurring_run_id'][:5]}"
        run_id = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
        return self.start(recurring, documents, name=name, run_id=run_id)


def refuse(status, code, message):
    """As KFP does: the body has a code of gRPC's and a message."""
    return JSONResponse({"error": message, "code": code, "message": message, "details": []}, status_code=status)


def check_documents(documents):
    """Raises HTTPException for what KFP refuses at once."""
    from kfp.pipeline_spec import pipeline_spec_pb2

    spec, platform = documents
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        raise HTTPException(400, f"invalid pipeline spec: {error}") from None
    workspace = (platform or {}).get("platforms", {}).get("kubernetes", {}).get("pipelineConfig", {}).get("workspace")
    if workspace is not None:
        claim = workspace.get("kubernetes", {}).get("pvcSpecPatch", {})
        if not claim.get("accessModes"):
            raise HTTPException(500, "workspace PVC spec must specify accessModes")
        if claim.get("storageClassName") == "":
            raise HTTPException(500, "workspace PVC spec must specify a storageClassName that is not empty")


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
        return {"commit_sha": "0" * 40, "tag_name": server.version, "multi_user": False, "pipeline_store": "database"}

    @app.get(API + "/experiments")
    def experiments():
        return {"experiments": list(server.experiments.values())}

    @app.post(API + "/experiments")
    async def make_experiment(request: Request):
        body = await request.json()
        experiment = {**body, "experiment_id": str(uuid.uuid4()), "created_at": now()}
        server.experiments[experiment["experiment_id"]] = experiment
        return experiment

    @app.delete(API + "/experiments/{experiment_id}")
    def delete_experiment(experiment_id):
        del server.experiments[experiment_id]
        return {}

    _runs(app, server)
    _pipelines(app, server)
    _recurring(app, server)
    return app


def _runs(app, server):
    def get(run_id):
        if run_id not in server.runs:
            raise HTTPException(404, f"Run {run_id} not found")
        return server.runs[run_id]

    @app.post(API + "/runs")
    async def make_run(request: Request):
        body = await request.json()
        documents = server.documents_of(body)
        check_documents(documents)
        return server.start(body, documents).as_json()

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

    @app.delete(API + "/runs/{run_id}")
    def delete(run_id):
        get(run_id)
        del server.runs[run_id]
        return {}

    @app.get("/apis/v1beta1/runs/{run_id}")
    def one_v1(run_id):
        return get(run_id).as_v1()

    @app.post(API + "/runs/{run_id}:terminate")
    def terminate(run_id):
        run = get(run_id)
        if run.state not in ("PENDING", "RUNNING"):
            return refuse(400, 3, f"Failed to terminate run {run_id}. Row not found")
        run.terminated = True
        run.become("CANCELING")
        if not server.pretend:
            for process in list(server.processes._running):
                grace.terminate(process, process.is_alive)
        return {}

    @app.post(API + "/runs/{run_id}:retry")
    def retry(run_id):
        run = get(run_id)
        server.busy -= 1
        if run.state != "FAILED" or server.busy >= 0:
            return refuse(409, 6, f"Failed to retry run {run_id}: Workflow must be Failed/Error to retry")
        run.terminated, run.finished = False, None
        run.become("RUNNING")
        threading.Thread(target=run.execute, daemon=True).start()
        return {}

    @app.post("/stand-in/runs/{run_id}/evict/{task}")
    def evict(run_id, task):
        """A drained node: the pod of a task is deleted."""
        get(run_id).tasks[task]["lost"] = "ERROR"
        for process in list(server.processes._running):
            process.kill()
        return {}

    @app.get("/stand-in/kubeconfig")
    def kubeconfig():
        """What kubectl reaches the stand-in for Kubernetes by."""
        return PlainTextResponse(server.kubernetes.kubeconfig.read_text())

    @app.get("/apis/v1alpha1/runs/{run_id}/nodes/{node}/log")
    def log(run_id, node, follow: str = ""):
        found = get(run_id).log_of(node, by_pod=False)
        error = {"error_message": f"BadRequestError: Failed to read logs for run {run_id}", "error_details": "..."}
        return PlainTextResponse(json.dumps(error) if found is None else found)

    @app.get("/k8s/pod/logs")
    def log_of_pod(podname: str, runid: str, podnamespace: str = ""):
        found = get(runid).log_of(podname, by_pod=True)
        return PlainTextResponse("Could not get main container logs" if found is None else found, 500 if found is None else 200)

    @app.get("/artifacts/get")
    def artifact(source: str, bucket: str, key: str, namespace: str = ""):
        found = [t for run in server.runs.values() if (t := run.archived_log(f"{source}://{bucket}/{key}")) is not None]
        return PlainTextResponse(found[0] if found else "Failed to get object in bucket", 200 if found else 500)


def _pipelines(app, server):
    async def documents_in(request):
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        [part] = email.message_from_bytes(head + await request.body()).get_payload()
        found = list(yaml.safe_load_all(part.get_payload(decode=True)))
        return (*found, None)[:2]

    def version(pipeline, name, documents):
        made = {
            "pipeline_id": pipeline["pipeline_id"],
            "pipeline_version_id": str(uuid.uuid4()),
            "name": name,
            "display_name": name,
        }
        pipeline["versions"][made["pipeline_version_id"]] = {"shown": {**made, "created_at": now()}, "documents": documents}
        return made

    def shown(pipeline):
        return {k: v for k, v in pipeline.items() if k != "versions"}

    @app.post(API + "/pipelines/upload")
    async def upload(request: Request, name: str):
        if any(p["name"] == name for p in server.pipelines.values()):
            return refuse(409, 6, "Failed to create a pipeline and a pipeline version")
        documents = await documents_in(request)
        check_documents(documents)
        made = {"pipeline_id": str(uuid.uuid4()), "name": name, "display_name": name, "created_at": now(), "versions": {}}
        server.pipelines[made["pipeline_id"]] = made
        # The first version takes the pipeline's name.
        version(made, name, documents)
        return shown(made)

    @app.post(API + "/pipelines/upload_version")
    async def upload_version(request: Request, name: str, pipelineid: str):
        pipeline = server.pipelines[pipelineid]
        if any(v["shown"]["name"] == name for v in pipeline["versions"].values()):
            return refuse(409, 6, "Failed to create a pipeline version")
        documents = await documents_in(request)
        check_documents(documents)
        return version(pipeline, name, documents)

    @app.get(API + "/pipelines")
    def listed(filter: str = ""):  # noqa: A002 (the API's name)
        [wanted] = json.loads(filter)["predicates"]
        return {"pipelines": [shown(p) for p in server.pipelines.values() if p[wanted["key"]] == wanted["stringValue"]]}

    @app.get(API + "/pipelines/{pipeline_id}/versions")
    def versions(pipeline_id):
        return {"pipeline_versions": [v["shown"] for v in server.pipelines[pipeline_id]["versions"].values()]}

    @app.delete(API + "/pipelines/{pipeline_id}/versions/{version_id}")
    def delete_version(pipeline_id, version_id):
        del server.pipelines[pipeline_id]["versions"][version_id]
        return {}

    @app.delete(API + "/pipelines/{pipeline_id}")
    def delete(pipeline_id):
        if server.pipelines[pipeline_id]["versions"]:
            return refuse(400, 3, "the pipeline has versions")
        del server.pipelines[pipeline_id]
        return {}

    @app.get(API + "/pipelines/{pipeline_id}/versions/{version_id}")
    def one_version(pipeline_id, version_id):
        found = server.pipelines[pipeline_id]["versions"][version_id]
        spec, platform = found["documents"]
        return {**found["shown"], "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform} if platform else spec}


def _recurring(app, server):
    def get(recurring_id):
        if recurring_id not in server.recurring:
            raise HTTPException(404, f"Recurring run {recurring_id} not found")
        return server.recurring[recurring_id]

    @app.post(API + "/recurringruns")
    async def make(request: Request):
        body = await request.json()
        made = {**body, "recurring_run_id": str(uuid.uuid4()), "created_at": now(), "status": "ENABLED", "error": None}
        if made.get("pipeline_version_reference"):
            # The parameters and the root that were given with it are lost.
            made.pop("runtime_config", None)
        elif made.get("plugins_input"):
            # No run ever starts, and the API says ENABLED.
            del made["pipeline_spec"]
        made.pop("mode", None)
        server.recurring[made["recurring_run_id"]] = made
        return made

    @app.get(API + "/recurringruns")
    def all_of_them(experiment_id: str = "", page_token: str = "", page_size: int = 50):
        found = [r for r in server.recurring.values() if not experiment_id or r["experiment_id"] == experiment_id]
        return {"recurringRuns": found, "total_size": len(found)}

    @app.get(API + "/recurringruns/{recurring_id}")
    def one(recurring_id):
        return get(recurring_id)

    @app.post(API + "/recurringruns/{recurring_id}:enable")
    def enable(recurring_id):
        get(recurring_id)["status"] = "ENABLED"
        return {}

    @app.post(API + "/recurringruns/{recurring_id}:disable")
    def disable(recurring_id):
        get(recurring_id)["status"] = "DISABLED"
        return {}

    @app.delete(API + "/recurringruns/{recurring_id}")
    def delete(recurring_id):
        get(recurring_id)
        del server.recurring[recurring_id]
        for run in server.runs.values():
            # Its Workflow is garbage, and the run stays RUNNING for ever.
            run.orphaned |= run.body.get("recurring_run_id") == recurring_id and run.state == "RUNNING"
        return {}

    @app.post("/stand-in/recurringruns/{recurring_id}/tick")
    def tick(recurring_id):
        run = server.tick(get(recurring_id))
        return {"run_id": run.id if run else None}


@contextlib.contextmanager
def stand_in(folder):
    """Yields the server in this process, whose tasks do nothing, and its address."""
    server = Server(folder, "", pretend=True)
    web = uvicorn.Server(uvicorn.Config(make_app(server), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=web.run, daemon=True)
    thread.start()
    while not web.started:
        time.sleep(0.01)
    try:
        yield server, f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}"
    finally:
        # Not after the client's connections, which it keeps.
        web.should_exit = web.force_exit = True
        thread.join()


def main():
    from kfp.local.orchestrator import task_executor

    from tests.kubeflow import backend_rules

    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mlflow")
    parser.add_argument("--certificate", type=Path, help="PEM with key and certificate")
    options = parser.parse_args()
    server = Server(options.folder, options.mlflow)
    tls = {"ssl_certfile": options.certificate, "ssl_keyfile": options.certificate} if options.certificate else {}
    # Tests do not wait for the pause between two tries.
    task_executor.time = SimpleNamespace(sleep=lambda seconds: None)
    with backend_rules.imposed():
        uvicorn.run(make_app(server), host="127.0.0.1", port=options.port, log_level="warning", **tls)


if __name__ == "__main__":
    main()
