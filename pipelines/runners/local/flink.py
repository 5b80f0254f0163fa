"""Beam's Flink job server for the duration of a run: submits the stages' Beam pipelines to Flink.

Beam's Python SDK would start a job server in every stage and leave it running when the stage is killed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from switchyard.components.errors import StageError, UserError, last_line
from switchyard.components.process.temporary import TemporaryFolder
from switchyard.pipelines.config.beam import BeamConfig

_HOST = "localhost"
_START_SECONDS = 120
_STOP_SECONDS = 10
_POLL_SECONDS = 0.1


def find_jar(beam: BeamConfig) -> Path:
    """Returns the path of the job server's jar: the config's, else the one built by `make flink`.

    Raises:
        UserError: the jar does not exist, or Java is not installed.
    """
    named = beam.options.get("flink_job_server_jar")
    jar = Path(str(named)) if named else Path(__file__).resolve().parents[3] / ".cache" / "flink" / "job-server.jar"
    if not jar.is_file():
        if named:
            raise UserError(
                f"beam.options.flink_job_server_jar: {jar}: no such file; remove this option to use the one that `make "
                "flink` builds."
            )
        raise UserError(
            f"beam.runner: Beam's Flink job server is missing ({jar}). Build it once with `make flink`, or give the address "
            "of a running one (beam.options.job_endpoint: host:port) or its jar (beam.options.flink_job_server_jar)."
        )
    if not shutil.which(_java(beam)):
        raise UserError(f"beam.runner: Flink needs Java 11 or 17, and {_java(beam)!r} is not on the PATH; install it.")
    return jar


def _java(beam: BeamConfig) -> str:
    return str(beam.options.get("job_server_java_launcher", "java"))


class JobServer:
    """A starting job server, as a context manager; it ends with this process even if that is killed (needs `setpriv`).

    Args:
        beam: config that needs a job server.
        log: file for the server's output.

    Raises:
        UserError: the server cannot be started, see `find_jar`.
    """

    def __init__(self, beam: BeamConfig, log: Path) -> None:
        jar = find_jar(beam)
        self._log = log
        self._folder = TemporaryFolder()
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            self._port: int = probe.getsockname()[1]
        properties = beam.options.get("job_server_jvm_properties", ())
        command = [_java(beam), *(properties if isinstance(properties, tuple) else [str(properties)])]
        # The JVM's temporary files (Flink's RPC system among them) are deleted with the server's folder.
        command += [f"-Djava.io.tmpdir={self._folder.path}", "-jar", str(jar)]
        command += ["--job-host", _HOST, "--job-port", str(self._port), "--artifact-port", "0", "--expansion-port", "0"]
        command += ["--artifacts-dir", os.path.join(self._folder.path, "artifacts"), "--flink-master", beam.flink_master]
        if shutil.which("setpriv"):
            # A killed run cannot stop the server; the kernel kills it with its parent.
            command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def endpoint(self) -> str:
        """Value of Beam's `--job_endpoint`: host:port."""
        return f"{_HOST}:{self._port}"

    def wait(self) -> None:
        """Waits until the server accepts connections.

        Raises:
            StageError: the server ended or the wait timed out.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if self._process.poll() is not None:
                why = last_line(self._log) or "it printed nothing."
                raise StageError(f"Flink's job server ended with exit code {self._process.returncode}: {why} Log: {self._log}")
            try:
                socket.create_connection((_HOST, self._port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise StageError(f"Flink's job server did not listen within {_START_SECONDS} s. Log: {self._log}") from None
                time.sleep(_POLL_SECONDS)
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the server; idempotent."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.remove()
