"""One workspace with the breast_cancer example run by every trainer, shared by the tests that look at it."""

import pytest

from tests.command import BREAST_CANCER, REPOSITORY, run

SKLEARN = REPOSITORY / "tests" / "contract" / "sklearn_trainer.py"
TRAINERS = {"tensorflow": "tensorflow", "pytorch": "pytorch", "sklearn": f"{SKLEARN}:SklearnTrainer"}
BEFORE_TRAINING = ["ingest", "statistics", "schema", "validation", "baseline", "data_gate", "transform"]
STAGES = [*BEFORE_TRAINING, "training", "evaluation", "infra_validation", "registry", "report"]
# What compares with the registry is done in every run.
ANEW = {"baseline", "data_gate", "evaluation", "registry", "report"}
# The three are here to be looked at, not to compete.
NO_CONTEST = ["--set", "evaluation.improvement=null"]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    # A path with a space in it, as a user may have.
    return tmp_path_factory.mktemp("a workspace")


@pytest.fixture(scope="session")
def runs(workspace, warm):
    """Trainer -> its first run; all in one workspace, one after the other, the first in a process of its own."""
    extra = {"sklearn": ["--set", "trainer.hyperparameters.epochs=5"]}
    found = {}
    for name, trainer in TRAINERS.items():
        command = warm.run if found else run
        found[name] = command(BREAST_CANCER, workspace, "--trainer", trainer, *NO_CONTEST, *extra.get(name, []))
    return found
