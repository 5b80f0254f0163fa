"""Requests for trainers in this process, and trainings in separate processes on the output of one pipeline run."""

import pytest

from tests.plugins.made_once import made_once


@pytest.fixture(scope="session")
def data():
    """Returns a function: task -> its transformed examples, train and eval."""
    from tests.training_requests import sources

    made = {}

    def get(task):
        if task not in made:
            made[task] = sources(task)
        return made[task]

    return get


@pytest.fixture
def make(data, tmp_path):
    """Returns a function that makes a `TrainRequest`."""
    from tests.training_requests import request

    def made(task="binary", folder="run", **changes):
        return request(data(task), tmp_path / folder, task, **changes)

    return made


@pytest.fixture
def said():
    """The messages of a trainer to the user, a list."""
    from switchyard.components.progress import set_sink

    found = []
    set_sink(found.append)
    yield found
    set_sink(None)


@pytest.fixture(scope="session")
@made_once
def prepared(make_once):
    """The folder of a finished pipeline run, with a model file of each framework."""
    from tests.training_jobs import run_once

    folder, _ = make_once("workers", run_once)
    return folder


@pytest.fixture(scope="session")
def alone(prepared, make_once):
    """Returns a function: (framework, hyperparameters) -> result of the same training by one worker."""
    from tests.training_jobs import train

    def get(framework, **hyper):
        name = "-".join(["alone", framework, *(f"{k}={v}" for k, v in hyper.items())])
        return make_once(name, lambda folder: train(prepared, folder, framework, {}, **hyper))[1]

    return get
