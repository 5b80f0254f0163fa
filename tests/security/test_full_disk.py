"""A disk that is full, inside a stage and outside of one: the message says so, which, and what to do. Real ones of a megabyte."""

import asyncio
import json
import mmap
import multiprocessing
import os
import resource
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from switchyard.components.errors import StageError, UserError
from switchyard.components.process.full_disk import full_disk
from switchyard.components.process.variables import PRELOAD_LOG, PRELOAD_TRAINERS
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.journal import Journal
from switchyard.pipelines.runners.local.process import Job, StageProcesses
from switchyard.pipelines.workspace import Workspace
from tests.command import BEFORE_TRAINING, BREAST_CANCER, REPOSITORY, STAGES

WHAT_TO_DO = "Free some space there, or use another folder"


@pytest.fixture
def disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


class Processes(StageProcesses):
    """Without the fork server, whose imports take half a minute."""

    def __init__(self, monkeypatch):
        for name in (PRELOAD_LOG, PRELOAD_TRAINERS):
            monkeypatch.setenv(name, "")
        super().__init__(Path(os.devnull), [])
        for name in (PRELOAD_LOG, PRELOAD_TRAINERS):
            monkeypatch.delenv(name)
        self._context = multiprocessing.get_context("spawn")

    def warm(self):
        pass


@pytest.fixture
def failure(monkeypatch):
    """The error that a failing job reports."""

    def run(job, payload, log):
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        with pytest.raises(StageError) as failed:
            Processes(monkeypatch).run(Job(f"{__name__}:{job}", str(payload), log), lambda text: None)
        return str(failed.value)

    return run


def fill(folder):
    """To the last byte."""
    with open(os.path.join(folder, "filler"), "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def write_too_much(folder):
    fill(folder)
    with open(os.path.join(folder, "model.bin"), "wb") as file:
        file.write(bytes(1 << 20))


def print_too_much(folder):
    fill(folder)
    for _ in range(100_000):
        print("the log lies on the disk that is full")


def fail_as_a_library_does(folder):
    fill(folder)
    raise RuntimeError(f"INTERNAL: {folder}/Split-train/part-00001; No space left on device")


def end_without_a_word(folder):
    fill(folder)
    os._exit(1)


def write_to_memory_that_is_a_file(folder):
    with open(os.path.join(folder, "sparse"), "w+b") as file:
        file.truncate(4 << 20)
        memory = mmap.mmap(file.fileno(), 4 << 20)
        memory[:] = b"1" * (4 << 20)


def write_a_file_beyond_the_limit(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, 1 << 10))
    print("x" * 2000)


@pytest.mark.core
@pytest.mark.parametrize("job", ["write_too_much", "print_too_much", "fail_as_a_library_does", "end_without_a_word"])
def test_a_stage_that_fills_the_disk_of_its_log_ends_with_a_message(disk, failure, job):
    told = failure(job, disk, disk / "logs" / "stage.log")

    assert "the disk is full" in told
    assert f"No space is left on the file system at {disk} (0.0 of 1.0 MB free" in told
    assert WHAT_TO_DO in told
    assert f"Log: {disk / 'logs' / 'stage.log'}" in told
    assert "Traceback" not in told


@pytest.mark.core
def test_a_log_that_cannot_be_created_ends_the_run_with_a_message(disk, failure):
    fill(disk)

    told = failure("write_too_much", disk, disk / "logs" / "stage.log")

    assert f"No space is left on the file system at {disk}" in told


def test_a_disk_without_free_inodes_is_reported_as_full(disk, failure):
    subprocess.run(["mount", "-o", "remount,nr_inodes=3", disk], check=True)
    (disk / "a").touch()
    (disk / "b").touch()

    told = failure("write_too_much", disk, disk / "logs" / "stage.log")

    assert "MB free, no more files)" in told


def test_full_shared_memory_is_named(disk, failure):
    told = failure("write_to_memory_that_is_a_file", disk, disk / "stage.log")

    assert "killed by SIGBUS. Perhaps a disk, or the shared memory in /dev/shm, is full." in told
    assert f"No space is left on the file system at {disk}" in told


@pytest.mark.core
def test_a_limit_on_the_size_of_files_is_reported_as_a_full_disk(tmp_path, failure):
    told = failure("write_a_file_beyond_the_limit", tmp_path, tmp_path / "stage.log")

    assert "the disk is full (File too large). A file reached its largest allowed size" in told
    assert "ulimit -f" in told


@pytest.mark.core
def test_a_full_temporary_folder_is_named(disk, failure, monkeypatch, tmp_path):
    fill(disk)
    subprocess.run(["mount", "-o", "remount,nr_inodes=2", disk], check=True)
    monkeypatch.setattr("tempfile.tempdir", str(disk))

    told = failure("write_too_much", disk, tmp_path / "stage.log")

    assert told.startswith("no temporary folder: the disk is full")
    assert "TMPDIR for temporary files" in told


@pytest.mark.core
def test_a_record_that_cannot_be_kept_is_reported_as_lost(disk):
    fill(disk)
    run = tracking.Run(None, None, Journal(disk / "journal", "training"))

    run.metrics({"loss": 0.5})

    assert run.lost.startswith("a part of the run's record is lost (metrics): the disk is full")


