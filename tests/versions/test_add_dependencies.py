"""`switchyard dependencies`: in an environment of its own, with wheels made here in place of a package index."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from switchyard.components.errors import UserError
from switchyard.pipelines.config.list_edit import edit_list
from tests.command import REPOSITORY

CONFIG = "name: trips  # ours\ndata: {path: rides.csv}\nlabel: tip\n"


def wheel(folder, name, version, *needs):
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        info = f"{name}-{version}.dist-info"
        file.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        file.writestr(
            f"{info}/METADATA",
            "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)])
            + "\n",
        )
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    # A TensorFlow or PyTorch that is needed brings requirements that the lock overrides.
    wheel(folder, "syd_words", "1.0", "syd_base>=1", "tensorflow>=2.20", "torch")
    wheel(folder, "syd_words", "1.1", "syd_base>=1", "tensorflow>=2.20", "torch")
    wheel(folder, "syd_words", "2.0", "numpy>=99")
    wheel(folder, "syd_base", "1.0")
    return folder


@pytest.fixture
def switchyard(tmp_path, wheels):
    """Calls the command in a fresh environment on top of the one of the tests."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    own = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    (own / "below.pth").write_text(f"{sysconfig.get_path('purelib')}\n")

    def call(*arguments, **env):
        settings = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PYTHONPATH": str(REPOSITORY), **env}
        command = [tmp_path / "env" / "bin" / "python", "-m", "switchyard", "dependencies", *map(str, arguments)]
        return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)

    call.site = own
    return call


def installed(place: Path):
    return {d.metadata["Name"]: d.version for d in metadata.distributions(path=[str(place)])}


def test_a_package_is_installed_beside_ours_and_listed_in_the_yaml(switchyard, tmp_path):
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(CONFIG)
    done = switchyard("add", "syd_words<2", "--pipeline", pipeline)
    assert (done.returncode, done.stdout) == (0, "syd_words==1.1\n"), done.stderr
    assert installed(switchyard.site) == {"syd_words": "1.1", "syd_base": "1.0"}  # and no TensorFlow, PyTorch or NumPy
    assert pipeline.read_text() == f"{CONFIG}dependencies: [syd_words==1.1]\n"
    # Another version replaces the entry; the environment follows the YAML.
    assert switchyard("add", "syd_words==1.0", "--pipeline", pipeline).returncode == 0
    assert pipeline.read_text() == f"{CONFIG}dependencies: [syd_words==1.0]\n"
    assert switchyard("list", pipeline).stdout == "syd_words==1.0\n"
    pipeline.write_text(f"{CONFIG}dependencies:\n- syd_words==1.1  # newer\n")
    assert switchyard("add", "--pipeline", pipeline).stdout == "syd_words==1.1\n"
    assert installed(switchyard.site)["syd_words"] == "1.1"
    assert switchyard("add", "syd_base", "--pipeline", pipeline).returncode == 0
    assert yaml.safe_load(pipeline.read_text())["dependencies"] == ["syd_words==1.1", "syd_base==1.0"]
    assert "# newer" in pipeline.read_text()


def test_what_cannot_be_added_is_one_sentence_and_changes_nothing(switchyard, tmp_path):
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(CONFIG)
    numpy = metadata.version("numpy")
    offline = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "1"}
    for arguments, env, problem in [
        (["syd_words==2.0"], {}, f"words 2.0 depends on numpy>=99, and Switchyard has numpy=={numpy}; choose another version"),
        (["numpy==1.0"], {}, "do not fit together"),
        (["syd_unknown"], {}, "no version of syd_unknown for Python 3."),
        (["syd_words"], offline, "no package index can be reached"),
        (["syd_words[x]"], {}, "has the extra 'x'"),
    ]:
        done = switchyard("add", *arguments, "--pipeline", pipeline, **env)
        assert done.returncode == 2, (arguments, done)
        assert problem in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "127.0.0.1" not in done.stderr
    assert switchyard("add").returncode == 2
    assert installed(switchyard.site) == {}
    assert pipeline.read_text() == CONFIG


@pytest.mark.parametrize(
    ("entries", "after"),
    [
        ("- a==1\n- b==1  # why b\n", "- a==1\n- b==2  # why b\n- c==3\n"),
        ("  - b==1  # why b", "  - b==2  # why b\n  - c==3"),
        ("[b==1]  # all\r\nlabel: y\r\n", "[b==2, c==3]  # all\r\nlabel: y\r\n"),
    ],
)
def test_comments_and_line_ends_of_the_yaml_stay_and_a_link_to_it_stays_one(entries, after, tmp_path):
    key = f"name: x\ndependencies:{' ' if entries[0] == '[' else chr(10)}"
    file, link = tmp_path / "file.yaml", tmp_path / "link.yaml"
    file.write_bytes((key + entries).encode())
    link.symlink_to(file.name)
    edit_list(link, "dependencies", {"b": "b==2", "c": "c==3"}, lambda text: text[0])
    assert file.read_bytes().decode() == key + after
    assert link.is_symlink()


@pytest.mark.parametrize("text", ["{name: x}", "---\nname: x\n...\n"])
def test_a_yaml_that_cannot_be_extended_is_left_as_it_is_with_what_to_write(text, tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"write there dependencies: \[c==3\]"):
        edit_list(file, "dependencies", {"c": "c==3"}, lambda text: text[0])
    assert file.read_text() == text
