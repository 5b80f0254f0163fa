"""What lies in the working directory, or beside the data, is never taken for a library."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from switchyard.components.process import interpreter
from tests.command import REPOSITORY, environment, free_port, kill_with_children, wait_for

# Of the standard library, of what Switchyard stands on, of what MLflow and Beam use where it is installed, and its own.
MODULES = (
    *("random", "yaml", "click", "types", "site", "logging", "socket", "queue", "copy", "numpy", "torch", "tensorflow", "keras"),
    *("tfx", "apache_beam", "mlflow", "pandas", "sklearn", "optuna", "uvicorn", "sitecustomize", "usercustomize"),
)
PACKAGES = ("components", "pipelines", "switchyard", "tests")
# Names that people give to folders, and libraries have: a folder is enough for `importlib.util.find_spec`.
EMPTY = ("polars", "datasets", "pyspark", "xgboost", "wandb", "data", "evaluate", "transformers", "comet_ml", "cupy", "dask")


def shadow(folder: Path) -> Path:
    """Fills a folder with modules that leave a mark when they are imported, and with empty folders."""
    mark = folder / "IMPORTED"
    code = f"open({str(mark)!r}, 'a').write(__name__ + ' ')\nraise ImportError('not the library')\n"
    for name in MODULES:
        (folder / f"{name}.py").write_text(code)
    for name in PACKAGES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(code)
    for name in EMPTY:
        (folder / name).mkdir()
    return mark


def console(*arguments, cwd, **env):
    """The command as the console script runs it: the working directory is not on the path of the first process."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", "from switchyard.pipelines.cli import entry; entry()", *map(str, arguments)],
        cwd=cwd,
        env=environment(PYTHONPATH=REPOSITORY, **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, timeout=500):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def ask(folder, code, **env):
    """Runs code in a child interpreter whose working directory is `folder`; returns what it prints."""
    elsewhere = folder.parent / f"{folder.name} code"
    elsewhere.mkdir()
    (elsewhere / "asked.py").write_text(code)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = interpreter.start("asked", [], env={**environment(PYTHONPATH=elsewhere), **env}, cwd=folder, **pipes)
    code, out, err = finish(child, 60)
    assert code == 0, err
    return out


@pytest.mark.core
def test_a_child_interpreter_does_not_import_from_the_working_directory(tmp_path):
    mark = shadow(tmp_path)
    out = ask(
        tmp_path, "import sys, json, random, yaml, importlib.util as u; print(json.dumps([sys.path, u.find_spec('polars')]))"
    )
    path, polars = json.loads(out)
    assert polars is None
    assert str(tmp_path) not in path
    assert not mark.exists()


@pytest.mark.core
def test_processes_of_a_child_do_not_import_from_the_working_directory(tmp_path):
    mark = shadow(tmp_path)
    ask(tmp_path, "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import random, click'], check=True)")
    assert not mark.exists()


