"""The project's own image, built from the Dockerfile, running whole pipelines by Docker's API. `make test-containers`."""

import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import time
from contextlib import closing
from urllib.request import Request, urlopen

import pytest

from tests.command import BREAST_CANCER, REPOSITORY, STAGES, environment, free_port, run, switchyard
from tests.serving.server import wait_until

pytestmark = pytest.mark.timeout(2400)
BASE = "docker.io/library/python:3.13-slim-trixie"
IMAGE = "localhost/switchyard:test"
SERVING = "localhost/switchyard-serving:test"
# Bundles of both frameworks, and what they predict.
KEPT = REPOSITORY / "tests" / "upgrades" / "0.1.0"
# What podman needs on a machine without systemd (docs/kubeflow.md).
SETTINGS = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def podman(*arguments, **extra):
    return subprocess.run(["podman", *arguments], env=environment(**extra), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    """Podman's socket, which speaks Docker's API."""
    if shutil.which("podman") is None:
        pytest.skip("no podman here: apt-get install podman buildah runc iptables netavark aardvark-dns conmon mmdebstrap")
    folder = tmp_path_factory.mktemp("podman")
    (folder / "containers.conf").write_text(SETTINGS)
    env = {"CONTAINERS_CONF": str(folder / "containers.conf")}
    socket = folder / "podman.sock"
    command = ["podman", "system", "service", "--time=0", f"unix://{socket}"]
    with open(folder / "service.log", "w") as log:
        service = subprocess.Popen(command, env=environment(**env), stdout=log, stderr=log)
        try:
            while not socket.exists():
                assert service.poll() is None, (folder / "service.log").read_text()
                time.sleep(0.1)
            yield {**env, "DOCKER_HOST": f"unix://{socket}"}
        finally:
            service.terminate()
            service.wait(30)


@pytest.fixture(scope="module")
def base(docker):
    """The images' base; it comes from Debian, as no registry of images is reached."""
    if podman("image", "exists", BASE, **docker).returncode:
        subprocess.run([REPOSITORY / "infra" / "image" / "offline-base.sh", BASE], env=environment(**docker), check=True)


def build(docker, target, name, *variables):
    flags = "--pull=never --network=host --volume /etc/ssl/certs:/etc/ssl/certs:ro"
    command = ["make", target, "CONTAINERS=podman", f"IMAGE={name}", f"IMAGE_FLAGS={flags}", *variables]
    built = subprocess.run(command, cwd=REPOSITORY, env=environment(**docker), capture_output=True, text=True, check=False)
    assert built.returncode == 0, (built.stdout + built.stderr)[-4000:] + str(shutil.disk_usage("/var/lib"))
    return name


@pytest.fixture(scope="module")
def image(docker, base):
    """The image of this working tree."""
    return build(docker, "image", IMAGE)


@pytest.fixture(scope="module")
def serving_image(docker, base):
    """The image that serves TensorFlow's models."""
    return build(docker, "image-serving", SERVING, "FRAMEWORK=tensorflow")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Framework -> folder of a bundle, readable for any user."""
    folder = tmp_path_factory.mktemp("bundles")
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress((KEPT / "workspace.tar.xz").read_bytes()))) as tar:
        tar.extractall(folder, filter="data")
    subprocess.run(["chmod", "-R", "a+rX", folder.parent], check=True)
    found = {f: next(folder.glob(f"artifacts/training_{f}/model/*/Format-Serving")) for f in ("tensorflow", "pytorch")}
    return {framework: ["--volume", f"{place}:/mnt/models:ro"] for framework, place in found.items()}


def test_the_image_imports_what_tasks_import_as_any_user(docker, image):
    done = podman("run", "--rm", "--user", "12345:12345", "--read-only", "--tmpfs", "/tmp", image, **docker)
    assert done.returncode == 0, done.stderr
    versions = json.loads(done.stdout.splitlines()[-1])
    assert versions["python"].startswith("3.13")
    inspected = json.loads(podman("image", "inspect", image, **docker).stdout)[0]
    assert inspected["Config"]["User"] == "10001:10001"
    labels = inspected["Config"]["Labels"]
    assert labels["switchyard.accelerator"] == "cpu"
    assert labels["org.opencontainers.image.version"] == versions["switchyard"]
    there = podman("run", "--rm", image, "sh", "-c", "command -v pytest ruff || true; id -u; touch /opt/switchyard/x", **docker)
    assert there.stdout.split() == ["10001"], "no tools of developers"
    assert there.returncode != 0, "nothing of it can be changed"


def test_the_pipeline_in_containers_is_the_local_pipeline(docker, image, tmp_path):
    both = ["--trainer", "tensorflow", "--trainer", "pytorch"]
    local = run(BREAST_CANCER, tmp_path / "local", *both)
    arguments = [*both, "--runner", "kfp-docker", "--set", f"kubeflow.image={image}"]
    contained = switchyard(
        "run", BREAST_CANCER, "--workspace", tmp_path / "docker", "--json", *arguments, env=docker, timeout=1500
    )
    assert contained.code == 0, contained.stderr
    here, there = json.loads(local.stdout.splitlines()[-1]), json.loads(contained.stdout.splitlines()[-1])
    for name, model in here["models"].items():
        assert there["models"][name]["metrics"] == pytest.approx(model["metrics"], abs=1e-6), name
    assert {s: r["status"] for s, r in there["stages"].items()} == dict.fromkeys(here["stages"], "ran")
    assert set(STAGES) - {"training"} <= set(there["stages"])
    # What containers wrote belongs to whoever ran them.
    assert {p.stat().st_uid for p in (tmp_path / "docker").rglob("*")} == {os.getuid()}


def test_a_failing_container_is_a_failing_stage(docker, image, tmp_path):
    (tmp_path / "features.py").write_text("def preprocessing_fn(inputs):\n    raise ValueError('no such luck')\n")
    arguments = ["--runner", "kfp-docker", "--set", f"kubeflow.image={image}", "--set", f"preprocessing={tmp_path}/features.py"]
    done = switchyard("run", BREAST_CANCER, "--workspace", tmp_path / "w", "--json", *arguments, env=docker, timeout=900)
    assert done.code in (1, 2), done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["status"] == "failed"
    assert found["stages"]["transform"]["status"] == "failed"
    assert "no such luck" in found["error"]
    assert "training" not in found["stages"]


def test_a_missing_image_is_reported_before_the_run(docker, tmp_path):
    arguments = ["--runner", "kfp-docker", "--set", "kubeflow.image=none/nothing:1"]
    done = switchyard("run", BREAST_CANCER, "--workspace", tmp_path, *arguments, env=docker)
    assert done.code == 2
    assert "make image" in done.stderr


def test_the_serving_image_answers_for_a_model_of_its_framework(docker, serving_image, bundles):
    port = free_port()
    how = ["--rm", "--detach", "--network=host", "--user", "12345:12345", "--read-only", "--tmpfs", "/tmp"]
    serve = ["switchyard", "serve", "/mnt/models", "--trust", "--name", "upgrade", "--port", str(port)]
    started = podman("run", *how, *bundles["tensorflow"], serving_image, *serve, **docker)
    assert started.returncode == 0, started.stderr
    container = started.stdout.strip()
    try:
        rows = [{"miles": 0.5, "zone": "A"}, {"miles": 11.5, "zone": "B"}]
        asked = Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"dataframe_records": rows}).encode(),
            {"Content-Type": "application/json"},
        )

        def ready():
            assert podman("container", "exists", container, **docker).returncode == 0, "it ended"
            try:
                with closing(urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5)) as answer:
                    return answer.status == 200
            except OSError:
                return False

        wait_until(ready, 180, "ready")
        with closing(urlopen(asked, timeout=60)) as answer:
            found = [row["probability"] for row in json.load(answer)["predictions"]]
    finally:
        podman("stop", "--time", "10", container, **docker)
    recorded = json.loads((KEPT / "scores.json").read_text()).values()
    expected = next(r["scores"] for r in recorded if r["framework"] == "tensorflow")
    assert found == pytest.approx(expected[:2], rel=1e-4)


def test_the_serving_image_refuses_a_model_of_another_framework_and_other_commands(docker, serving_image, bundles):
    run_it = ["run", "--rm", *bundles["pytorch"], serving_image, "switchyard"]
    refused = podman(*run_it, "serve", "/mnt/models", "--trust", "--port", "0", **docker)
    assert refused.returncode == 2, refused.stderr
    assert "this image, switchyard-serving for tensorflow, serves no such models" in refused.stderr
    assert "make image-serving FRAMEWORK=pytorch" in refused.stderr
    other = podman(*run_it, "predict", "/mnt/models", "/mnt/models", "-o", "/tmp/y.csv", **docker)
    assert other.returncode == 2, other.stderr
    assert "only serves models of tensorflow, by switchyard serve; for switchyard predict use the image" in other.stderr
