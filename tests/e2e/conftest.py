"""One workspace with the breast_cancer example run by every trainer, shared by the tests that look at it."""

import pytest

from tests.command import BREAST_CANCER, REPOSITORY, run

SKLEARN = REPOSITORY / "tests" / "contract" / "sklearn_trainer.py"
TRAINERS = {"tensorflow": "tensorflow", "pytorch": "pytorch", "sklearn": f"{SKLEARN}:SklearnTrainer"}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    # A path with a space in it, as a user may have.
    return tmp_path_factory.mktemp("a workspace")


@pytest.fixture(scope="session")
def runs(workspace):
    """Trainer -> its first run; all in one workspace, one after the other."""
    extra = {"sklearn": ["--set", "trainer.hyperparameters.epochs=5"]}
    return {name: run(BREAST_CANCER, workspace, "--trainer", t, *extra.get(name, [])) for name, t in TRAINERS.items()}
