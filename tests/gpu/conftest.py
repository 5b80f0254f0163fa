"""What the trainers' contract and the several workers are tested with, on a GPU."""

import os

# For the trainings in pytest's own process: one framework is to leave the other some memory.
os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"

from tests.contract.conftest import data, make, said
from tests.e2e.training_jobs import alone, prepared

__all__ = ["alone", "data", "make", "prepared", "said"]