@pytest.mark.core
def test_a_record_that_does_not_fit_damages_no_later_one(disk):
    journal = Journal(disk, "training")
    journal.append({"op": "tags", "tags": {"a": "1"}})
    fill(disk)
    os.truncate(disk / "filler", os.path.getsize(disk / "filler") - 4096)  # room for a part of it

    with pytest.raises(OSError, match="No space"):
        journal.append({"op": "tags", "tags": {"b": "x" * 20_000}})
    journal.append({"op": "tags", "tags": {"c": "2"}})

    lines = (disk / "training.jsonl").read_text().splitlines()
    assert [json.loads(line)["tags"] for line in lines] == [{"a": "1"}, {"c": "2"}]


@pytest.mark.core
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("ResourceExhaustedError: /nowhere/part-00001; No space left on device"),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
        OSError(122, "Disk quota exceeded", "/tmp/x"),
    ],
)
def test_every_error_of_a_full_disk_is_recognized(error):
    assert full_disk(error).startswith("the disk is full")


@pytest.mark.core
@pytest.mark.parametrize("error", [ValueError("loss is NaN"), UserError("x: File too large: 2 MiB"), OSError(13, "no")])
def test_other_errors_are_not_reported_as_a_full_disk(error):
    assert full_disk(error) is None


def test_a_run_in_a_full_workspace_ends_with_a_message(disk, tmp_path, warm):
    subprocess.run(["mount", "-o", "remount,size=6m", disk], check=True)
    data = tmp_path / "d.csv"
    data.write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(200_000)))
    arguments = ["--data", data, "--label", "y", "--workspace", disk / "w", "--set", "trainer.hyperparameters.epochs=1"]

    full = warm("run", *arguments)

    assert full.code == 1
    assert "failed: ingest: the disk is full" in full.stdout
    assert f"No space is left on the file system at {disk}" in full.stdout
    assert WHAT_TO_DO in full.stdout
    assert "Traceback" not in full.stderr + full.stdout
    subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
    assert warm("run", *arguments).code in (0, 4)


@contextmanager
def full_from(log, disk):
    """Fills the disk when a file that matches `log` appears, and leaves no byte that is freed; empties it at the end."""
    before, over = set(disk.glob(log)), threading.Event()

    def watch():
        while not over.is_set() and set(disk.glob(log)) <= before:
            time.sleep(0.01)
        while not over.is_set():
            fill(disk)
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        (disk / "filler").unlink(missing_ok=True)


@pytest.mark.timeout(3600)  # fourteen runs
@pytest.mark.parametrize("trainer", ["pytorch", "tensorflow"])
def test_a_disk_full_at_the_start_of_any_stage_ends_the_run_with_a_message(disk, tmp_path, warm, trainer):
    subprocess.run(["mount", "-o", "remount,size=300m", disk], check=True)
    arguments = ["--trainer", trainer, "--set", "trainer.hyperparameters.epochs=3"]
    arguments += ["--set", "tune={trials: 2, space: {learning_rate: [0.01, 0.02]}}"]

    stages = [*BEFORE_TRAINING, "tuning", *STAGES[len(BEFORE_TRAINING) :]]
    for stage in stages:
        # The given schema depends on no other stage, and would be cached before its turn.
        workspace = "schema alone" if stage == "schema" else "w"
        with full_from(f"{workspace}/logs/*/{stage}.log", disk):
            full = warm("run", BREAST_CANCER, "--workspace", disk / workspace, "--json", *arguments)
        print(stage, full.code, full.stderr, full.stdout)
        assert full.code == 1, stage
        assert "the disk is full" in full.json["error"], stage
        assert f"No space is left on the file system at {disk} (" in full.json["error"], stage
        assert "Traceback" not in full.stderr, stage

    # What they left is taken for whole by none of the stages.
    after = warm("run", BREAST_CANCER, "--workspace", disk / "w", "--json", *arguments)
    assert after.code in (0, 4), after.stderr  # 4: its own model is the champion already, if registered before the report failed
    undisturbed = warm.run(BREAST_CANCER, tmp_path / "w", *arguments)
    assert after.json["metrics"] == pytest.approx(undisturbed.json["metrics"], abs=0.02)


@pytest.mark.core
def test_a_full_access_log_fails_no_request_and_is_reported_once(caplog):
    from switchyard.components.serving.answering import ServerState
    from switchyard.components.serving.app import create_app
    from switchyard.components.serving.metrics import Metrics
    from switchyard.components.serving.rollout import Rollout, StopRule
    from switchyard.components.serving.served_model import Limits
    from switchyard.components.serving.server import _access_log

    async def ask(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return [(await client.get("/v2")).status_code for _ in range(3)]

    with _access_log("/dev/full") as log:
        state = ServerState("m", Rollout(0.0, StopRule()), Limits(), Metrics(), "1")
        assert asyncio.run(ask(create_app(state, token=None, access_log=log))) == [200, 200, 200]

    assert [r.message for r in caplog.records if "access log" in r.message] == [
        "the access log cannot be written; requests from now on are missing in it: No space left on device"
    ]


@pytest.mark.core
def test_an_error_that_names_no_file_names_the_disk_of_the_workspace(disk):
    """SQLite's has no path, nor has that of a file that is open: the temporary folder's disk, with room, was named."""
    Workspace(disk / "w").create()
    fill(disk)

    for error in (RuntimeError("(sqlite3.OperationalError) database or disk is full"), OSError(28, "No space left on device")):
        assert f"No space is left on the file system at {disk} (0.0 of 1.0 MB free" in full_disk(error)


@pytest.mark.core
def test_predictions_that_do_not_fit_name_their_disk(disk):
    from switchyard.pipelines.api.predict import _named_when_full

    fill(disk)
    with pytest.raises(StageError, match=f"file system at {disk} "), _named_when_full(disk / "out.csv.parts"):
        raise RuntimeError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device")
