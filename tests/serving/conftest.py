"""The runs of `tests/e2e/conftest.py`, and what their bundles were evaluated on."""

import json

import pytest

from tests.e2e.conftest import runs, workspace  # noqa: F401 (fixtures)


@pytest.fixture(scope="session")
def bundles(runs, workspace):  # noqa: F811
    """Framework -> MLflow Model folder."""
    found = {}
    for folder in (workspace / "artifacts" / "training" / "model").iterdir():
        [bundle] = folder.glob("Format-Serving/artifacts/*/bundle.json")
        found[json.loads(bundle.read_text())["framework"].rpartition(":")[2]] = folder / "Format-Serving"
    return found


@pytest.fixture(scope="session")
def eval_rows(workspace):  # noqa: F811
    """Returns a function: (workspace, features) -> all rows of the eval split as a bundle takes them."""

    def read(place, features):
        import tensorflow as tf

        from components.example_frames import to_frame

        [examples] = (place / "artifacts" / "ingest" / "examples").iterdir()
        files = [str(f) for f in sorted((examples / "Split-eval").iterdir())]
        return to_frame([r.numpy() for r in tf.data.TFRecordDataset(files, compression_type="")], features)

    return read
