"""What is recorded of the software that trained a model: lock or installed packages, image, commit."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes import config

from switchyard.components.errors import ArgumentError
from switchyard.components.tracking import environment
from switchyard.components.tracking.references import name_and_version, name_and_versions

LOCK = """numpy==2.4.6 \\
    --hash=sha256:ab
pywin32==312 ; sys_platform == 'win32' \\
    --hash=sha256:ef
"""


@pytest.fixture
def prefix(tmp_path):
    """An environment that was installed from a lock, which it holds."""
    (tmp_path / "share" / "switchyard").mkdir(parents=True)
    (tmp_path / "share" / "switchyard" / "requirements.lock").write_text(LOCK)
    for name in ("numpy-2.4.6", "switchyard-0.1.0"):
        (tmp_path / "site-packages" / f"{name}.dist-info").mkdir(parents=True)
    return tmp_path


def lock(prefix):
    return environment.lock(str(prefix), [str(prefix), str(prefix / "site-packages")])


def test_an_environment_with_the_packages_of_its_lock_is_named_by_the_lock(prefix):
    assert lock(prefix) == f"sha256:{hashlib.sha256(LOCK.encode()).hexdigest()} of requirements.lock"


@pytest.mark.parametrize(("change", "packages"), [("another version", 1), ("a package beside it", 2), ("no lock", 1)])
def test_any_other_environment_is_named_by_its_packages(prefix, change, packages):
    folder, before = prefix / "site-packages", lock(prefix)
    if change == "another version":
        (folder / "numpy-2.4.6.dist-info").rename(folder / "numpy-2.4.5.dist-info")
    elif change == "a package beside it":
        (folder / "Some_Package-1.0.dist-info").mkdir()
    else:
        (prefix / "share" / "switchyard" / "requirements.lock").unlink()
    assert lock(prefix) != before
    assert lock(prefix).endswith(f" of {packages} installed packages")


@pytest.fixture
def pod(tmp_path, monkeypatch):
    """A process in the pod `train-1` of a cluster whose API answers with what is set: status code and container statuses."""
    answer = {"code": 200, "statuses": []}

    class Api(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path == "/api/v1/namespaces/team/pods/train-1"
            body = json.dumps({"kind": "Pod", "status": {"containerStatuses": answer["statuses"]}}).encode()
            self.send_response(answer["code"] if known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever).start()
        (tmp_path / "namespace").write_text("team\n")
        monkeypatch.setattr(environment, "_NAMESPACE_FILE", tmp_path / "namespace")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KFP_POD_NAME", "train-1")

        def load(client_configuration):
            client_configuration.host = f"http://127.0.0.1:{server.server_port}"

        monkeypatch.setattr(config, "load_incluster_config", load)
        yield answer
        server.shutdown()


def status(name, image_id):
    return {"name": name, "image": "team/switchyard:1", "imageID": image_id, "ready": True, "restartCount": 0}


@pytest.mark.parametrize(
    ("image_id", "found"),
    [
        ("registry.example.org/team/switchyard@sha256:12", "registry.example.org/team/switchyard@sha256:12"),
        ("docker-pullable://team/switchyard@sha256:12", "team/switchyard@sha256:12"),
        ("sha256:34", "team/switchyard:1 sha256:34"),
    ],
)
def test_the_image_of_a_pod_is_the_one_that_its_node_runs(pod, image_id, found):
    pod["statuses"] = [status("wait", "argo@sha256:99"), status("main", image_id)]
    assert environment.image() == found


def test_a_pod_that_may_not_read_itself_has_an_unknown_image_and_the_reason(pod):
    pod["code"] = 403
    assert environment.image().startswith("unknown: (403)")


def test_outside_of_a_cluster_there_is_no_image(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert environment.image() == "none"


@pytest.mark.parametrize(
    ("changed", "said"), [("no", "12ab"), ("yes", "12ab with uncommitted changes"), ("unknown", "12ab, it is unknown whether")]
)
def test_a_commit_says_whether_files_were_changed_since(changed, said):
    tags = {"mlflow.source.git.commit": "12ab", "switchyard.git.uncommitted_changes": changed}
    assert environment.commit_of(tags).startswith(said)
    assert environment.commit_of({}) == ""


@pytest.mark.parametrize("given", [("rides", "champion"), ("rides@champion", None), ("models:/rides@champion", None)])
def test_a_version_is_named_by_two_words_or_by_one(given):
    assert name_and_version(*given) == ("rides", "champion")


@pytest.mark.parametrize(("given", "said"), [(("rides", None), "rides@VERSION"), (("rides@1", "2"), "given twice")])
def test_no_version_and_two_versions_are_refused(given, said):
    with pytest.raises(ArgumentError, match=said):
        name_and_version(*given)


@pytest.mark.parametrize(
    "words",
    [
        "rides 1 champion",
        "rides@1 rides@champion",
        "rides@1 champion",
        "rides rides@1 champion",
        "models:/rides/1 rides@champion",
    ],
)
def test_two_versions_are_named_by_three_words_or_by_two(words):
    assert name_and_versions(words.split()) == ("rides", ("1", "champion"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("rides", "versions: 0 given, and two are compared; give rides VERSION VERSION"),
        ("rides@1", "versions: 1 given"),
        ("rides@1 2 3", "versions: 3 given"),
        ("rides@1 tips@2", "versions: rides and tips are two models; give two versions of one of them"),
    ],
)
def test_other_than_two_versions_of_one_model_are_refused(words, said):
    with pytest.raises(ArgumentError, match=said):
        name_and_versions(words.split())
