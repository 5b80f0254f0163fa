"""Warm processes: who is served, for how long, and that a fork is like a process that its client has started."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from switchyard.components.process import unix_socket, variables, warm, warm_key
from tests.command import REPOSITORY, alive, environment

# Of a warm process that imports nothing but `job`, which it finds in its folder.
SERVER = """
import sys
from pathlib import Path
sys.path.append(sys.argv[1])
import job
from switchyard.components.process import unix_socket
from switchyard.components.process.warm_server import WarmServer
{before}
WarmServer(Path(sys.argv[1]), "key", "stages", idle_seconds={idle}).serve()
"""
JOB = """
import json, os, signal, sys, time
def report(payload, descriptors):
    mask = os.umask(0)
    print(json.dumps({"cwd": os.getcwd(), "umask": mask, "x": os.environ.get("X"), "input": sys.stdin.read(),
        "hup": signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, "group": os.getpgid(0) == os.getpid()}))
    return payload
def wait(payload, descriptors):
    try:
        print("pid", os.getpid(), flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        return 7
"""
CLIENT = """
import sys
from switchyard.components.process import warm
warm.enable_as({{"folder": sys.argv[1], "key": "key", "environment": {{}}}})
sys.exit(warm.stand_for("job:{target}", {payload}))
"""


@pytest.fixture
def serve(tmp_path):
    """Returns a function that starts a warm process in `tmp_path` and returns it as it serves."""
    (tmp_path / "job.py").write_text(JOB)
    started = []

    def start(idle=60.0, before=""):
        command = [sys.executable, "-c", SERVER.format(idle=idle, before=before), str(tmp_path)]
        started.append(subprocess.Popen(command, cwd="/", env=environment(PYTHONPATH=REPOSITORY), stdin=subprocess.DEVNULL))
        until((tmp_path / "key-stages").exists)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def enabled(tmp_path):
    warm.enable_as({"folder": str(tmp_path), "key": "key", "environment": {}})
    yield
    warm._enabled.clear()


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# What tests are started by, such as `nohup` or a shell without job control, may ignore them.
DEFAULT_SIGNALS = "--default-signal=HUP,INT,TSTP"


def client(folder, target, payload=None, *, signals=DEFAULT_SIGNALS, **options):
    code = CLIENT.format(target=target, payload=payload)
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True, "cwd": folder, **options}
    # A process group of its own, with a parent outside it: the kernel does not stop processes of an orphaned group.
    command = ["env", signals, sys.executable, "-c", code, str(folder)]
    return subprocess.Popen(command, process_group=0, env=environment(PYTHONPATH=REPOSITORY, X="1"), **options)


def waiting(folder):
    """Returns a client whose fork waits, and the fork."""
    process = client(folder, "wait")
    return process, psutil.Process(int(process.stdout.readline().split()[1]))


def test_a_fork_has_the_clients_folder_umask_variables_input_and_exit_code(serve, tmp_path):
    serve()
    (tmp_path / "here").mkdir()
    (tmp_path / "input").write_text("given")
    with (tmp_path / "input").open() as given:
        process = client(tmp_path, "report", 3, signals="--ignore-signal=HUP", stdin=given, cwd=tmp_path / "here", umask=0o027)
    found = json.loads(process.communicate()[0])
    assert found == {"cwd": str(tmp_path / "here"), "umask": 0o027, "x": "1", "input": "given", "hup": True, "group": True}
    assert process.returncode == 3


def test_an_interrupt_reaches_the_fork_and_its_exit_code_is_the_clients(serve, tmp_path):
    serve()
    process, fork = waiting(tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == "interrupted\n"
    process.wait()
    assert (process.returncode, alive(fork.pid)) == (7, False)


def test_an_interrupt_is_not_lost_however_early_it_comes(serve, tmp_path, enabled):
    serve()
    with (tmp_path / "output").open("w") as output, open(os.devnull, "rb") as nothing:
        for _ in range(20):
            forked = warm.fork(warm.STAGES, "job:wait", None, [nothing.fileno(), output.fileno(), output.fileno()])
            forked.signal(signal.SIGINT)
            assert forked.wait() in (1, 7)  # before or while it waits
            forked.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_that_ends_the_client_ends_the_fork(number, serve, tmp_path):
    serve()
    process, fork = waiting(tmp_path)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number
    until(lambda: not alive(fork.pid))


def test_a_stopped_client_stops_its_fork_until_it_goes_on(serve, tmp_path):
    serve()
    process, fork = waiting(tmp_path)
    process.send_signal(signal.SIGTSTP)
    until(lambda: fork.status() == psutil.STATUS_STOPPED or psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0] == "interrupted\n"


def test_a_fork_outlives_the_warm_process_and_ends_with_what_waits_for_it(serve, tmp_path):
    server = serve()
    process, fork = waiting(tmp_path)
    server.terminate()
    server.wait()
    assert alive(fork.pid)
    fork.parent().kill()
    until(lambda: not alive(fork.pid))
    process.communicate()
    assert process.returncode == 1


def test_a_fork_that_is_left_outlives_its_client(serve, tmp_path):
    serve()
    code = (
        "import os, sys\n"
        "from switchyard.components.process import warm\n"
        "warm.enable_as({'folder': sys.argv[1], 'key': 'key', 'environment': {}})\n"
        "warm.fork('stages', 'job:wait', None, (0, 1, 2)).leave()\n"
    )
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True, "env": environment(PYTHONPATH=REPOSITORY)}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **options) as process:
        fork = psutil.Process(int(process.stdout.readline().split()[1]))
        assert process.wait(60) == 0
        time.sleep(0.3)
        assert alive(fork.pid)
        fork.kill()
    until(lambda: not alive(fork.pid))


def test_a_stopped_warm_process_is_named_not_waited_for_and_can_be_ended(serve, tmp_path, monkeypatch):
    server = serve()
    server.send_signal(signal.SIGSTOP)
    until(lambda: psutil.Process(server.pid).status() == psutil.STATUS_STOPPED)
    began = time.monotonic()
    process = client(tmp_path, "report", 3, stderr=subprocess.PIPE)
    output, errors = process.communicate()
    assert (process.returncode, output) == (0, "")  # None, that the command is to run without
    assert f"warm process {server.pid} is stopped" in errors
    assert time.monotonic() - began < warm._REPLY_SECONDS
    monkeypatch.setattr(warm, "runtime_folder", lambda: tmp_path)
    assert warm.stop(list(warm.running()), 10) == []
    assert server.wait(10) == 0


def test_a_warm_process_that_does_not_answer_is_named_once_and_the_command_runs_without(tmp_path, enabled, monkeypatch, capsys):
    warm._say_once.cache_clear()
    monkeypatch.setattr(warm, "_REPLY_SECONDS", 0.2)
    with unix_socket.listening(str(tmp_path / "key-stages")), open(os.devnull, "r+") as nothing:
        for _ in range(2):
            assert warm.fork(warm.STAGES, "job:report", 0, [nothing.fileno()] * 3) is None
    said = f"warning: warm process {os.getpid()} did not answer in 0.2 s, so that the libraries are imported anew; if"
    assert capsys.readouterr().err.count(said) == 1


def test_another_users_process_is_not_served(serve, tmp_path):
    serve(before="unix_socket.peer = lambda connection: (1, 12345)")
    process = client(tmp_path, "report", 3)
    process.communicate()
    assert process.returncode == 0  # None, that the command is to run without


def test_a_warm_process_of_another_user_is_not_used(serve, tmp_path, enabled, monkeypatch):
    serve()
    monkeypatch.setattr("switchyard.components.process.unix_socket.peer", lambda connection: (1, 12345))
    with open(os.devnull, "r+") as nothing:
        assert warm.fork(warm.STAGES, "job:report", 0, [nothing.fileno()] * 3) is None


def test_a_second_warm_process_of_a_kind_ends_at_once(serve, tmp_path):
    first = serve()
    second = serve()
    assert second.wait(60) == 0
    assert first.poll() is None


def test_it_ends_after_the_idle_time_but_not_before_its_forks(serve, tmp_path):
    server = serve(idle=4)
    process, _ = waiting(tmp_path)
    time.sleep(5)
    assert server.poll() is None
    process.kill()
    process.communicate()
    assert server.wait(60) == 0
    assert not (tmp_path / "key-stages").exists()


def test_a_changed_module_ends_it_and_its_client_runs_without(serve, tmp_path):
    server = serve()
    (tmp_path / "job.py").write_text(JOB + "\n# changed")
    process = client(tmp_path, "report", 3)
    process.communicate()
    assert process.returncode == 0
    assert server.wait(60) == 0


@pytest.mark.parametrize("imports", [
    "(Path(sys.argv[1]) / 'job.py').touch()",
    "import threading, time; threading.Thread(target=time.sleep, args=[60], daemon=True).start()",
])  # fmt: skip
def test_after_imports_that_change_a_module_or_start_a_thread_none_serves(imports, serve, tmp_path):
    (tmp_path / "job.py").write_text(JOB)
    before = f"server = WarmServer(Path(sys.argv[1]), 'key', 'stages'); {imports}; server.serve()"
    command = [sys.executable, "-c", SERVER.format(idle=60, before=before), str(tmp_path)]
    assert subprocess.run(command, cwd="/", env=environment(PYTHONPATH=REPOSITORY), check=False, timeout=60).returncode == 0
    assert not (tmp_path / "key-stages").exists()


def test_running_lists_it(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "runtime_folder", lambda: tmp_path)
    server = serve()
    [found] = warm.running()
    assert (found.key, found.kind, found.pid, found.is_ready, found.is_used) == ("key", "stages", server.pid, True, False)
    for _ in range(2):
        client(tmp_path, "report", 3).communicate()
    [found] = warm.running()
    assert (found.pid, found.is_used) == (server.pid, True)
    server.kill()
    server.wait()
    assert list(warm.running()) == []


def test_a_process_id_that_another_machine_or_container_has_written_is_not_taken_for_one_of_this(tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "runtime_folder", lambda: tmp_path)
    lock = tmp_path / "key-stages.lock"
    lock.write_text(str(os.getppid()))
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert list(warm.running()) == []
        lock.write_text(str(os.getpid()))
        assert [found.pid for found in warm.running()] == [os.getpid()]


def started_beside(others, monkeypatch):
    """Returns the modules that are started, and the processes that are ended, where those of other environments run."""
    started, ended = [], []
    monkeypatch.setattr(warm, "running", lambda: iter(others))
    process = SimpleNamespace(pid=1)
    monkeypatch.setattr(
        "switchyard.components.process.interpreter.start", lambda module, *_, **__: started.append(module) or process
    )
    monkeypatch.setattr(os, "kill", lambda pid, number: ended.append(pid))
    warm._enabled[0].missed.update((warm.STAGES, warm.TRAININGS, warm.BARE))
    warm.start_missed()
    return len(started), ended


def test_what_was_missed_is_started_once(enabled, monkeypatch):
    assert started_beside([], monkeypatch) == (2, [])


def test_what_was_just_started_is_found_and_stopped_before_it_has_imported_anything(enabled, tmp_path, monkeypatch):
    started = []

    def start(module, arguments, *, pass_fds, **_):
        started.append(subprocess.Popen(["sleep", "60"], pass_fds=pass_fds))
        return started[-1]

    monkeypatch.setattr(warm, "runtime_folder", lambda: tmp_path)
    monkeypatch.setattr("switchyard.components.process.interpreter.start", start)
    warm._enabled[0].missed.update((warm.STAGES, warm.TRAININGS, warm.BARE))
    warm.start_missed()
    warm.start_missed()  # as another command would
    found = list(warm.running())
    assert sorted((one.kind, one.pid) for one in found) == [("stages", started[0].pid), ("trainings", started[1].pid)]
    assert warm.stop(found, 10) == []
    assert [process.wait(10) for process in started] == [-signal.SIGTERM] * 2


def test_nothing_is_started_while_another_environments_are_unused(enabled, monkeypatch):
    assert started_beside([warm.Running("other", "stages", 1, True, False)], monkeypatch) == (0, [])


def test_those_of_another_environment_are_stopped(enabled, monkeypatch):
    assert started_beside([warm.Running("other", kind, 1, True, True) for kind in ("stages", "bare")], monkeypatch) == (2, [1, 1])


def test_one_whose_sibling_has_ended_is_stopped_as_both_are_started_together(enabled, monkeypatch):
    used = [warm.Running("key", kind, pid, True, True) for kind, pid in (("stages", 1), ("trainings", 2))]
    monkeypatch.setattr(warm, "_LEFT_SECONDS", 0)
    assert started_beside(used, monkeypatch) == (1, [2])


def test_what_is_importing_is_neither_stopped_nor_started_again(enabled, monkeypatch):
    importing = [warm.Running("key", "stages", 1, False, False), warm.Running("key", "trainings", 2, False, False)]
    assert started_beside(importing, monkeypatch) == (0, [])


def test_the_address_of_an_adopted_fork_server_is_in_a_folder_of_this_user_alone():
    code = """
import os, sys
from pathlib import Path
from switchyard.components.compat import fork_server
assert fork_server.adopt(lambda descriptors: descriptors)
from multiprocessing import forkserver
address = Path(forkserver._forkserver._forkserver_address)
print(address.is_socket(), oct(address.parent.stat().st_mode & 0o777), oct(address.stat().st_mode & 0o777))
"""
    found = subprocess.check_output([sys.executable, "-c", code], env=environment(PYTHONPATH=REPOSITORY), text=True)
    assert found.split() == ["True", "0o700", "0o600"]


VARIABLES = {"PATH": "/bin", "TERM": "xterm"}


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL", "ANY_OTHER"])
def test_a_variable_that_a_library_may_read_at_import_makes_another_key(name):
    assert warm_key.digest({**VARIABLES, name: "1"}) != warm_key.digest(VARIABLES)


def test_another_terminal_has_the_same_key():
    assert warm_key.digest({**VARIABLES, "COLUMNS": "80", "SSH_TTY": "/dev/pts/1", "OLDPWD": "/"}) == warm_key.digest(VARIABLES)


def test_limits_and_priority_make_another_key():
    code = "import os, switchyard\nfrom switchyard.components.process import warm_key\nprint(warm_key.digest({}))"

    def digest(shell):
        command = ["bash", "-c", f'{shell} "$@"', "bash", sys.executable, "-c", code]
        return subprocess.check_output(command, env=environment(PYTHONPATH=REPOSITORY), text=True)

    assert digest("exec") == digest("exec")
    assert len({digest("exec"), digest("ulimit -f 1000;"), digest("exec nice -n 3")}) == 3


def test_a_script_and_a_module_in_any_folder_have_the_same_key(tmp_path, monkeypatch):
    path = [str(REPOSITORY), *sys.path]
    monkeypatch.setattr(sys, "path", path)
    # In a worker of pytest-xdist it is "-c", whose folder would be the working directory, which is the repository.
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "elsewhere" / "pytest")])
    before = warm_key.installed()
    monkeypatch.setattr(sys, "path", [str(REPOSITORY), *path])  # `python -m` in the clone
    assert warm_key.installed() == before
    monkeypatch.setattr(sys, "path", [str(tmp_path), *path])
    assert warm_key.installed() != before
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "switchyard")])
    assert warm_key.installed() == before


@pytest.mark.parametrize(("path", "refused"), [
    ("/dev/fd/63", True), ("--data=/proc/self/fd/12", True), ("/dev/fd/0", False), ("/dev/fd/2", False), ("a.yaml", False),
])  # fmt: skip
def test_an_argument_that_only_this_process_has_open_is_not_given_to_a_fork(path, refused, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["switchyard", "run", path])
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "switchyard"])
    assert (warm_key.refusal({}) == "an argument that is an open file") == refused


@pytest.mark.parametrize(("changed", "why"), [
    ({variables.WARM: "0"}, "disabled"), ({"CI": "true"}, "CI"), ({"PYTHONPATH": "."}, "a relative path"),
])  # fmt: skip
def test_warm_processes_are_not_used(changed, why, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv(variables.WARM, "1")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "switchyard"])
    try:
        warm.enable()
        assert warm.enabled()
        warm._enabled.clear()
        for name, value in changed.items():
            monkeypatch.setenv(name, value)
        warm.enable()
        assert not warm.enabled(), why
    finally:
        warm._enabled.clear()


def test_the_folder_of_the_sockets_is_the_users_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = warm.runtime_folder()
    assert (folder, folder.stat().st_mode & 0o777) == (tmp_path / "switchyard", 0o700)
    folder.chmod(0o755)
    assert warm.runtime_folder() is None
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert warm.runtime_folder() == tmp_path / f"switchyard-warm-{os.geteuid()}"


def test_a_socket_is_its_users_alone(serve, tmp_path):
    serve()
    assert Path(tmp_path / "key-stages").stat().st_mode & 0o077 == 0
