"""The wheel: what `pip wheel .` builds works in a user's folder that has packages `components`, `pipelines` and `tests`."""

import json
import subprocess
import sys
import zipfile

import pytest

from tests.command import REPOSITORY, environment
from tests.wheels import build_sdist, build_wheel, wheel_of_sdist

PACKAGES = ("components", "pipelines", "tests")
SCRIPT = """
import json, sys
import components, pipelines, tests
import switchyard
from switchyard.pipelines.cli import main

config = switchyard.load_config("pipeline.yaml")
try:
    main(["run", "--help"])
except SystemExit as ended:
    code = ended.code
print(json.dumps([switchyard.__file__, components.__file__, config.name, code]))
"""


def tracked():
    """Returns the tracked files of the packages, as paths in the wheel."""
    names = ["components", "pipelines", "switchyard/*.py", "switchyard/py.typed"]
    found = subprocess.run(["git", "ls-files", *names], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    return {name if name.startswith("switchyard/") else f"switchyard/{name}" for name in found if name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_contains_exactly_the_files_of_the_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert packed == tracked()


def test_the_source_distribution_builds_the_same_wheel(wheel, tmp_path):
    made = wheel_of_sdist(build_sdist(tmp_path / "sdist"), tmp_path / "wheel")
    assert made.name == wheel.name
    with zipfile.ZipFile(wheel) as expected, zipfile.ZipFile(made) as found:
        contents = [{n: archive.read(n) for n in archive.namelist() if ".dist-info/" not in n} for archive in (expected, found)]
    assert contents[0] == contents[1]


def test_the_wheel_works_beside_packages_named_like_the_repositorys_folders(wheel, tmp_path):
    site, folder = tmp_path / "site", tmp_path / "project"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in PACKAGES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    (folder / "script.py").write_text(SCRIPT)
    (folder / "data.csv").write_text("x,y\n1,0\n2,1\n")
    (folder / "pipeline.yaml").write_text("name: mine\ndata: {path: data.csv}\nlabel: y\n")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment(PYTHONPATH=site), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ours, theirs, name, code = json.loads(done.stdout.splitlines()[-1])
    assert ours == str(site / "switchyard" / "__init__.py")
    assert theirs == str(folder / "components" / "__init__.py")
    assert (name, code) == ("mine", 0)
