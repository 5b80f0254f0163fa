"""A stand-in for a cluster with Kubeflow Trainer: Kubernetes' API over HTTP for TrainJobs, pods and logs; a node is a process.

It checks a TrainJob against Kubeflow Trainer's own models, gives nodes the variables of its torch policy
(pkg/runtime/framework/plugins/torch of Kubeflow Trainer 2.0), and makes a new pod for one that failed, as Kubernetes' Job does.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from tests.command import REPOSITORY

JOBS = r"/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/[\w-]+/trainjobs"
BACKOFF_LIMIT = 3


class Pod:
    def __init__(self, job, index, folder, environment):
        self.uid = str(uuid.uuid4())
        self.index, self.name = index, f"{job.name}-node-0-{index}-{self.uid[:5]}"
        self.created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.log = folder / f"{self.name}.log"
        trainer = job.document["spec"]["trainer"]
        variables = {e["name"]: e["value"] for e in trainer["env"]} | environment
        command = [re.sub(r"\$\((\w+)\)", lambda m: variables[m[1]], part) for part in trainer["command"]]
        assert command[0] == "python3"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command[1:]],
                cwd=REPOSITORY,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def phase(self):
        code = self.process.poll()
        return "Running" if code is None else "Succeeded" if code == 0 else "Failed"

    def kill(self):
        # Workers are sessions of their own, as PyTorch's launcher makes them.
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False).stdout.split()
        for pid in [self.process.pid, *map(int, found)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def document(self, job):
        return {
            "metadata": {
                "name": self.name,
                "namespace": job.namespace,
                "uid": self.uid,
                "creationTimestamp": self.created,
                "labels": {
                    "jobset.sigs.k8s.io/jobset-name": job.name,
                    "batch.kubernetes.io/job-completion-index": str(self.index),
                },
            },
            "spec": {"containers": [{"name": "node"}]},
            "status": {"phase": self.phase},
        }


class Job:
    def __init__(self, document, folder, namespace):
        self.document, self.name, self._folder, self.namespace = document, document["metadata"]["name"], folder, namespace
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # The stand-in's nodes share one machine: the service's port is a free one.
        command = document["spec"]["trainer"]["command"]
        document["spec"]["trainer"]["command"] = [part.replace(":29400", f":{port}") for part in command]
        self.failures, self.stopped = 0, False
        self.pods = [self._pod(i) for i in range(document["spec"]["trainer"]["numNodes"])]

    def _pod(self, index):
        trainer = self.document["spec"]["trainer"]
        torch_policy = {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(index),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": "29500",
            "JOB_COMPLETION_INDEX": str(index),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        return Pod(self, index, self._folder, torch_policy)

    def tend(self):
        for pod in list(self.pods):
            newest = [p for p in self.pods if p.index == pod.index][-1]
            if pod is newest and pod.phase == "Failed" and not self.stopped:
                self.failures += 1
                if self.failures <= BACKOFF_LIMIT:
                    self.pods.append(self._pod(pod.index))
        if self.failures > BACKOFF_LIMIT:
            self.stop()

    @property
    def status(self):
        newest = {p.index: p.phase for p in self.pods}
        if all(phase == "Succeeded" for phase in newest.values()):
            return {"conditions": [{"type": "Complete", "status": "True", "message": "all nodes succeeded"}]}
        # Kubernetes' Job ends its other pods first.
        if self.failures > BACKOFF_LIMIT and "Running" not in newest.values():
            return {"conditions": [{"type": "Failed", "status": "True", "message": "backoff limit exceeded"}]}
        return {}

    def stop(self):
        self.stopped = True
        for pod in self.pods:
            if pod.phase == "Running":
                pod.kill()


class TrainerCluster:
    """Attributes: `jobs` by name, `made` and `deleted` names in order, `kubeconfig` for clients, `away`: answer nothing."""

    def __init__(self, folder, namespace="team", handler=None):
        self.namespace = namespace
        self.jobs, self.made, self.deleted, self.away, self.forbidden = {}, [], [], False, False
        self.lock = threading.RLock()
        self._folder = folder
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler or _Handler,), {"cluster": self}))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._tending = True
        self._tender = threading.Thread(target=self._tend, daemon=True)
        self._tender.start()
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "test",
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
                    "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}],
                    "users": [{"name": "test", "user": {}}],
                }
            )
        )

    def _tend(self):
        while self._tending:
            with self.lock:
                for job in self.jobs.values():
                    job.tend()
            time.sleep(0.2)

    def make(self, document):
        assert document["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
        # Unknown fields are dropped by the models: what comes back must be what went in.
        parsed = TrainerV1alpha1TrainJob.from_dict(document).to_dict()
        assert parsed == document, "not a TrainJob of Kubeflow Trainer's API"
        with self.lock:
            job = self.jobs[document["metadata"]["name"]] = Job(json.loads(json.dumps(document)), self._folder, self.namespace)
            self.made.append(job.name)
        return document

    def delete(self, name):
        with self.lock:
            self.jobs.pop(name).stop()
            self.deleted.append(name)

    def close(self):
        self._tending = False
        self._tender.join()
        for job in self.jobs.values():
            job.stop()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    cluster = None
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def _answer(self, code, document):
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refused(self):
        if self.cluster.away:
            self.close_connection = True
            self.connection.close()
            return True
        if self.cluster.forbidden:
            self._answer(403, {"kind": "Status", "message": "trainjobs is forbidden"})
            return True
        return False

    def do_POST(self):
        length = int(self.headers["content-length"])
        document = json.loads(self.rfile.read(length))
        if self._refused():
            return
        if not re.fullmatch(JOBS, urlparse(self.path).path):
            self._answer(404, {"message": self.path})
            return
        try:
            self._answer(201, self.cluster.make(document))
        except Exception as error:
            self._answer(422, {"message": str(error)})

    def do_DELETE(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self._refused():
            return
        name = urlparse(self.path).path.rpartition("/")[2]
        if name not in self.cluster.jobs:
            self._answer(404, {"message": "not found"})
            return
        self.cluster.delete(name)
        self._answer(200, {})

    def do_GET(self):
        if self._refused():
            return
        url = urlparse(self.path)
        query = parse_qs(url.query)
        if match := re.fullmatch(JOBS + "/(.+)", url.path):
            job = self.cluster.jobs.get(match[1])
            self._answer(200, {**job.document, "status": job.status}) if job else self._answer(404, {"message": "not found"})
        elif url.path == f"/api/v1/namespaces/{self.cluster.namespace}/pods":
            name = query["labelSelector"][0].partition("=")[2]
            job = self.cluster.jobs.get(name)
            pods = [p.document(job) for p in job.pods] if job else []
            self._answer(200, {"apiVersion": "v1", "kind": "PodList", "items": pods})
        elif match := re.fullmatch(r"/api/v1/namespaces/[\w-]+/pods/(.+)/log", url.path):
            pods = [p for job in self.cluster.jobs.values() for p in job.pods if p.name == match[1]]
            self._log(pods[0], query) if pods else self._answer(404, {"message": "not found"})
        else:
            self._answer(404, {"message": url.path})

    def _log(self, pod, query):
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        follow = query.get("follow") == ["True"]
        with pod.log.open("rb") as log:
            if "tailLines" in query:
                log.seek(max(0, pod.log.stat().st_size - 2000))
            while not self.cluster.away:
                over = pod.phase != "Running"
                if part := log.read():
                    self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                    self.wfile.flush()
                elif over or not follow:
                    self.wfile.write(b"0\r\n\r\n")
                    return
                else:
                    time.sleep(0.1)
        self.close_connection = True
        self.connection.close()


TrainerCluster.HANDLER = _Handler
