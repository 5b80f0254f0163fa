"""A version's `requirements.txt` is enough: in a new environment made from it MLflow loads the model and predicts the same.

The packages come from uv's cache, or from the registry; without either the test is skipped with the reason.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from switchyard.components.bundle.model import example_rows, load_bundle
from tests.command import REPOSITORY, environment
from tests.wheels import build_wheel, without_hashes

UV = REPOSITORY / ".tools" / "bin" / "uv"
PREDICT = """
import json, sys
import mlflow, pandas
found = mlflow.pyfunc.load_model(sys.argv[1]).predict(pandas.read_parquet(sys.argv[2]))
import switchyard
print(json.dumps([switchyard.__file__, list(found["probability"])]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if not UV.exists():
        pytest.skip(f"{UV} is missing: make setup")
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def uv(*arguments):
    cache = {"UV_CACHE_DIR": str(REPOSITORY / ".cache" / "uv")} if "UV_CACHE_DIR" not in environment() else {}
    return subprocess.run([UV, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment(**cache))


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """Returns a function: a bundle -> the interpreter of a new environment made from its `requirements.txt` and the wheel."""

    def make(bundle):
        place = tmp_path_factory.mktemp("environment") / "venv"
        assert uv("venv", "--quiet", "--python", sys.executable, place).returncode == 0
        # Links into the cache: a copy of CUDA's libraries is 5 GB. What the requirements leave open is the lock's, which the
        # cache has; glibc below 2.39 needs the overrides, as every installation there does (docs/install.md).
        old = tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 39)
        lock = (
            ("requirements.lock", "--override", REPOSITORY / "requirements.overrides.txt")
            if old
            else ("requirements.glibc239.lock",)
        )
        (place.parent / "lock.txt").write_text(without_hashes((REPOSITORY / lock[0]).read_text()))
        limits = ["--constraint", place.parent / "lock.txt", *lock[1:]]
        into = ["--quiet", "--python", place / "bin" / "python", "--link-mode", "symlink"]
        done = uv("pip", "install", *into, *limits, "-r", bundle / "requirements.txt", wheel)
        if done.returncode and any(sign in done.stderr for sign in ("Failed to fetch", "error sending request", "dns error")):
            pytest.skip(f"the packages cannot be reached: {done.stderr.splitlines()[0][:200]}")
        assert done.returncode == 0, done.stderr
        return place / "bin" / "python"

    return make


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_mlflow_predicts_the_same_in_an_environment_made_from_the_requirements(framework, bundles, fresh, tmp_path):
    bundle = bundles[framework]
    rows = example_rows(bundle)
    rows.to_parquet(tmp_path / "rows.parquet")
    expected = load_bundle(bundle).predict(rows)["probability"]
    python = fresh(bundle)
    command = [python, "-I", "-c", PREDICT, bundle, tmp_path / "rows.parquet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    place, found = json.loads(done.stdout.splitlines()[-1])
    assert Path(place).is_relative_to(python.parent.parent)
    assert found == pytest.approx(list(expected), abs=1e-6)
