"""A run that signs, and what its versions are worth to those who have the public key: both frameworks, by the command line."""

import base64
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path

pytest.importorskip("model_signing", reason="the extra [signing] is not installed")

from switchyard.components.tracking.model_registry import alias_version
from tests.command import BREAST_CANCER, NO_CONTEST
from tests.security.keys import key_pair
from tests.serving.server import serving, wait_until

BOTH = ["--trainer", "tensorflow", "--trainer", "pytorch"]


@pytest.fixture(scope="module")
def signed(tmp_path_factory, warm):
    """Returns a workspace whose run signed a version of each framework, and the files of the keys."""
    folder = tmp_path_factory.mktemp("signed")
    private, public = key_pair(folder)
    short = ["--set", "trainer.hyperparameters.epochs=3", "--set", f"signing.key={private}"]
    warm.run(BREAST_CANCER, folder / "w", *BOTH, *NO_CONTEST, *short)
    return folder / "w", private, public


@pytest.fixture
def rows(tmp_path):
    text = (BREAST_CANCER.parent / "data.csv").read_text().splitlines()[:6]
    (tmp_path / "rows.csv").write_text("\n".join(text) + "\n")
    return tmp_path / "rows.csv"


def place_of(workspace, version):
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    return Path(local_file_uri_to_path(client.get_model_version_download_uri("breast_cancer", version)))


def version_of(workspace, framework):
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    return next(v.version for v in client.search_model_versions("name='breast_cancer'") if v.tags["framework"] == framework)


@pytest.mark.parametrize("version", ["1", "2"])
def test_both_frameworks_versions_are_predicted_with_by_their_signers_key_only(version, signed, rows, warm, tmp_path):
    workspace, _, public = signed
    command = ["predict", f"breast_cancer@{version}", rows, "-o", tmp_path / "o.jsonl", "--workspace", workspace, "--verify"]
    done = warm(*command, public)
    assert done.code == 0, done.stderr
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 5
    done = warm(*command, key_pair(tmp_path, "other")[1], "--fresh")
    assert done.code == 2
    assert "signature does not verify" in done.stderr
    done = warm("models", "verify", "breast_cancer", version, "--key", public, "--workspace", workspace, "--json")
    assert done.code == 0, done.stdout
    assert {c["what"]: c["outcome"] for c in json.loads(done.stdout)["checks"]}["signature"] == "same"


@pytest.mark.parametrize(
    "command",
    [
        ["drift", "breast_cancer@1", "ROWS"],
        ["drift", "breast_cancer@2", "ROWS"],
        ["models", "compare", "breast_cancer", "1", "2", "--data", "ROWS"],
        ["deploy", "OF-TENSORFLOW", "--target", "tf-serving", "-o", "OUTPUT"],
    ],
    ids=["drift-1", "drift-2", "compare", "deploy"],
)
def test_requests_comparisons_and_deployments_take_the_signers_key(command, signed, warm, tmp_path):
    workspace, _, public = signed
    tensorflow = f"breast_cancer@{version_of(workspace, 'tensorflow')}"
    places = {"ROWS": BREAST_CANCER.parent / "data.csv", "OUTPUT": tmp_path / "served", "OF-TENSORFLOW": tensorflow}
    given = [*(places.get(word, word) for word in command), "--workspace", workspace, "--verify"]
    done = warm(*given, public)
    assert done.code == 0, done.stderr
    done = warm(*given, key_pair(tmp_path, "other")[1])
    assert done.code == 2
    assert "signature does not verify" in done.stderr


def test_the_private_key_is_nowhere_in_the_workspace(signed):
    workspace, private, _ = signed
    key = private.read_text().splitlines()[1]
    raw = base64.b64decode("".join(private.read_text().splitlines()[1:-1]))[36:68]  # the number itself, in PKCS #8
    found = [f for f in workspace.rglob("*") if f.is_file()]
    assert len(found) > 100
    assert [f for f in found if key.encode() in (content := f.read_bytes()) or raw in content] == []


def test_another_key_signs_the_unchanged_models_again(signed, warm, tmp_path):
    workspace, private, public = signed
    new_private, new_public = key_pair(tmp_path, "new")
    short = ["--set", "trainer.hyperparameters.epochs=3"]
    check = ["models", "verify", "breast_cancer", "1", "--workspace", workspace, "--key"]
    for key, good, bad in ((new_private, new_public, public), (private, public, new_public)):
        done = warm.run(BREAST_CANCER, workspace, *BOTH, *NO_CONTEST, *short, "--set", f"signing.key={key}")
        assert done.stages["training_pytorch"] == "cached"
        assert (warm(*check, good).code, warm(*check, bad).code) == (0, 1)


def test_a_server_verifies_what_it_serves_and_what_it_swaps_in(signed, warm, tmp_path):
    workspace, _, public = signed
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    champion = alias_version(client, "breast_cancer", "champion")
    other = "1" if champion == "2" else "2"
    options = ["--workspace", workspace, "--verify", public, "--poll", "0.2"]
    signature = place_of(workspace, other) / "model.sig"
    content = signature.read_text()
    with serving("breast_cancer@champion", tmp_path / "log", *options) as server:
        signature.write_text(content.replace("a", "b", 1))
        move = ["models", "promote", "breast_cancer", "--why", "test", "--force", "--workspace", workspace]
        assert warm(*move, other).code == 0
        named = f"breast_cancer version {other}"
        refused = f"version {other} cannot be served and is not swapped in: {named}: its signature does not verify"
        wait_until(lambda: refused in (tmp_path / "log").read_text(), 60, "refused")
        assert server.request("/v2/models/breast_cancer")[2]["versions"] == [champion]
        assert warm(*move, champion).code == 0
    signature.unlink()
    done = warm("serve", f"breast_cancer@{other}", *options, "--port", "0")
    assert done.code == 2
    assert f"{named}: has no signature (model.sig)" in done.stderr
    signature.write_text(content)
