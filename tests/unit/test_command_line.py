import subprocess
import sys

import pytest

from tests.command import REPOSITORY, environment, switchyard

HEAVY = ("tensorflow", "torch", "tfx", "mlflow", "apache_beam", "pandas", "pydantic", "psutil")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom pipelines.cli import main\n"
        "for arguments in (['--help'], ['run', '--help'], ['ui', '--help']):\n"
        "    try: main(arguments)\n    except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_reads_well():
    done = switchyard("run", "--help")
    assert done.code == 0
    assert all(word in done.stdout for word in ("--trainer", "--set", "--json", "--workspace", "Exit codes:", "not blessed"))
    assert "\n  switchyard run pipeline.yaml --trainer pytorch\n" in done.stdout


def test_no_help_text_shows_its_markup():
    from click import Context

    from pipelines.cli import main

    def texts(command, name):
        yield name, command.get_help(Context(command))
        for inner, each in getattr(command, "commands", {}).items():
            yield from texts(each, f"{name} {inner}")

    for name, text in texts(main, "switchyard"):
        assert "\\b" not in text, name


def test_version():
    assert switchyard("--version").stdout.startswith("switchyard, version 0.")


@pytest.mark.parametrize("store", ["http://me:secret@127.0.0.1:9", "a file that is no database"])
def test_a_tracking_store_that_cannot_be_asked_is_no_stack_trace(store, tmp_path):
    where = ["--tracking-uri", store]
    if not store.startswith("http"):
        (tmp_path / "mlflow.db").write_text(store)
        where = ["--workspace", tmp_path]
    done = switchyard("models", "list", *where, env={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": 0})
    assert done.code == 1
    assert done.stderr.startswith("error: MLflow cannot be asked: ")
    assert "--tracking-uri" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
