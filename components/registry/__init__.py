"""Registry: a blessed model becomes a version in MLflow's model registry and its champion."""
