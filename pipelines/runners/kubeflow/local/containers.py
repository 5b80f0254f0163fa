"""Runs a task in a container by Docker's API. KFP's own function reports a failed container as success under podman."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from switchyard.components.errors import Failure, StageError, UserError, first_line
from switchyard.pipelines.runners.kubeflow.task.failure import ERROR_PREFIX

_log = logging.getLogger(__name__)


class Containers:
    """Runs tasks as containers with folders of this machine mounted."""

    def __init__(self, mounts: Mapping[str, str]) -> None:
        self._mounts = mounts

    @staticmethod
    def check(images: Collection[str]) -> None:
        """Raises UserError when Docker does not answer or an image is missing."""
        client = _client()
        try:
            for image in sorted(images):
                if not _image_exists(client, image):
                    raise UserError(
                        f"kubeflow.image: {image!r} is not on this machine; build it with `make image`, or set another image."
                    )
        finally:
            client.close()

    def run(
        self,
        stages: Sequence[str],
        image: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        volumes: Mapping[str, Any],
        log: Path,
        say: Callable[[str], None],
    ) -> None:
        """Runs a command; its output goes to `log`, its stages' progress to `say`, prefixed with the stage if there are several.

        Raises:
            UserError, DataGateError, StageError: the task failed with it.
        """
        binds = {folder: {"bind": folder, "mode": mode} for folder, mode in self._mounts.items()}
        client = _client()
        try:
            container = client.containers.run(
                image=image,
                command=list(command),
                environment=dict(environment),
                volumes={**volumes, **binds},
                # Files written by the container belong to the current user.
                user=f"{os.getuid()}:{os.getgid()}",
                network_mode="host",
                detach=True,
            )
            try:
                errors = _follow(container, stages, log, say)
                code = int(container.wait()["StatusCode"])
            finally:
                container.remove(force=True)
        finally:
            client.close()
        if code:
            if errors:
                raise Failure.of_exit_code(code, "\n".join(errors)).error()
            raise StageError(f"its container ended with exit code {code}. Log: {log}")


def _follow(container: Any, stages: Sequence[str], log: Path, say: Callable[[str], None]) -> list[str]:
    errors: list[str] = []
    names = tuple(f"{stage}: " for stage in stages)
    with open(log, "ab") as file:
        rest = b""
        for chunk in container.logs(stream=True, follow=True):
            file.write(chunk)
            file.flush()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                text = line.decode("utf-8", "replace")
                if text.startswith(ERROR_PREFIX):
                    errors.append(text.removeprefix(ERROR_PREFIX))
                elif text.startswith(names):
                    say(text if len(stages) > 1 else text.removeprefix(names[0]))
    return errors


def _client() -> Any:
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise UserError(
            f"Docker is unreachable ({first_line(error)}). Start it, or set DOCKER_HOST to podman's socket: "
            "podman system service --time=0 unix:///run/podman/podman.sock"
        ) from None
    return client


def _image_exists(client: Any, image: str) -> bool:
    import docker

    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        return False
    return True
