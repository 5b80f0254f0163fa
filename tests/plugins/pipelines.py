"""Runs of the examples by each trainer, and the command without its start-up time."""

import json
from dataclasses import asdict

import pytest

from tests.command import (
    BREAST_CANCER,
    DIGITS,
    NO_CONTEST,
    TRAINERS,
    Finished,
    Forked,
    WarmCommand,
    run,
    settings_of,
    uses_warm_processes,
)
from tests.messy import messy_frame
from tests.plugins.made_once import made_once


@pytest.fixture(scope="session")
def warm():
    """The command without its start-up time; for tests of the process itself, use `tests.command.switchyard`."""
    command = Forked() if uses_warm_processes() else WarmCommand()
    yield command
    command.close()


@pytest.fixture(scope="session")
@made_once
def trained(make_once, warm):
    """The workspace, and trainer -> its first run. All runs share the workspace; the first one is a fresh process."""

    def build(workspace):
        found = {}
        for name in TRAINERS:
            command = warm.run if found else run
            found[name] = command(BREAST_CANCER, workspace, *settings_of(name), *NO_CONTEST)
        return {name: asdict(done) for name, done in found.items()}

    # A path with a space in it, as a user may have.
    folder, found = make_once("a workspace", build)
    return folder, {name: Finished(**done) for name, done in found.items()}


@pytest.fixture(scope="session")
def workspace(trained):
    """The workspace of `runs`, read-only: a test that moves an alias uses its own registry, see tests/registries.py."""
    return trained[0]


@pytest.fixture(scope="session")
def runs(trained):
    """Trainer -> its first run in `workspace`, without a comparison with the champion."""
    return trained[1]


@pytest.fixture(scope="session")
def bundles(workspace):
    """Framework -> MLflow Model folder."""
    found = {}
    folders = (workspace / "artifacts" / "training" / "model").iterdir()
    for folder in sorted(folders, key=lambda f: int(f.name)):
        [bundle] = folder.glob("Format-Serving/artifacts/*/bundle.json")
        found.setdefault(json.loads(bundle.read_text())["framework"].rpartition(":")[2], folder / "Format-Serving")
    return found


@pytest.fixture(scope="session")
def eval_rows():
    """Returns a function: (workspace, features) -> all rows of the eval split as a bundle takes them."""

    def read(place, features):
        import tensorflow as tf

        from switchyard.components.bundle.rows import to_frame

        [examples] = (place / "artifacts" / "ingest" / "examples").iterdir()
        files = [str(f) for f in sorted((examples / "Split-eval").iterdir())]
        return to_frame([r.numpy() for r in tf.data.TFRecordDataset(files, compression_type="")], features)

    return read


@pytest.fixture(scope="session")
@made_once
def digits(make_once, warm):
    """The workspace and the run of the digits example by both trainers: several classes, images."""

    def build(workspace):
        return asdict(warm.run(DIGITS, workspace, "--trainer", "tensorflow", "--trainer", "pytorch"))

    folder, done = make_once("digits", build)
    return folder, Finished(**done)


@pytest.fixture(scope="session")
@made_once
def regression(make_once, warm):
    """The folder and, by trainer, the run of a regression on messy data without a YAML; the workspace is `w` in the folder."""

    def build(folder):
        messy_frame().to_csv(folder / "my data (1).csv", index=False)
        data = ["--data", "my data (1).csv", "--label", "price", "--workspace", folder / "w", "--json"]
        settings = [
            "trainer.hyperparameters.epochs=30",
            "trainer.hyperparameters.learning_rate=0.01",
            "evaluation.slices=[company]",
            "evaluation.improvement=null",
        ]
        settings = [part for setting in settings for part in ("--set", setting)]
        return {t: asdict(warm("run", *data, "--trainer", t, *settings, cwd=folder)) for t in ("tensorflow", "pytorch")}

    folder, found = make_once("messy data", build)
    return folder, {trainer: Finished(**done) for trainer, done in found.items()}
