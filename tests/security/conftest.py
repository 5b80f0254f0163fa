"""The bundles of `tests/serving`."""

from tests.serving.conftest import bundles, runs, workspace  # noqa: F401 (fixtures)
