"""The project's own image, built from the Dockerfile, running whole pipelines by Docker's API. `make test-containers`."""

import json
import os
import shutil
import subprocess
import time

import pytest

from tests.command import BREAST_CANCER, REPOSITORY, STAGES, environment, run, switchyard

pytestmark = pytest.mark.timeout(2400)
BASE = "docker.io/library/python:3.11-slim-bookworm"
IMAGE = "localhost/switchyard:test"
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
def image(docker):
    """The image of this working tree; the base comes from Debian, as no registry of images is reached."""
    if podman("image", "exists", BASE, **docker).returncode:
        subprocess.run([REPOSITORY / "infra" / "image" / "offline-base.sh", BASE], env=environment(**docker), check=True)
    flags = "--pull=never --network=host --volume /etc/ssl/certs:/etc/ssl/certs:ro"
    command = ["make", "image", "CONTAINERS=podman", f"IMAGE={IMAGE}", f"IMAGE_FLAGS={flags}"]
    built = subprocess.run(command, cwd=REPOSITORY, env=environment(**docker), capture_output=True, text=True, check=False)
    assert built.returncode == 0, (built.stdout + built.stderr)[-4000:] + str(shutil.disk_usage("/var/lib"))
    return IMAGE


def test_the_image_imports_what_tasks_import_as_any_user(docker, image):
    done = podman("run", "--rm", "--user", "12345:12345", "--read-only", "--tmpfs", "/tmp", image, **docker)
    assert done.returncode == 0, done.stderr
    versions = json.loads(done.stdout.splitlines()[-1])
    assert versions["python"].startswith("3.11")
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
