"""`models compare` of a version with itself: one message, whichever names are given for it, before any file is read."""

from pathlib import Path

import pytest

from switchyard.components.errors import UserError
from switchyard.components.tracking import run as tracking
from switchyard.pipelines.commands.models import compare


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"
    client = tracking.client(uri)
    client.create_registered_model("m")
    for _ in range(2):
        client.create_model_version("m", "/nowhere")
    client.set_registered_model_alias("m", "champion", "1")
    client.set_registered_model_alias("m", "live", "1")
    return uri


@pytest.mark.core
@pytest.mark.parametrize("data", [None, Path("rows.csv")])
@pytest.mark.parametrize("wanted", [("champion", "champion"), ("1", "champion"), ("live", "champion"), ("1", "1")])
def test_comparing_a_version_with_itself_is_refused(registry, wanted, data):
    said = rf"m: {wanted[0]} and {wanted[1]} are the same version, 1 \(champion, live\).* Other versions: 2\."
    with pytest.raises(UserError, match=said):
        compare(registry, "m", wanted, data, as_json=False)


@pytest.mark.core
def test_two_versions_are_compared(registry, capsys):
    compare(registry, "m", ("champion", "2"), None, as_json=False)

    assert "1 (champion, live)  2" in capsys.readouterr().out


@pytest.mark.core
def test_a_weight_of_rows_without_rows_is_refused(registry):
    with pytest.raises(UserError, match="--sample-weight: without --data no rows are weighed; give --data FILE"):
        compare(registry, "m", ("1", "2"), None, "w", as_json=False)
