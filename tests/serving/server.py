"""`switchyard serve` in a process of its own, and what clients send it."""

import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

from tests.command import COMMAND, REPOSITORY, environment, free_port


class Server:
    def __init__(self, process, port, name, log, scheme="http"):
        self.process, self.port, self.name, self.log = process, port, name, log
        self.url = f"{scheme}://127.0.0.1:{port}"

    def request(self, path, body=None, headers=None, context=None):
        """Returns status, headers and body (JSON when it is some)."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers or {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                return answer.status, dict(answer.headers), _read(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), _read(error.read())

    def infer(self, inputs, **more):
        return self.request(f"/v2/models/{self.name}/infer", {"inputs": inputs, **more})

    def metric(self, line):
        """Returns the value of the series that starts with `line`."""
        text = self.request("/metrics")[2]
        return sum(float(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(line))

    def logged(self, **wanted):
        """Returns the access log's entry with these values; it is written after the answer, so it is waited for."""

        def find():
            entries = [json.loads(line) for line in open(f"{self.log}.access") if line.endswith("\n")]
            return next((e for e in entries if wanted.items() <= e.items()), None)

        return wait_until(find, 10, f"an access log entry with {wanted}")

    def stop(self, number=signal.SIGTERM, timeout=60):
        self.process.send_signal(number)
        return self.process.wait(timeout)


def _read(body):
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def start_server(model, log, *arguments, name=None, scheme="http", **env):
    port = free_port()
    command = [*COMMAND, "serve", str(model), "--port", str(port), "--access-log", str(log) + ".access", *map(str, arguments)]
    command += ["--name", name] if name else []
    command += [] if "@" in str(model) else ["--trust"]
    with open(log, "w") as out:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(PYTHONPATH=REPOSITORY, **env), stdout=out, stderr=out)
    return Server(process, port, name or str(model).partition("@")[0], log, scheme)


def wait_until(condition, seconds=60, what=""):
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def until_ready(server, seconds=90, context=None):
    def ready():
        assert server.process.poll() is None, open(server.log).read()
        try:
            return server.request("/v2/health/ready", context=context)[0] == 200
        except OSError:
            return False

    wait_until(ready, seconds, "ready")
    return server


@contextmanager
def serving(model, log, *arguments, **more):
    server = start_server(model, log, *arguments, **more)
    try:
        yield until_ready(server)
    finally:
        if server.process.poll() is None:
            server.stop()
