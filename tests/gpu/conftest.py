"""Lets both frameworks share a GPU's memory in pytest's process."""

import os

os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
