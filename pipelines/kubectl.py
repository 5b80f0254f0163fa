"""A cluster's own objects, asked by kubectl with the user's kubeconfig."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any


class KubectlError(Exception):
    """Kubectl is not there, reaches no cluster, or may not: the reason in one line."""


def run(*arguments: str) -> str:
    """Returns what kubectl prints.

    Raises:
        KubectlError: it failed.
    """
    done = _call(*arguments)
    if done.returncode:
        raise _error(done)
    return done.stdout


def get(kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
    """Returns an object; None: there is none of that name, or the cluster has no such kind.

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
    """Returns the objects of a kind.

    Raises:
        KubectlError: they cannot be listed.
    """
    where = ["-n", namespace] if namespace else []
    found: list[dict[str, Any]] = json.loads(run("get", kind, "-o", "json", *where))["items"]
    return found


def may(verb: str, resource: str, namespace: str, account: str) -> bool:
    """Returns whether a service account may do something in its namespace.

    Raises:
        KubectlError: that cannot be found out.
    """
    who = f"--as=system:serviceaccount:{namespace}:{account}"
    done = _call("auth", "can-i", verb, resource, "-n", namespace, who)
    said = done.stdout.strip()
    # It ends with 1 for `no` as for what it could not ask, and warns of a kind that the cluster lacks.
    if said.startswith(("yes", "no")):
        return said.startswith("yes")
    raise _error(done)


def _call(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("kubectl"):
        raise KubectlError("kubectl is not on the PATH")
    return subprocess.run(["kubectl", "--request-timeout=10s", *arguments], capture_output=True, text=True, check=False)


def _error(done: subprocess.CompletedProcess[str]) -> KubectlError:
    lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
    return KubectlError(f"kubectl: {lines[-1]}")
