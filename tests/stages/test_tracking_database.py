"""The first runs of a workspace, by real processes: several at once, and one that is killed."""

import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from switchyard.components.errors import UserError
from switchyard.components.tracking import database
from switchyard.components.tracking import run as tracking
from tests.bad_input import command_in_this_process

FIRST_RUN = """
import sys
from switchyard.components.tracking import run as tracking
sys.stdin.readline()
experiment = tracking.ensure_experiment(sys.argv[1], "e", None)
print(tracking.create_run(sys.argv[1], experiment, "r", {}))
"""


STOPS_BEFORE_THE_END = """
import time
from pathlib import Path

def replace(self, target):
    print("complete but for its name", flush=True)
    time.sleep(600)

Path.replace = replace
"""


def first_run(uri, before=""):
    command = [sys.executable, "-c", before + FIRST_RUN, uri]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_concurrent_first_runs_create_one_database(tmp_path):
    # A folder that is not there yet, with a space in its name.
    uri = f"sqlite:///{tmp_path / 'a workspace' / 'mlflow.db'}"
    runs = [first_run(uri) for _ in range(3)]
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    answers = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], answers
    client = tracking.client(uri)
    made = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert {run.info.run_id for run in made} == {out.strip() for out, _ in answers}


def test_two_threads_create_a_database_each(tmp_path):
    uris = [f"sqlite:///{tmp_path / name / 'mlflow.db'}" for name in ("a", "b")]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda uri: tracking.ensure_experiment(uri, "e", None), uris))
    assert found == ["1", "1"]


def test_a_database_of_an_older_mlflow_is_migrated_and_the_former_one_kept(tmp_path):
    path = tmp_path / "mlflow.db"
    older = database._revisions()[6]
    _made_at(older, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES ('kept', '/x', 'active')")
        connection.commit()
    before = path.read_bytes()
    client = tracking.client(f"sqlite:///{path}")
    assert client.get_experiment_by_name("kept")
    assert client.create_experiment("new")
    assert (tmp_path / f"mlflow.db.{older}").stat().st_size == len(before)
    assert _revision(tmp_path / f"mlflow.db.{older}") == older
    assert _revision(path) == database._revisions()[0]


def test_a_database_of_a_later_mlflow_is_refused(tmp_path):
    path = tmp_path / "mlflow.db"
    tracking.client(f"sqlite:///{path}")
    tracking._clients.clear()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of_tomorrow'")
        connection.commit()
    with pytest.raises(UserError, match=r"mlflow.db was made by a later MLflow.*of_tomorrow.*another workspace"):
        tracking.client(f"sqlite:///{path}")


def _made_at(revision, path):
    """Makes the database that an MLflow with this newest schema makes."""
    from alembic import command
    from alembic.config import Config
    from mlflow.store import db_migrations
    from mlflow.store.db.base_sql_model import Base  # noqa: F401 (the migrations need the tables of the first version)
    from mlflow.store.tracking.dbmodels.initial_models import Base as Initial
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{path}")
    Initial.metadata.create_all(engine)
    config = Config()
    config.set_main_option("script_location", str(Path(db_migrations.__file__).parent))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def _revision(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


@pytest.mark.core
def test_a_kill_during_the_creation_of_the_database_leaves_none(tmp_path):
    database = tmp_path / "mlflow.db"
    run = first_run(f"sqlite:///{database}", STOPS_BEFORE_THE_END)
    run.stdin.write("\n")
    run.stdin.flush()
    half = tmp_path / "mlflow.db.new"
    assert run.stdout.readline() == "complete but for its name\n"
    assert half.stat().st_size
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert not database.exists()
    assert tracking.ensure_experiment(f"sqlite:///{database}", "e", None)
    assert not half.exists()


@pytest.mark.core
def test_a_database_in_a_read_only_folder_can_be_read_with_the_mode_mocked(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    experiment = tracking.ensure_experiment(uri, "e", None)
    (tmp_path / "mlflow.db.lock").unlink()
    # The tests run as root, whom no mode keeps out.
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr(tracking, "_clients", {})
    assert tracking.client(uri).get_experiment(experiment).name == "e"
    assert not (tmp_path / "mlflow.db.lock").exists()


@pytest.mark.core
@pytest.mark.parametrize("store", ["http://me:secret@127.0.0.1:9", "a file that is no database"])
def test_an_unreachable_store_ends_a_command_with_a_message(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    where = ["--tracking-uri", store]
    if not store.startswith("http"):
        (tmp_path / "mlflow.db").write_text(store)
        where = ["--workspace", tmp_path]
    with command_in_this_process() as command:
        done = command("models", "list", *where)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: cannot reach MLflow: ")
    assert "--tracking-uri" in done.stderr
    assert "secret" not in done.stderr
