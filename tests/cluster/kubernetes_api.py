"""A stand-in for the Kubernetes that KFP is on: its API over HTTP, as kubectl and Kubernetes' Python client ask for it.

It keeps objects, shows the pods of KFP's tasks, runs TrainJobs (`trainer_cluster.py`), and says of an InferenceService what
KServe 0.15.2 in standard mode said (tests/kubeflow/README.md). What it cannot show: scheduling, images, networks.
"""

import base64
import json
import re
import uuid
from urllib.parse import parse_qs, unquote, urlparse

from tests.cluster.trainer_cluster import TrainerCluster

# Group and version -> plural, kind, short name, of one namespace.
_KINDS = {
    "v1": [
        ("namespaces", "Namespace", "ns", False),
        ("pods", "Pod", "po", True),
        ("secrets", "Secret", "", True),
        ("configmaps", "ConfigMap", "cm", True),
        ("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", True),
    ],
    "apps/v1": [("deployments", "Deployment", "deploy", True)],
    "apiextensions.k8s.io/v1": [("customresourcedefinitions", "CustomResourceDefinition", "crd", False)],
    "trainer.kubeflow.org/v1alpha1": [
        ("trainjobs", "TrainJob", "", True),
        ("trainingruntimes", "TrainingRuntime", "", True),
    ],
    "serving.kserve.io/v1beta1": [("inferenceservices", "InferenceService", "isvc", True)],
}
_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v\w+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?"
)
_VERBS = ["create", "delete", "get", "list", "patch", "update"]


def _manager(version):
    container = {"name": "manager", "image": f"kserve/kserve-controller:{version}"}
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


class Kubernetes(TrainerCluster):
    """Attributes: `objects` by (plural, name), `pods`: a function that returns those of KFP's tasks."""

    def __init__(self, folder, pods):
        self.objects, self.pods = {}, pods
        super().__init__(folder, namespace="kubeflow", handler=_Handler)
        self.put("namespaces", "Namespace", {"metadata": {"name": "kubeflow"}})
        for name in ("trainjobs.trainer.kubeflow.org", "inferenceservices.serving.kserve.io"):
            self.put("customresourcedefinitions", "CustomResourceDefinition", {"metadata": {"name": name}})
        self.put("trainingruntimes", "TrainingRuntime", {"metadata": {"name": "switchyard"}})
        self.put("persistentvolumeclaims", "PersistentVolumeClaim", {"metadata": {"name": "switchyard-training"}})
        named = {"metadata": {"name": "kserve-controller-manager"}}
        self.put("deployments", "Deployment", {**named, **_manager("v0.15.2")})
        deploy = json.dumps({"defaultDeploymentMode": "RawDeployment"})
        self.put("configmaps", "ConfigMap", {"metadata": {"name": "inferenceservice-config"}, "data": {"deploy": deploy}})

    def put(self, plural, kind, document):
        version = next(v for v, kinds in _KINDS.items() if any(p == plural for p, *_ in kinds))
        before = self.objects.get((plural, document["metadata"]["name"]), {}).get("metadata", {})
        kept = {"uid": before.get("uid", str(uuid.uuid4())), "generation": before.get("generation", 0) + 1}
        metadata = {"namespace": "kubeflow", **document["metadata"], **kept, "resourceVersion": str(kept["generation"])}
        made = {"apiVersion": version, "kind": kind, **document, "metadata": metadata}
        self.objects[plural, metadata["name"]] = made
        return made

    def secret(self, name):
        """Returns a secret's keys and values; None: there is none."""
        found = self.objects.get(("secrets", name))
        return {k: base64.b64decode(v).decode() for k, v in found["data"].items()} if found else None

    def shown(self, document):
        if document["kind"] != "InferenceService":
            return document
        # As a raw deployment that came up; its canary's share and its scale metric are ignored.
        status = {
            "conditions": [{"type": t, "status": "True"} for t in ("IngressReady", "PredictorReady", "Ready")],
            "deploymentMode": "RawDeployment",
            "modelStatus": {"transitionStatus": "UpToDate", "states": {"activeModelState": "Loaded"}},
            "observedGeneration": document["metadata"]["generation"],
        }
        return {**document, "status": status}


