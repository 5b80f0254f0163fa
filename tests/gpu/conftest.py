"""For trainings in pytest's own process: one framework is to leave the other some memory."""

import os

os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