def git(folder, *arguments):
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.mark.core
@pytest.mark.parametrize("how", ["fsmonitor", "clean", "process", "hook"])
def test_a_repository_in_it_runs_nothing(tmp_path, how):
    """Git's settings name programs: an archive of data may hold a `.git` folder."""
    from switchyard.pipelines.runners.tracking.record import _git

    git(tmp_path, "init")
    (tmp_path / ".gitattributes").write_text("*.csv filter=x\n")
    (tmp_path / "d.csv").write_text("a\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "x")
    mark, program = tmp_path / "RUN", tmp_path / ".git" / "hooks" / "post-index-change"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\ncat\n")
    program.chmod(0o755)
    if how != "hook":
        git(tmp_path, "config", {"fsmonitor": "core.fsmonitor"}.get(how, f"filter.x.{how}"), str(program))
    os.utime(tmp_path / "d.csv", (0, 0))  # its content is compared

    tags = _git(tmp_path)

    assert not mark.exists()
    assert tags["switchyard.git.uncommitted_changes"] == ("unknown" if how in ("clean", "process") else "no")
    (tmp_path / ".gitattributes").write_text("changed")
    assert _git(tmp_path)["switchyard.git.uncommitted_changes"] == ("unknown" if how in ("clean", "process") else "yes")
    assert not mark.exists()


@pytest.mark.core
def test_settings_of_matplotlib_in_it_are_not_read(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nsvg.fonttype: path\n")
    code = (
        "import os; os.chdir(HERE)\nfrom switchyard.components.pages import page\nimport matplotlib\n"
        "figure, ax = page.axes(title='$x$')\nassert '$x$' in page.svg(figure, 'x')\n"
        "assert not matplotlib.rcParams['text.usetex']\n"
    )
    ask(tmp_path, code.replace("HERE", repr(str(tmp_path))))


@pytest.mark.core
def test_an_empty_entry_of_pythonpath_is_not_the_working_directory():
    found = interpreter.environment({"PYTHONPATH": f"{os.pathsep}/lib/mine{os.pathsep}"})
    assert found["PYTHONPATH"].split(os.pathsep)[0] == "/lib/mine"
    assert "" not in found["PYTHONPATH"].split(os.pathsep)


@pytest.mark.core
def test_a_child_runs_the_same_switchyard_as_its_parent(tmp_path):
    out = ask(tmp_path, "import switchyard; print(switchyard.__file__)")
    assert out == f"{REPOSITORY / 'switchyard' / '__init__.py'}\n"


@pytest.mark.core
def test_the_fork_server_does_not_import_from_the_working_directory(tmp_path):
    mark = shadow(tmp_path)
    code = (
        "from switchyard.components.process import interpreter\n"
        "import os\n"
        "if __name__ == '__main__':\n"
        "    os.chdir('HERE')\n"
        "    context = interpreter.fork_server('random')\n"
        "    interpreter.ensure_fork_server()\n"
        "    process = context.Process(target=print, args=('it runs',))\n"
        "    process.start(); process.join(60)\n"
        "    assert 'PYTHONSAFEPATH' not in os.environ\n"
        "    raise SystemExit(process.exitcode)\n"
    ).replace("HERE", str(tmp_path))
    program = tmp_path / "elsewhere" / "program.py"
    program.parent.mkdir()
    program.write_text(code)
    done = subprocess.run(
        [sys.executable, str(program)],
        env=environment(PYTHONPATH=REPOSITORY),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "it runs\n"), done.stderr
    assert not mark.exists()


@pytest.mark.core
@pytest.mark.parametrize(
    "start",
    [
        ("-P", "-c", "from switchyard.pipelines.cli import entry; entry()"),
        ("-m", "switchyard.pipelines.cli"),
        ("-m", "switchyard"),
    ],
)
def test_the_command_does_not_import_from_the_working_directory(tmp_path, start):
    mark = shadow(tmp_path)
    for file in ("switchyard/__init__.py", "switchyard"):
        # As `-m` finds this one before any of our code runs, no such program can be helped.
        (tmp_path / file).unlink() if file.endswith(".py") else (tmp_path / file).rmdir()
    done = subprocess.run(
        [sys.executable, *start, "schema", "show", "none.yaml"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=REPOSITORY),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "none.yaml: no such file" in done.stderr
    assert not mark.exists()


@pytest.mark.core
def test_interpreters_are_started_by_one_module():
    starting = {"executable", "Popen", "execve", "spawnv", "get_context", "set_start_method", "posix_spawn"}
    # These start no Python: one starts a Java server, one names the interpreter in a digest.
    other = {"pipelines/runners/local/flink.py", "components/process/warm_key.py"}
    found = set()
    for package in ("components", "pipelines"):
        for file in (REPOSITORY / package).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(file.read_text())))
            annotations = {n.value for n in nodes if isinstance(n, ast.Subscript)}  # `Popen` in `Popen[str]` starts nothing
            if starting & {n.attr for n in nodes if isinstance(n, ast.Attribute) and n not in annotations}:
                found.add(str(file.relative_to(REPOSITORY)))
    assert found - other == {"components/process/interpreter.py"}


def test_a_run_beside_twenty_shadowing_names_is_unchanged(tmp_path):
    (tmp_path / "d.csv").write_text("x,z,y\n" + "".join(f"{i % 97},{i % 7},{int(i % 97 > 48)}\n" for i in range(800)))
    mark = shadow(tmp_path)
    settings = (
        *("trainer.framework=[tensorflow, pytorch]", "trainer.hyperparameters.epochs=2", "trainer.accelerator.count=2"),
        *("tune={trials: 1, space: {learning_rate: {low: 0.001, high: 0.01}}}", "evaluation.improvement=null"),
    )
    overrides = [word for setting in settings for word in ("--set", setting)]
    code, out, err = finish(console("run", "--data", "d.csv", "--label", "y", "--json", *overrides, cwd=tmp_path))
    assert code in (0, 4), err
    result = json.loads(out.splitlines()[-1])
    assert {s["status"] for s in result["stages"].values()} == {"ran"}, result
    assert "tuning_pytorch" in result["stages"]
    assert "warning: MLflow" not in err
    assert not mark.exists(), mark.read_text()


def test_the_ui_opens_beside_shadowing_names(tmp_path):
    from switchyard.pipelines.workspace import Workspace

    mark = shadow(tmp_path)
    place = Workspace(tmp_path / ".switchyard")
    place.create()
    made = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            f"from switchyard.components.tracking.run import client; client('sqlite:///{place.mlflow_database}')",
        ],
        env=environment(PYTHONPATH=REPOSITORY),
        check=False,
    )
    assert made.returncode == 0
    port = free_port()
    server = console("ui", "--port", port, cwd=tmp_path)
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
    finally:
        kill_with_children(server)
        server.communicate()
    assert not mark.exists()