def _discovery(path):
    """Returns what kubectl asks before anything else; None: the path is another one."""
    if path == "/version":
        return {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = []
        for version in list(_KINDS)[1:]:
            one = {"groupVersion": version, "version": version.partition("/")[2]}
            groups.append({"name": version.partition("/")[0], "versions": [one], "preferredVersion": one})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path == "/openapi/v3":
        return {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}"} for p in map(_place, _KINDS)}}
    for version in _KINDS:
        if path == f"/openapi/v3/{_place(version)}":
            return _fields_are_checked(version)
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in _KINDS:
        return None
    resources = [
        {
            "name": plural,
            "singularName": kind.lower(),
            "namespaced": namespaced,
            "kind": kind,
            "verbs": _VERBS,
            "shortNames": [short],
        }
        for plural, kind, short, namespaced in _KINDS[version]
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


def _place(version):
    return f"apis/{version}" if "/" in version else f"api/{version}"


def _fields_are_checked(version):
    """All that kubectl looks for in an OpenAPI document: that the server checks fields itself."""
    group, _, name = version.rpartition("/")
    paths = {}
    for plural, kind, _, _ in _KINDS[version]:
        known = {"group": group, "version": name, "kind": kind}
        patch = {"parameters": [{"name": "fieldValidation", "in": "query"}], "x-kubernetes-group-version-kind": known}
        paths[f"/{_place(version)}/{plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": version, "version": "1"}, "paths": paths}


class _Handler(TrainerCluster.HANDLER):
    def _failed(self, code, reason, message):
        self._answer(
            code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}
        )

    def _wanted(self):
        """Returns kind, plural, name and query; None: a path that there is not."""
        url = urlparse(self.path)
        found = _PATH.fullmatch(unquote(url.path))
        kinds = (
            {p: kind for p, kind, *_ in _KINDS.get("/".join(filter(None, (found["group"], found["version"]))), [])}
            if found
            else {}
        )
        if not found or found["plural"] not in kinds:
            return None
        return kinds[found["plural"]], found["plural"], found["name"], parse_qs(url.query)

    def _body(self):
        return json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")

    def _theirs(self, wanted):
        """Returns whether it is of TrainJobs and their pods."""
        selector = wanted[3].get("labelSelector", [""])[0] if wanted else ""
        return wanted is None or (wanted[1] == "trainjobs" and wanted[2]) or selector.startswith("jobset")

    def do_GET(self):
        document = _discovery(urlparse(self.path).path)
        wanted = self._wanted()
        if document is not None:
            self._answer(200, document)
        elif self._theirs(wanted):
            super().do_GET()
        else:
            self._read(*wanted)

    def _read(self, kind, plural, name, query):
        found = {n: self.cluster.shown(o) for (p, n), o in self.cluster.objects.items() if p == plural}
        if plural == "pods":
            found = {p["metadata"]["name"]: p for p in self.cluster.pods()}
        elif plural == "trainjobs":
            found = {n: {**j.document, "kind": kind} for n, j in self.cluster.jobs.items()}
        if name:
            if name in found:
                self._answer(200, found[name])
            else:
                self._failed(404, "NotFound", f'{plural} "{name}" not found')
            return
        label, _, value = query.get("labelSelector", [""])[0].partition("=")
        items = [o for o in found.values() if not label or o["metadata"].get("labels", {}).get(label) == value]
        self._answer(200, {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {}, "items": items})

    def do_POST(self):
        wanted = self._wanted()
        if wanted is None or wanted[1] == "trainjobs":
            super().do_POST()
            return
        kind, plural, _, _ = wanted
        document = self._body()
        if (plural, document["metadata"]["name"]) in self.cluster.objects:
            self._failed(409, "AlreadyExists", f'{plural} "{document["metadata"]["name"]}" already exists')
        else:
            self._answer(201, self.cluster.put(plural, kind, document))

    def do_PATCH(self):
        wanted = self._wanted()
        kind, plural, name, _ = wanted
        before = self.cluster.objects[plural, name]
        self._answer(200, self.cluster.put(plural, kind, _merged(before, self._body())))

    def do_DELETE(self):
        wanted = self._wanted()
        if wanted is None or wanted[1] == "trainjobs":
            super().do_DELETE()
            return
        self._body()
        if self.cluster.objects.pop(wanted[1:3], None) is None:
            self._failed(404, "NotFound", f'{wanted[1]} "{wanted[2]}" not found')
        else:
            self._answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})


def _merged(before, changes):
    """JSON merge patch, which kubectl sends for custom resources."""
    if not isinstance(before, dict) or not isinstance(changes, dict):
        return changes
    found = {k: _merged(before.get(k), v) for k, v in changes.items() if v is not None}
    return {**{k: v for k, v in before.items() if k not in changes}, **found}
