"""What the trainers' contract and the several workers are tested with, on a GPU."""

from tests.contract.conftest import data, make, said
from tests.e2e.training_jobs import alone, prepared

__all__ = ["alone", "data", "make", "prepared", "said"]
