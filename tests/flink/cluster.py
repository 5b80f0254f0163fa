"""A Flink cluster of real processes on this machine: a job manager and task managers, from the jars of `make flink`."""

import json
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.command import REPOSITORY, free_port

FLINK = REPOSITORY / ".cache" / "flink"
JAR = FLINK / "job-server.jar"
# A worker that dies fails every part of the job that used it, each of them an attempt, until all have let go of it.
_CONFIG = """\
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: localhost
taskmanager.host: localhost
taskmanager.bind-host: localhost
rest.address: localhost
rest.bind-address: localhost
rest.port: {rest}
io.tmp.dirs: {folder}
heartbeat.interval: 1000
heartbeat.timeout: 8000
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 30
restart-strategy.fixed-delay.delay: 3 s
taskmanager.numberOfTaskSlots: 2
taskmanager.cpu.cores: 2
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 384m
taskmanager.memory.task.off-heap.size: 64m
taskmanager.memory.managed.size: 256m
taskmanager.memory.network.min: 192m
taskmanager.memory.network.max: 192m
taskmanager.network.sort-shuffle.min-buffers: 32
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
"""
_ENTRY = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASKS = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"


@dataclass
class Cluster:
    folder: Path
    rest: int
    task_managers: list[subprocess.Popen] = field(default_factory=list)

    @property
    def master(self):
        return f"localhost:{self.rest}"

    def ask(self, path):
        with urllib.request.urlopen(f"http://{self.master}{path}", timeout=10) as answer:
            return json.load(answer)

    def add_task_manager(self):
        log = (self.folder / f"tasks-{len(self.task_managers)}.log").open("wb")
        self.task_managers.append(_java(_TASKS, self.folder, log))

    def wait_for_task_managers(self, count, seconds=90):
        deadline = time.monotonic() + seconds
        while True:
            try:
                if len(self.ask("/taskmanagers")["taskmanagers"]) >= count:
                    return
            except OSError:
                pass
            assert time.monotonic() < deadline, f"no {count} task managers; logs: {self.folder}"
            time.sleep(0.3)

    def workers(self):
        """Beam's Python workers, of all task managers."""
        children = [c for m in self.task_managers if m.poll() is None for c in psutil.Process(m.pid).children()]
        return [c for c in children if _is_worker(c)]


def _is_worker(process):
    try:
        return "switchyard-beam-worker" in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False


def _java(main, folder, log):
    command = ["java", "-Xmx768m", "--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED"]
    command += ["-cp", f"{FLINK / 'lib'}/*", main, "--configDir", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)


@contextmanager
def flink_cluster(folder, task_managers=2):
    """Yields a cluster that is up."""
    cluster = Cluster(folder, free_port())
    config = _CONFIG.format(rpc=free_port(), rest=cluster.rest, folder=folder)
    (folder / "flink-conf.yaml").write_text(config)
    manager = _java(_ENTRY, folder, (folder / "jobs.log").open("wb"))
    try:
        for _ in range(task_managers):
            cluster.add_task_manager()
        cluster.wait_for_task_managers(task_managers)
        yield cluster
    finally:
        for process in [manager, *cluster.task_managers]:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                child.kill()
            process.kill()
            process.wait()
