"""Names the software that trained a model: the lock or the installed packages, the pod's container image, the code's commit.

A training stage stores the first two in its model artifact, so that a cached model keeps those of its training; the registry
stage tags the version with them, and registration with the commit of the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from switchyard.components.errors import first_line
from switchyard.components.user_code.constraints import canonical

LOCK, IMAGE, COMMIT = "switchyard.lock", "switchyard.image", "switchyard.commit"
NO_IMAGE = "none"
_PROPERTY = "environment"
# Tags of a run, which its runner sets.
_RUN_COMMIT, _RUN_UNCOMMITTED = "mlflow.source.git.commit", "switchyard.git.uncommitted_changes"
# The folder of an environment where `make setup` and the Dockerfile leave a copy of the lock that they installed.
_LOCKS = "share/switchyard"
_INSTALLED = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)\.dist-info")
_PIN = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^ ;\\]+)(?P<marker> *;)?")
_OURS = "switchyard"
# Of pods: the service account's namespace, and the container that runs a task of KFP.
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_MAIN = "main"
_TIMEOUT = (3, 10)


def keep_environment(artifact: Any) -> None:
    """Stores this process's lock and image in a run's model artifact."""
    artifact.set_string_custom_property(_PROPERTY, json.dumps({LOCK: lock(), IMAGE: image()}))


def environment_of(artifact: Any) -> dict[str, str]:
    """Returns the tags of the environment stored in a model artifact; empty for one of an earlier version."""
    found: dict[str, str] = json.loads(artifact.get_string_custom_property(_PROPERTY) or "{}")
    return found


def lock(prefix: str = sys.prefix, path: Sequence[str] | None = None) -> str:
    """Returns the digest of the lock that an environment was installed from, and its name.

    Without a copy of the lock, or with packages beside or in place of those that it pins, it is the digest of the list of
    installed packages (`name==version`, sorted by name, a line each), and their number.

    Args:
        prefix: folder of the environment.
        path: folders that modules are found in; default: `sys.path`.
    """
    packages = _installed(sys.path if path is None else path)
    for file in sorted((Path(prefix) / _LOCKS).glob("*.lock")):
        content = file.read_bytes()
        if _is_of(packages, content.decode("utf-8")):
            return f"sha256:{hashlib.sha256(content).hexdigest()} of {file.name}"
    listed = "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))
    return f"sha256:{hashlib.sha256(listed.encode()).hexdigest()} of {len(packages)} installed packages"


def image() -> str:
    """Returns the image of this process's pod as the node pulled it: name and digest.

    Outside of a cluster it is `none`; where Kubernetes does not answer, `unknown` with the reason.
    """
    if "KUBERNETES_SERVICE_HOST" not in os.environ or not _NAMESPACE_FILE.is_file():
        return NO_IMAGE
    try:
        return _image_of_pod(os.environ.get("KFP_POD_NAME") or os.environ["HOSTNAME"])
    except Exception as error:  # its client passes on many types of errors; a model is not lost for them
        return f"unknown: {first_line(error)[:300]}"


def commit_of(tags: Mapping[str, str]) -> str:
    """Returns the commit in a run's tags, and whether files were changed since; empty for code in no repository."""
    changed = {"yes": " with uncommitted changes", "unknown": ", it is unknown whether with uncommitted changes"}
    commit = tags.get(_RUN_COMMIT, "")
    return commit and commit + changed.get(tags.get(_RUN_UNCOMMITTED, ""), "")


def _image_of_pod(pod: str) -> str:
    from kubernetes import client, config

    settings = client.Configuration()
    config.load_incluster_config(client_configuration=settings)
    settings.retries = 0
    namespace = _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    with client.ApiClient(settings) as api:
        found = client.CoreV1Api(api).read_namespaced_pod(pod, namespace, _request_timeout=_TIMEOUT)
    containers = found.status.container_statuses or []
    running = next((c for c in containers if c.name == _MAIN or len(containers) == 1), None)
    if running is None or not running.image_id:
        return f"unknown: pod {pod} has no container {_MAIN} with an image"
    digest = str(running.image_id).removeprefix("docker-pullable://")
    # An image that was loaded onto the node, and not pulled, has an id alone.
    return digest if "@" in digest else f"{running.image} {digest}"


def _installed(path: Sequence[str]) -> dict[str, str]:
    """Returns the installed packages, normalized name -> version, by the names of their folders.

    Those are normative; reading 300 files with the metadata takes as long as the import of a framework.
    """
    found: dict[str, str] = {}
    for folder in (Path(p) for p in path if Path(p).name in ("site-packages", "dist-packages")):
        for entry in sorted(folder.glob("*.dist-info")):
            if (parts := _INSTALLED.fullmatch(entry.name)) and canonical(parts["name"]) != _OURS:
                found.setdefault(canonical(parts["name"]), parts["version"])  # the first folder's is imported
    return found


def _is_of(packages: Mapping[str, str], text: str) -> bool:
    """Whether an environment has exactly the packages of a lock, but for those of other platforms."""
    pins, elsewhere = {}, set()
    for line in text.splitlines():
        if pin := _PIN.match(line):
            name = canonical(pin["name"])
            pins[name] = pin["version"]
            if pin["marker"]:
                elsewhere.add(name)
    return packages.keys() <= pins.keys() and all(
        packages.get(name) == version or (name in elsewhere and name not in packages) for name, version in pins.items()
    )
