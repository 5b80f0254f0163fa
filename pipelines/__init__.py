"""Config, definition, runners and the command line."""

import os
import sys

# `python -m pipelines.cli`: the working directory comes first on the path, and what lies there is not taken for a library. Not by
# `components.process.interpreter`, which might be found there; `-m` stands in the arguments until the module is found.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]
