"""A root of Debian 13 (glibc 2.41, Python 3.13), made by `infra/image/debian-root.sh`: a new clone is installed and run in it.

The packages come from the repository's cache of uv, or from the registry. Needs mmdebstrap and root, and is skipped with the
reason otherwise.
"""

import os
import re
import shutil
import signal
import subprocess

import pytest

from tests.command import REPOSITORY, environment
from tests.wheels import build_sdist, build_wheel, without_hashes

# In one process: the root and the environment in it are made once.
pytestmark = [pytest.mark.timeout(3000), pytest.mark.xdist_group("debian13")]
UNREACHABLE = ("Failed to fetch", "Temporary failure resolving", "error sending request", "dns error", "Unable to connect")
LOCK = "requirements.glibc239.lock"


def call(command, seconds):
    """Runs a command and returns its code and output; ends all that it started when the time is over."""
    cache = environment().get("UV_CACHE_DIR") or REPOSITORY / ".cache" / "uv"
    given = environment(UV_CACHE_DIR=cache)
    process = subprocess.Popen(
        list(map(str, command)), env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, output


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone of the repository with the working tree's changes, in which `make` may make its own environment."""
    folder = tmp_path_factory.mktemp("clone") / "source"
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, folder], check=True)
    listed = ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
    changed = subprocess.run(listed, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    for name in filter(None, changed.split("\0")):
        (folder / name).unlink(missing_ok=True)
        if (REPOSITORY / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name, follow_symlinks=False)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def debian(clone, tmp_path_factory):
    """Returns a function: a shell command -> its output in the root, in the clone; an exit code other than 0 fails the test.

    `downloads`: a failure because no package can be reached is a skip.
    """
    if shutil.which("mmdebstrap") is None:
        pytest.skip("no mmdebstrap here: apt-get install mmdebstrap")
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a root of Debian needs the rights to mount and to change the root: run as root")
    root, script = tmp_path_factory.mktemp("debian") / "root", clone / "infra" / "image" / "debian-root.sh"

    def run(command, seconds=1500, *, downloads=False):
        code, output = call([script, root, command], seconds)
        if code and downloads and any(sign in output for sign in UNREACHABLE):
            pytest.skip(f"the packages cannot be reached: {output.splitlines()[-1][:200]}")
        assert code == 0, output[-6000:]
        return output

    run("true", downloads=True)
    yield run
    # Mounts were those of the commands.
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def installed(debian):
    """The output of `make setup`."""
    return debian("make setup 2>&1", downloads=True)


def test_make_chooses_python_3_13_and_the_lock_without_overrides(debian, installed):
    assert f"==> python3.13 (Python 3.13) with {LOCK}: glibc 2.41 is 2.39 or later, so TFX's own pins install" in installed
    versions = debian(".venv/bin/python -c 'import sys, numpy; print(sys.version_info[:2], numpy.__version__)'")
    assert versions.startswith("(3, 13) 2.")


def test_the_readmes_test_command_passes_and_skips_only_what_needs_a_gpu_or_a_tpu(debian, installed):
    """Lint, types, import contracts, unit tests and one pass of every capability, the demo in both frameworks among them."""
    lines = debian("CI=1 make test 2>&1", seconds=2700).splitlines()
    assert " passed" in lines[-1]
    skipped = [line for line in lines if line.startswith("SKIPPED")]
    assert [line for line in skipped if not re.search(r"\b[GT]PUs?\b", line)] == []


def test_the_wheel_and_the_sdist_are_installed_without_overrides_and_their_command_starts(debian, installed, clone, tmp_path):
    """With the lock's versions, which the cache holds: a later one of some dependency is no change of this repository."""
    (clone / "dist").mkdir()
    files = [shutil.copy(build(tmp_path / build.__name__), clone / "dist") for build in (build_wheel, build_sdist)]
    limits = clone / "dist" / "limits.txt"
    limits.write_text(without_hashes((REPOSITORY / LOCK).read_text()))
    wheel, sdist = (f"dist/{os.path.basename(file)}" for file in files)
    install = f".tools/bin/uv pip install --python /tmp/bare/bin/python -c dist/limits.txt {wheel}"
    debian(f".tools/bin/uv venv /tmp/bare && {install}", downloads=True)
    assert debian("/tmp/bare/bin/switchyard --help").startswith("Usage: switchyard")
    from_sdist = f".tools/bin/uvx --constraints dist/limits.txt --from ./{sdist} switchyard --help"
    assert "Usage: switchyard" in debian(from_sdist, downloads=True)
