"""Spoiled files of every format through ingest: each is read or refused with one message; no other exception, and no hang."""

import json
import os
import random
import signal
import sys
from contextlib import contextmanager
from dataclasses import asdict

import pytest
from tfx.types import standard_artifacts

from switchyard.components.errors import DataGateError, UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.executor import Executor
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.ingest.scan import scan
from tests.spoiled_files import FORMATS, shown, spoiled_file

SEED = int(os.environ.get("SWITCHYARD_FUZZ_SEED", "1"))
SECONDS = 20
_LONGEST = 10_000


@contextmanager
def at_most(seconds):
    def stop(*_):
        raise TimeoutError(f"it takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def spec(path, rng):
    task = rng.choice(("auto", "auto", "auto", "regression", "multiclass"))
    changes = {}
    if rng.random() < 0.15:
        changes["columns"] = {rng.choice("nfsdy"): rng.choice(("number", "text"))}
    if rng.random() < 0.15:
        changes["split_key"] = rng.choice("nfsbd")
    if path.name.startswith("data.csv") and rng.random() < 0.2:
        changes["csv"] = rng.choice(
            ({"decimal": ","}, {"encoding": "latin-1"}, {"separator": ";"}, {"encoding": "utf-16"}, {"thousands": ","})
        )
    return InputSpec(
        path=[str(path)],
        split_paths=None,
        weights={"train": 0.7, "eval": 0.1, "test": 0.2},
        format=path.name.split(".")[1],
        exclude=[],
        max_bad_rows=rng.choice((0, 1000, 1000)),
        missing_values=rng.choice((None, None, ["-", "999"])),
        label="y",
        task=task,
        **{"split_key": None, **changes},
    )


def outcome(path, given, out):
    """Reads a file as the check before a run and then ingest do; returns the message: "" when all is well."""
    examples = standard_artifacts.Examples()
    examples.uri = str(out)
    try:
        with at_most(SECONDS):
            scan(given, BadRows(given.max_bad_rows), peek=True)
            Executor().Do({}, {"examples": [examples]}, {"input": json.dumps(asdict(given)), "fingerprint": "f"})
    except (UserError, DataGateError) as error:
        return str(error)
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error}\n{given}\n{shown(path)}") from error
    return ""


def check(kind, count, tmp_path, seed):
    rng = random.Random(f"{seed} {kind}")
    print(f"SWITCHYARD_FUZZ_SEED={seed}", file=sys.stderr)
    read = 0
    for number in range(count):
        folder = tmp_path / str(number)
        (folder / "out").mkdir(parents=True)
        path = spoiled_file(folder, kind, rng)
        given = spec(path, rng)
        said = outcome(path, given, folder / "out")
        read += not said
        assert len(said) < _LONGEST, said[:_LONGEST]
        assert "Traceback" not in said
        assert "object at 0x" not in said
    return read, count - read


@pytest.mark.core
@pytest.mark.parametrize("kind", FORMATS)
def test_a_few_spoiled_files_are_read_or_refused_with_one_message(kind, tmp_path):
    _, refused = check(kind, 12, tmp_path, SEED)
    assert refused


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("kind", FORMATS)
def test_spoiled_files_are_read_or_refused_with_one_message(kind, part, tmp_path):
    read, refused = check(kind, 32, tmp_path, f"{SEED}.{part}")
    assert read
    assert refused
