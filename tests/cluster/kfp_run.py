"""A run of the stand-in for KFP: its tasks' states, and how the API of KFP 2.17.0 shows them (tests/kubeflow/README.md)."""

import base64
import copy
import datetime
import gzip
import json
import re
import time
import uuid
import zlib
from pathlib import Path

from switchyard.components.failure import classify
from switchyard.pipelines.runners.kubeflow.compiler.check import check
from switchyard.pipelines.runners.kubeflow.compiler.plan import THEN
from switchyard.pipelines.runners.kubeflow.local.backend import run_pipeline
from switchyard.pipelines.runners.kubeflow.task import failure
from switchyard.pipelines.runners.local.process import Job

UNFINISHED_RUN, UNFINISHED_TASK = "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"
# How the lines of KFP's launcher begin in a pod's log.
LAUNCHER = "[KFP launcher]"
_PHASES = {"RUNNING": "Running", "PENDING": "Pending", "SUCCEEDED": "Succeeded", "FAILED": "Failed", "ERROR": "Error"}


def now():
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Run:
    """A run and what became of its tasks."""

    def __init__(self, server, body, documents, *, name=None, run_id=None):
        self.id = run_id or str(uuid.uuid4())
        self.server, self.body, self.error = server, body, None
        self.name = name or body["display_name"]
        self.history = []
        self.become("PENDING")
        self.created, self.finished = now(), None
        self.tasks = {}
        self.frozen = None
        # (time, what v2beta1 shows of the tasks from then on), for a server that lags.
        self.past = []
        self.refused = ""
        self.folder = server.folder / self.id
        self.folder.mkdir(parents=True)
        self.terminated = False
        # As Kubernetes forgets the Workflow of a recurring run that was deleted.
        self.orphaned = False
        self.parent, self.nested = None, {}
        self.spec, self.whole_platform = documents
        self.platform = (
            (self.whole_platform or {}).get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
        )
        self.workflow = re.sub("[^a-z0-9-]", "-", self.spec["pipelineInfo"]["name"].lower()) + "-" + self.id[:5]
        if body.get("plugins_input", {}).get("mlflow", {}).get("experiment_name", "").startswith("plugin"):
            self._plugin_start()
        self._task = ""

    def become(self, state):
        self.state = state
        self.history.append({"update_time": now(), "state": state})

    # What the API shows

    def as_json(self):
        found = {
            "run_id": self.id,
            "display_name": self.name,
            "experiment_id": self.body["experiment_id"],
            "state": self.state,
            "state_history": self.history,
            "created_at": self.created,
            "scheduled_at": self.created,
            "finished_at": self.finished or UNFINISHED_RUN,
            "service_account": self.body.get("service_account"),
            "error": None,
            "run_details": {"task_details": self._shown()},
        }
        if self.body.get("recurring_run_id"):
            found["recurring_run_id"] = self.body["recurring_run_id"]
        if self.body.get("pipeline_version_reference"):
            found["pipeline_version_reference"] = self.body["pipeline_version_reference"]
        else:
            found["pipeline_spec"] = self.spec
        if self.parent:
            entries = {
                "root_run_id": {"value": self.parent},
                "experiment_id": {"value": self.experiment},
                "run_url": {"value": f"{self.server.mlflow}/#/experiments/{self.experiment}/runs/{self.parent}"},
            }
            found["plugins_output"] = {"mlflow": {"entries": entries}}
        return found

    def node(self, *names):
        return f"{self.workflow}-{zlib.crc32('/'.join(names).encode())}"

    def _shown(self):
        if self.frozen is not None:
            return self.frozen
        if not self.server.lag:
            return self._details()
        return next((details for at, details in reversed(self.past) if at <= time.monotonic() - self.server.lag), [])

    def _details(self):
        """Never a pod's name: `child_tasks[].pod_name` is the id of Argo's node. Never an error."""
        ended = self.finished or UNFINISHED_TASK
        found = [self._row(name, self.state, self.created, ended) for name in (self.workflow, "root")]
        found.append(self._row("root-driver", "SUCCEEDED", self.created, self.created))
        for name, t in list(self.tasks.items()):
            end = t.get("end", UNFINISHED_TASK)
            state = "FAILED" if t["state"] == "ERROR" else t["state"]
            # A task is a DAG of Argo's, which runs while its pod waits.
            shown = "RUNNING" if state == "PENDING" else state
            found.append(self._row(f"{name}-driver", "SUCCEEDED", t["start"], t["start"]))
            row = self._row(name, shown, t["start"], t["start"] if t.get("cached") else end)
            row["child_tasks"] = [{"pod_name": self.node(name, "executor")}]
            found.append(row)
            for executor in ["executor", *(["executor(0)"] if self._retried(name) else [])]:
                found.append(self._row(executor, "SKIPPED" if t.get("cached") else state, t["start"], end, parent=name))
            if t.get("cached"):
                found.append({"run_id": self.id, "task_id": f"mlmd-{name}", "execution_id": "17"})
        for name in self.spec["root"]["dag"]["tasks"]:
            if name not in self.tasks and self.finished:
                found.append({**self._row(name, None, self.finished, self.finished), "child_tasks": []})
        return found

    def _row(self, name, state, start, end, parent=None):
        row = {"run_id": self.id, "task_id": self.node(*([parent] if parent else []), name), "display_name": name}
        row |= {"start_time": start, "end_time": end}
        if parent:
            row["parent_task_id"] = self.node(parent)
        return {**row, "state": state} if state else row

    def _retried(self, name):
        return bool(self.spec["root"]["dag"]["tasks"][name].get("retryPolicy"))

    def as_v1(self):
        """As /apis/v1beta1/runs/RUN: with the whole Argo object, compressed where Argo compressed it."""
        nodes = {n["id"]: n for n in self._nodes()}
        status = {"phase": _PHASES.get(self.state, "Running"), "startedAt": self.created}
        if self.refused:
            status |= {"phase": "Error", "message": self.refused}
        if self.frozen is not None:
            status["compressedNodes"] = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
        else:
            status["nodes"] = nodes
        manifest = {"kind": "Workflow", "metadata": {"name": self.workflow, "namespace": "kubeflow"}, "status": status}
        runtime = {"workflow_manifest": json.dumps(manifest)}
        return {"run": {"id": self.id, "name": self.name}, "pipeline_runtime": runtime}

    def _nodes(self):
        def node(name, kind, phase, template, *path, boundary="", message="", children=(), start=None, end=None):
            found = {"id": self.node(*path), "name": ".".join(path), "displayName": name, "type": kind, "phase": phase}
            found |= {"templateName": template, "boundaryID": boundary, "startedAt": start, "finishedAt": end}
            return {**found, **({"message": message} if message else {}), "children": list(children)}

        yield {**node(self.workflow, "DAG", _PHASES.get(self.state, "Running"), "entrypoint", "wf"), "id": self.workflow}
        yield node("root", "DAG", _PHASES.get(self.state, "Running"), "root", "root", boundary=self.workflow)
        for name, t in list(self.tasks.items()):
            phase, times = _PHASES[t["state"]], {"start": t["start"], "end": t.get("end")}
            driver = node(f"{name}-driver", "Pod", "Succeeded", "system-container-driver", f"{name}-driver", **times)
            yield {**driver, "boundaryID": self.node("root")}
            yield node(
                name, "DAG", "Running" if phase == "Pending" else phase, "system-container-executor", name,
                boundary=self.node("root"), children=[self.node(name, "executor")], **times,
            )  # fmt: skip
            template = ("retry-" if self._retried(name) else "") + "system-container-impl"
            if t.get("cached"):
                said = "when 'true != true' evaluated false"
                yield node(
                    "executor", "Skipped", "Skipped", template, name, "executor", boundary=self.node(name), message=said, **times
                )
                continue
            common = {"boundary": self.node(name), "message": t.get("message", ""), **times}
            # What the driver hands to the executor's pod, as far as it concerns logs.
            log = {"outputs": {"artifacts": {"executor-logs": {"artifacts": [{"uri": self._log_uri(name)}]}}}}
            launcher = {"command": ["/kfp-launcher/launch", "--executor_input", json.dumps(log)]}
            patch = {"name": "pod-spec-patch", "value": json.dumps({"containers": [launcher]})}
            inputs = {"inputs": {"parameters": [patch]}}
            if self._retried(name):
                last = node("executor(0)", "Pod", phase, template, name, "executor(0)", **common)
                yield node("executor", "Retry", phase, template, name, "executor", **{**common, "children": [last["id"]]})
                yield last | inputs
            else:
                yield node("executor", "Pod", phase, template, name, "executor", **common) | inputs

    def _log_uri(self, name):
        return f"minio://mlpipeline/v2/artifacts/{self.id}/{name}/executor-logs"

    def log_of(self, node, *, by_pod):
        """Returns a pod's log, or None. By node only of finished stages of an uncompressed run."""
        for name, t in self.tasks.items():
            ids = (self.node(name, "executor"), self.node(name, "executor(0)"))
            templates = ("system-container-impl", "retry-system-container-impl")
            pods = [f"{self.workflow}-{template}-{i.rpartition('-')[2]}" for template in templates for i in ids]
            path = self.folder / f"pod-{name}.log"
            if by_pod and self.server.collects_pods and "end" in t:
                continue
            if node in (pods if by_pod else ids) and path.exists() and (by_pod or ("end" in t and self.frozen is None)):
                return path.read_text()
        return None

    def archived_log(self, uri):
        """Returns the log that KFP's launcher stored at the end of the first attempt, without its own lines, or None."""
        for name, t in self.tasks.items():
            path = self.folder / f"pod-{name}.log"
            if uri == f"{self._log_uri(name)}-0" and "end" in t and path.exists():
                return "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith(LAUNCHER))
        return None

    # What happens

    def execute(self):
        self.become("RUNNING")
        try:
            check(self.spec)
            done = self._pretend() if self.server.pretend else self._run()
        except Exception as error:
            done, self.error = False, f"{type(error).__name__}: {error}"
            (self.folder / "error.txt").write_text(self.error)
        if self.orphaned:
            return
        self.finished = now()
        if self.parent:
            self.server.client().set_terminated(self.parent, "FINISHED" if done else "FAILED")
        # A run that was terminated has failed too, and never is CANCELED.
        self.become("SUCCEEDED" if done and not self.terminated else "FAILED")

    def _run(self):
        return run_pipeline(self.spec, {}, self.server.folder / "root", self.folder / "kfp.log", self, containers=False)

    def _pretend(self):
        tasks = self.spec["root"]["dag"]["tasks"]
        left = {n: t for n, t in tasks.items() if self.tasks.get(n, {}).get("state") != "SUCCEEDED"}
        while left:
            name = next(n for n, t in left.items() if not set(t.get("dependentTasks", [])) & set(left))
            del left[name]
            self.started(name)
            fault = self.server.faults.get(name, [])
            self.tasks[name] |= {"message": fault[0][1], "state": fault[0][0]} if fault else {}
            time.sleep(self.server.seconds)
            while fault and fault[0][0] in ("PENDING", "RUNNING") and not self.terminated:
                time.sleep(0.05)
            with (self.folder / f"pod-{name}.log").open("a") as log:
                log.write(f"log of {name}\n")
            if self.terminated:
                self.tasks[name] |= {"state": "FAILED", "message": "Step exceeded its deadline", "end": now()}
                return False
            if fault:
                state, said = fault.pop(0)
                self.tasks[name] |= {"state": state, "message": said, "end": now()}
                return False
            self.ended(name, {}, succeeded=True)
            self.tasks[name]["cached"] = name in self.server.cached
            if name == self.server.too_large:
                self.refused = "etcdserver: request is too large"
                return False
        return True

    # local_backend.Tasks
    def started(self, task):
        self._task = task
        self.tasks[task] = {"state": "RUNNING", "start": now(), "cached": not self.tasks.get(task, {}).get("executed", False)}
        if self.server.pretend:
            self.tasks[task]["cached"] = False
        if self.parent and task not in self.nested:
            tags = {"mlflow.parentRunId": self.parent}
            self.nested[task] = self.server.client().create_run(self.experiment, run_name=task, tags=tags).info.run_id
        self._note()

    def _note(self):
        if self.server.lag:
            self.past.append((time.monotonic(), copy.deepcopy(self._details())))

    def ended(self, task, outputs, *, succeeded):
        self.tasks[task] |= {"state": "SUCCEEDED" if succeeded else self.tasks[task].get("lost", "FAILED"), "end": now()}
        if task in self.nested:
            self.server.client().set_terminated(self.nested[task], "FINISHED" if succeeded else "FAILED")
        self._note()
        if self.server.compresses and self.frozen is None:
            self.frozen = copy.deepcopy(self._details())

    def run_command(self, command, environment, image, volumes):
        if self.terminated:
            return 1
        self.tasks[self._task] |= {"cached": False, "executed": True}
        for variable in self.platform.get(f"exec-{self._task}", {}).get("fieldPathAsEnv", []):
            assert variable["fieldPath"] == "metadata.labels['pipeline/runid']", variable
            environment = {**environment, variable["name"]: self.id}
        # The volume that a run's workspace is on outlives its pods.
        environment = {**environment, "SWITCHYARD_STATE": str(self.folder / "state")}
        if self.server.kubernetes:
            environment |= {"KUBECONFIG": str(self.server.kubernetes.kubeconfig)}
            try:
                environment |= self._secrets()
            except LookupError as missing:
                self.tasks[self._task]["message"] = f"CreateContainerConfigError: secret {missing} not found"
                return 1
        if self.parent:
            plugin = {
                "MLFLOW_TRACKING_URI": self.server.mlflow,
                "MLFLOW_RUN_ID": self.nested[self._task],
                "MLFLOW_EXPERIMENT_ID": self.experiment,
            }
            environment = {**environment, **plugin}
        log = self.folder / f"pod-{self._task}.log"
        at = [""]
        job = Job("switchyard.pipelines.runners.kubeflow.local.backend:run_in_process", list(command), log, env=environment)

        def say(text):
            # In a pod it goes to standard error.
            at[0] = text.partition(":")[0] if THEN in self._task else ""
            with open(log, "a") as file:
                file.write(f"{self._task}: {text}\n")

        try:
            self.server.processes.run(job, say)
        except Exception as error:
            # The launcher makes 1 of every exit code.
            said = f"main: Error (exit code 1): {failure.last_words(classify(error, None), at[0])}"
            self.tasks[self._task]["message"] = "pod deleted" if "lost" in self.tasks[self._task] else said
            return 1
        return 0

    def _secrets(self):
        """Mounts the secrets of the task that runs; returns those that are variables. Raises LookupError."""
        given = self.platform.get(f"exec-{self._task}", {})
        variables = {}
        for one in given.get("secretAsEnv", []):
            found = self._secret(one)
            variables |= {k["envVar"]: found[k["secretKey"]] for k in one["keyToEnv"]}
        for one in given.get("secretAsVolume", []):
            place = Path(one["mountPath"])
            place.mkdir(parents=True, exist_ok=True)
            for key, value in self._secret(one).items():
                (place / key).write_text(value)
        return variables

    def _secret(self, given):
        name = given.get("secretName") or given["secretNameParameter"]["runtimeValue"]["constant"]
        found = self.server.kubernetes.secret(name)
        if found is None:
            raise LookupError(repr(name))
        return found

    def pods(self):
        """The pods of the executors, as Kubernetes shows them."""
        executors = self.spec["deploymentSpec"]["executors"]
        for name, t in list(self.tasks.items()):
            if t.get("cached"):
                continue
            node = self.node(name, "executor(0)" if self._retried(name) else "executor")
            template = ("retry-" if self._retried(name) else "") + "system-container-impl"
            resources = executors[f"exec-{name}"].get("container", {}).get("resources", {})
            limits = {"cpu": resources.get("resourceCpuLimit"), "memory": resources.get("resourceMemoryLimit")}
            main = {"name": "main", "resources": {"limits": {k: v for k, v in limits.items() if v}}}
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{self.workflow}-{template}-{node.rpartition('-')[2]}",
                    "namespace": "kubeflow",
                    "labels": {"pipeline/runid": self.id},
                },
                "spec": {"containers": [{"name": "wait"}, main]},
                "status": {"phase": _PHASES[t["state"]]},
            }

    def _plugin_start(self):
        client = self.server.client()
        name = self.body.get("plugins_input", {}).get("mlflow", {}).get("experiment_name") or "Default"
        found = client.get_experiment_by_name(name)
        self.experiment = found.experiment_id if found else client.create_experiment(name)
        self.parent = client.create_run(self.experiment, run_name=self.name).info.run_id
