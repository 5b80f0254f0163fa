"""Any KFP, reached as a user reaches it: by `switchyard`, its API and, where it is there, kubectl. Takes away what it made."""

import json
import os
import shlex
import shutil
import subprocess
import time
import urllib.request
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from switchyard.components.errors import StageError, UserError
from switchyard.pipelines.runners.kubeflow.cluster.client import Connection, KubeflowClient
from switchyard.pipelines.runners.kubeflow.cluster.run import TERMINAL
from tests.command import BREAST_CANCER, Finished, switchyard

STAND_IN = "stand-in"
# What is trained is compared with itself alone: a few epochs, and no gate.
_SETTINGS = ("trainer.hyperparameters.epochs=5", "evaluation.thresholds={}", "evaluation.improvement=null")


class AnyCluster:
    """A KFP, and everything that the suite makes on it under one name of its own.

    Args:
        given: pytest's options; see tests/plugins/any_cluster.py.
        warm: the command without its start-up time.
        folder: for workspaces.
        stand_in: (address, MLflow) of the stand-in; None: a real one.
    """

    def __init__(self, given, warm, folder, stand_in):
        self._given, self._warm, self.folder, self.is_stand_in = given, warm, folder, stand_in is not None
        self.host, self.mlflow = stand_in or (given("host"), given("mlflow"))
        self.name = f"switchyard_check_{uuid.uuid4().hex[:6]}"
        self.connection = ["--host", self.host]
        for option in ("namespace", "token-file"):
            if given(option):
                self.connection += [f"--{option}", given(option)]
        connected = Connection(self.host, given("namespace"), given("token-file") and Path(given("token-file")).absolute())
        self.client = KubeflowClient(connected)
        # For kubectl; a real cluster's is the user's own.
        self.kubeconfig = {"KUBECONFIG": str(self._stand_ins_kubeconfig())} if self.is_stand_in else {}
        # Of Kubernetes' objects: kind and name.
        self.made = []
        self._kubectl = None

    def _stand_ins_kubeconfig(self):
        path = self.folder / "kubeconfig"
        path.write_bytes(urllib.request.urlopen(f"{self.host}/stand-in/kubeconfig").read())
        return path

    def mounted(self, path):
        """Returns where a claim or a secret is mounted at `path`: the stand-in's tasks run on this machine."""
        return str(self.folder / "mounts" / path.lstrip("/")) if self.is_stand_in else path

    def settings(self, *more):
        found = [f"name={self.name}", f"tracking.experiment={self.name}", f"serving.model_name={self.name}", *_SETTINGS]
        if self._given("image"):
            found.append(f"kubeflow.image={self._given('image')}")
        if self.mlflow:
            found.append(f"tracking.uri={self.mlflow}")
        if self.is_stand_in:
            found.append(f"kubeflow.defaults.environment.MLFLOW_TRACKING_URI={self.mlflow}")
        return [part for s in (*found, *shlex.split(self._given("set")), *more) for part in ("--set", s)]

    def command(self, *arguments):
        """Runs the command in the process that has its imports behind it."""
        return self._warm(*arguments)

    def command_with_kubectl(self, *arguments):
        """Runs the command, which asks kubectl, in a process of its own."""
        return switchyard(*arguments, env=self.kubeconfig)

    def runs(self, *arguments):
        done = self.command(
            "runs", *arguments, *self.connection, *(["--tracking-uri", self.mlflow] if self._reconciles(arguments) else [])
        )
        assert done.code == 0, f"exit code {done.code}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _reconciles(self, arguments):
        return self.mlflow and arguments[0] in ("list", "show", "terminate")

    def submit(self, *settings, options=(), expect=0, fresh=False):
        """Submits the example; returns what `--json` printed. `fresh`: by a process of its own, beside other commands."""
        command = switchyard if fresh else self.command
        where = [
            *self.connection,
            "--workspace",
            self.folder / "workspace",
            "--poll",
            "0.5" if self.is_stand_in else "5",
            "--json",
        ]
        done: Finished = command(
            "submit", BREAST_CANCER, *where, *self.settings(*settings), *options, **({"timeout": 3600} if fresh else {})
        )
        assert done.code == expect, f"exit code {done.code}, expected {expect}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout.splitlines()[-1])

    def run_here(self, *settings):
        """Runs the example on this machine; returns what `--json` printed."""
        own = self.settings(*settings)
        here = [
            p for s, v in zip(own[::2], own[1::2], strict=True) if not v.startswith(("kubeflow.", "tracking.uri")) for p in (s, v)
        ]
        return json.loads(self._warm.run(BREAST_CANCER, self.folder / "here", *here).stdout.splitlines()[-1])

    def newest(self, experiment=None, seconds=300):
        """Waits for a run of an experiment, and returns its id."""
        return self.until(lambda: next((r.run_id for r in self.client.runs(experiment or self.name, 1)), None), seconds, "a run")

    def until(self, look, seconds, what):
        """Waits until `look()` returns something."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = None
            with suppress(StageError):  # away for a moment
                found = look()
            if found:
                return found
            time.sleep(0.3 if self.is_stand_in else 3)
        raise AssertionError(f"{what}: not after {seconds} s")

    def ended(self, run_id, seconds=1800):
        return self.until(lambda: r.state if (r := self.client.run(run_id)).state in TERMINAL else None, seconds, "its end")

    def store(self):
        """Returns MLflow's client, or skips."""
        if not self.mlflow:
            pytest.skip("needs MLFLOW=URI: what MLflow holds is asked from this machine")
        return MlflowClient(tracking_uri=self.mlflow)

    def parent(self, run_id):
        """Returns the MLflow run of a KFP run, and those below it by stage."""
        store = self.store()
        experiment = store.get_experiment_by_name(self.name).experiment_id
        plugin = self.client.run(run_id).plugin
        if plugin:
            parent = store.get_run(plugin.run_id)
        else:
            [parent] = store.search_runs([experiment], f"tags.`switchyard.kfp_run_id` = '{run_id}'")
        below = store.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
        return parent, {r.data.tags.get("switchyard.stage", r.info.run_name): r for r in below}

    def kill_pod(self, run_id, task):
        """Deletes the pod of a task, as a drained node does; or skips."""
        if self.is_stand_in:
            urllib.request.urlopen(urllib.request.Request(f"{self.host}/stand-in/runs/{run_id}/evict/{task}", method="POST"))
            return
        workflow = self.client.workflow(run_id)
        pod = workflow.pod_name(workflow.executors(task)[-1])
        self.kubectl("delete", "pod", pod, "--wait=false")

    def tick(self, schedule):
        """Returns the first run of a schedule whose time has come."""
        if self.is_stand_in:
            request = urllib.request.Request(f"{self.host}/stand-in/recurringruns/{schedule}/tick", method="POST")
            return json.loads(urllib.request.urlopen(request).read())["run_id"]
        found = lambda: next((r.run_id for r in self.client.runs(self.name, 50) if r.schedule == schedule), None)  # noqa: E731
        return self.until(found, 180, "the schedule's first run")

    # Kubernetes

    def needs_kubectl(self, run_id):
        """Skips where kubectl does not reach the cluster that KFP is on: it finds no pod of a run of ours."""
        if self._kubectl is None:
            self._kubectl = self._why_no_kubectl(run_id)
        if self._kubectl:
            pytest.skip(self._kubectl)

    def _why_no_kubectl(self, run_id):
        if not shutil.which("kubectl"):
            return "needs kubectl on the PATH"
        done = self._run_kubectl("get", "pods", "-l", f"pipeline/runid={run_id}", "-o", "name")
        if done.returncode:
            return f"needs kubectl with a kubeconfig for this cluster: {done.stderr.strip().splitlines()[-1]}"
        return "" if done.stdout.strip() else f"needs kubectl with a kubeconfig for this cluster: it shows no pod of run {run_id}"

    @property
    def namespace(self):
        return self._given("namespace") or "kubeflow"

    def _run_kubectl(self, *arguments, content=None):
        command = ["kubectl", "-n", self.namespace, "--request-timeout=30s", *arguments]
        env = {**os.environ, **self.kubeconfig}
        return subprocess.run(command, input=content, capture_output=True, text=True, check=False, env=env)

    def kubectl(self, *arguments, content=None):
        done = self._run_kubectl(*arguments, content=content)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def has(self, kind, name):
        return self._run_kubectl("get", kind, name, "-o", "name").returncode == 0

    def main_container(self, run_id, task):
        """Returns the container of a task's last pod that does its work."""
        workflow = self.client.workflow(run_id)
        pod = json.loads(self.kubectl("get", "pod", workflow.pod_name(workflow.executors(task)[-1]), "-o", "json"))
        return next(c for c in pod["spec"]["containers"] if c["name"] == "main")

    # The end

    def clean_up(self):
        """Deletes what the suite made; raises AssertionError for what is left."""
        left = []
        for what, delete in self._deletions():
            try:
                delete()
            except (UserError, StageError, MlflowException, AssertionError) as error:
                left.append(f"{what}: {error}")
        assert not left, "left behind: " + "; ".join(left)

    def _deletions(self):
        runs, schedules = self.client.service("RunServiceApi"), self.client.service("RecurringRunServiceApi")
        pipelines, experiments = self.client.service("PipelineServiceApi"), self.client.service("ExperimentServiceApi")

        def call(method, *arguments):
            def delete():
                with self.client.errors(f"delete {arguments[-1]}"):
                    method(*arguments, **self.client.given)

            return delete

        experiment = self.client.experiment(self.name)
        with self.client.errors("list recurring runs"):
            found = schedules.recurring_run_service_list_recurring_runs(
                experiment_id=experiment, **self.client.given
            ).recurring_runs
        for schedule in found or []:
            yield "schedule", call(schedules.recurring_run_service_delete_recurring_run, schedule.recurring_run_id)
        for run in self.client.runs(self.name, 200):
            if run.state not in TERMINAL:
                yield "run", lambda run=run: (self.client.terminate(run.run_id), self.ended(run.run_id, 120))
            yield "run", call(runs.run_service_delete_run, run.run_id)
        yield "experiment", call(experiments.experiment_service_delete_experiment, experiment)
        name = self.name.replace("_", "-")
        with self.client.errors("list pipelines"):
            where = self.client.filter("display_name", name)
            found = pipelines.pipeline_service_list_pipelines(
                filter=where, namespace=self._given("namespace") or "", **self.client.given
            )
        for pipeline in found.pipelines or []:
            with self.client.errors("list versions"):
                listed = pipelines.pipeline_service_list_pipeline_versions(
                    pipeline.pipeline_id, page_size=100, **self.client.given
                )
            for version in listed.pipeline_versions or []:
                delete = pipelines.pipeline_service_delete_pipeline_version
                yield "version", call(delete, pipeline.pipeline_id, version.pipeline_version_id)
            yield "pipeline", call(pipelines.pipeline_service_delete_pipeline, pipeline.pipeline_id)
        for kind, what in self.made:
            yield kind, lambda kind=kind, what=what: self.kubectl("delete", kind, what, "--ignore-not-found", "--wait=false")
        if self.mlflow:
            store = MlflowClient(tracking_uri=self.mlflow)
            with suppress(MlflowException):  # no run came so far
                store.get_registered_model(self.name)
                yield "registered model", lambda: store.delete_registered_model(self.name)
            tracked = store.get_experiment_by_name(self.name)
            if tracked:
                yield "MLflow experiment", lambda: store.delete_experiment(tracked.experiment_id)
