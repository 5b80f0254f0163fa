"""Starts a bundle's server in a subprocess and sends requests to it over one connection."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from switchyard.components.bundle.model import bundle_info
from switchyard.components.errors import StageError, UserError, last_line
from switchyard.components.infra_validation.server_main import NAME
from switchyard.components.process import interpreter
from switchyard.components.serving.server import bind
from switchyard.components.training.workers.module_server import ForkedProcess, running_module_server

_HOST = "127.0.0.1"
_STOP_SECONDS = 30
_REQUEST_SECONDS = 60
_POLL_SECONDS = 0.05


class ServerProcess:
    """A ready server in a subprocess.

    Attributes:
        startup_seconds: seconds from the start of the process until it was ready.
    """

    def __init__(self, port: int, startup_seconds: float) -> None:
        self._connection = http.client.HTTPConnection(_HOST, port, timeout=_REQUEST_SECONDS)
        self.startup_seconds = startup_seconds

    def infer(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the outputs for inputs of the Open Inference Protocol.

        Raises:
            StageError: the server returned an error or no response.
        """
        found: list[dict[str, Any]] = self._post(f"/v2/models/{NAME}/infer", {"inputs": inputs})["outputs"]
        return found

    def invoke(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the predictions for records of MLflow's protocol; raises as `infer`."""
        found: list[dict[str, Any]] = self._post("/invocations", {"dataframe_records": records})["predictions"]
        return found

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        try:
            self._connection.request("POST", path, json.dumps(document), {"content-type": "application/json"})
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise StageError(f"it did not answer {path}: {error!r}") from error
        if answer.status != http.client.OK:
            raise StageError(f"it answered {path} with {answer.status}: {body.decode(errors='replace')[:500]}")
        found: dict[str, Any] = json.loads(body)
        return found


@contextmanager
def server_process(folder: str, digest: str | None, log: Path, patience_seconds: float) -> Iterator[ServerProcess]:
    """Yields a server for the MLflow Model in `folder`, with its output in `log`; terminates it when the context exits.

    Raises:
        StageError: the server exited or was not ready in time.
    """
    started = time.monotonic()
    with bind(_HOST, 0) as listening, log.open("wb") as output:
        port = listening.getsockname()[1]
        process = _start(folder, digest, listening, output)
    try:
        while not _ready(port):
            if how := process.ended():
                raise StageError(last_line(log) or how)
            if time.monotonic() - started > patience_seconds:
                raise StageError(f"its server was not ready within {patience_seconds:g} s")
            time.sleep(_POLL_SECONDS)
        server = ServerProcess(port, time.monotonic() - started)
        try:
            yield server
        finally:
            server.close()
    finally:
        process.stop(_STOP_SECONDS)


class _Interpreter:
    """A server in a fresh interpreter, with the methods of `ForkedProcess`."""

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        self._process = process

    def ended(self) -> str | None:
        return None if self._process.poll() is None else f"its server ended with exit code {self._process.returncode}"

    def stop(self, seconds: float) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def _start(folder: str, digest: str | None, listening: socket.socket, output: IO[bytes]) -> ForkedProcess | _Interpreter:
    """Starts a server: in a fork that has imported the model's framework alone, if the run has one, see `ModuleServer`."""
    module, arguments = "switchyard.components.infra_validation.server_main", [folder, digest or ""]
    environment = interpreter.environment(_environment())
    framework = _framework(folder)
    server = running_module_server(framework) if framework else None
    if server and (forked := server.start(module, arguments, listening, output, environment)):
        return forked
    return _Interpreter(
        interpreter.start(
            module,
            [str(listening.fileno()), *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[listening.fileno()],
        )
    )


def _framework(folder: str) -> str | None:
    """Returns the bundle's framework; None for a bundle that cannot be read, which its server reports."""
    try:
        return bundle_info(folder).framework
    except (UserError, StageError):
        return None


def _environment() -> dict[str, str]:
    """Returns the server's environment: without the run's variables and without a token for clients."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SWITCHYARD_", "MLFLOW_"))}
    # Evaluation can run in parallel on the same GPU, so let TensorFlow allocate memory as needed.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**kept, **quiet, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
