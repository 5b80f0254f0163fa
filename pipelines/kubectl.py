"""Reads a cluster's objects through kubectl with the user's kubeconfig."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any


class KubectlError(Exception):
    """Kubectl is missing, cannot reach a cluster, or lacks permission; the message is one line."""


def run(*arguments: str) -> str:
    """Runs kubectl and returns its standard output.

    Raises:
        KubectlError: kubectl failed.
    """
    done = _call(*arguments)
    if done.returncode:
        raise _error(done)
    return done.stdout


def get(kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
    """Returns an object, or None if the object or its kind does not exist.

    Raises:
        KubectlError: that cannot be found out.
    """
    where = ["-n", namespace] if namespace else []
    try:
        found: dict[str, Any] = json.loads(run("get", kind, name, "-o", "json", *where))
    except KubectlError as error:
        if "NotFound" in str(error) or "doesn't have a resource type" in str(error):
            return None
        raise
    return found


def every(kind: str, namespace: str | None = None) -> list[dict[str, Any]]:
    """Returns all objects of a kind.

    Raises:
        KubectlError: the objects cannot be listed.
    """
    where = ["-n", namespace] if namespace else []
    found: list[dict[str, Any]] = json.loads(run("get", kind, "-o", "json", *where))["items"]
    return found


def may(verb: str, resource: str, namespace: str, account: str) -> bool:
    """Whether a service account has a permission in its namespace.

    Raises:
        KubectlError: that cannot be found out.
    """
    who = f"--as=system:serviceaccount:{namespace}:{account}"
    done = _call("auth", "can-i", verb, resource, "-n", namespace, who)
    answer = done.stdout.strip()
    # Kubectl exits with 1 both for `no` and for errors, and warns of a kind that the cluster lacks.
    if answer.startswith(("yes", "no")):
        return answer.startswith("yes")
    raise _error(done)


def _call(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("kubectl"):
        raise KubectlError("kubectl is not on the PATH")
    return subprocess.run(["kubectl", "--request-timeout=10s", *arguments], capture_output=True, text=True, check=False)


def _error(done: subprocess.CompletedProcess[str]) -> KubectlError:
    lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
    return KubectlError(f"kubectl: {lines[-1]}")
