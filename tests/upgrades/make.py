"""Keeps a workspace and a compiled pipeline of the present version for the tests of later ones: `python -m tests.upgrades.make`.

Writes `tests/upgrades/VERSION/`: `workspace.tar.xz`, a run with a signed version of each framework; `pipeline.yaml.xz`, the same
pipeline compiled for Kubeflow; `rows.csv` and `scores.json`, rows and what each version predicts for them; `signer.pem`, the
public key. The private key is discarded.
"""

import io
import json
import lzma
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from tests.command import COMMAND, REPOSITORY, environment
from tests.security.keys import key_pair

HERE = Path(__file__).parent
# Says nothing about the machine; the files contain it.
WORK = Path("/tmp/switchyard-upgrade")
LIMIT = 300_000
PIPELINE = """name: upgrade
data: {path: rides.csv}
label: tip
trainer:
  framework: [tensorflow, pytorch]
  hyperparameters: {epochs: 20, batch_size: 16, learning_rate: 0.03}
evaluation: {improvement: null, thresholds: {}}
"""
# What a later run does not read, or writes anew.
LEFT_OUT = ("logs", "caches", "state", "kubeflow", "artifacts/report")


def main():
    target = HERE / version("switchyard")
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    try:
        made = _make()
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    size = sum(map(len, made.values()))
    assert size < LIMIT, f"{size:,} bytes"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name, content in made.items():
        (target / name).write_bytes(content)
    print(f"{target}: {size:,} bytes")


def _make():
    rows = [(f"{i % 12}.5", "ABC"[i % 3], int((i % 12) > 5)) for i in range(300)]
    (WORK / "rides.csv").write_text("miles,zone,tip\n" + "".join(f"{m},{z},{t}\n" for m, z, t in rows))
    (WORK / "rows.csv").write_text("miles,zone\n0.5,A\n11.5,B\n6.25,C\n3.5,unseen\n")
    (WORK / "pipeline.yaml").write_text(PIPELINE)
    # MLflow writes the path of the code into the model.
    for name in ("components", "pipelines", "switchyard"):
        shutil.copytree(REPOSITORY / name, WORK / "code" / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    private, public = key_pair(WORK, "signer")
    workspace = WORK / "w"
    _do("run", "pipeline.yaml", "--workspace", workspace, "--set", f"signing={private}")
    scores = {}
    listed = json.loads(_do("models", "list", "upgrade", "--workspace", workspace, "--json").splitlines()[0])
    for found in listed["versions"]:
        output = WORK / "scores.jsonl"
        _do(
            "predict",
            f"upgrade@{found['version']}",
            "rows.csv",
            "-o",
            output,
            "--workspace",
            workspace,
            "--verify",
            public,
            "--fresh",
        )
        probabilities = [json.loads(line)["probability"] for line in output.read_text().splitlines()]
        scores[found["version"]] = {"framework": found["framework"], "scores": probabilities}
    assert len(scores) == 2, "a version of each framework"
    _do("compile", "pipeline.yaml", "-o", WORK / "compiled.yaml", "--workspace", WORK / "c")
    return {
        "workspace.tar.xz": _packed(workspace),
        "pipeline.yaml.xz": lzma.compress(_checked("pipeline", (WORK / "compiled.yaml").read_bytes()), preset=9),
        "rows.csv": (WORK / "rows.csv").read_bytes(),
        "scores.json": json.dumps(scores, indent=1).encode() + b"\n",
        "signer.pem": public.read_bytes(),
    }


def _do(*arguments):
    given = environment(LOGNAME="user", PYTHONPATH=WORK / "code")
    done = subprocess.run([*COMMAND, *map(str, arguments)], cwd=WORK, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def _packed(workspace):
    for name in LEFT_OUT:
        shutil.rmtree(workspace / name, ignore_errors=True)
    for database in workspace.glob("*.db"), workspace.glob("*.sqlite"):
        for file in database:
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("VACUUM")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for file in sorted(workspace.rglob("*")):
            # Logs name the source files of warnings.
            if file.suffix in (".lock", ".log") or "__pycache__" in file.parts:
                continue
            entry = tar.gettarinfo(file, str(file.relative_to(workspace)))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            if entry.isreg():
                tar.addfile(entry, io.BytesIO(_checked(entry.name, file.read_bytes())))
            else:
                tar.addfile(entry)
    # Copies of a file are far apart: the dictionary holds all of them.
    return lzma.compress(packed.getvalue(), filters=[{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 26}])


def _checked(name, content):
    """Returns a file's content, unless it says something about this machine."""
    for trace in (str(REPOSITORY), sys.prefix, str(Path.home()), platform.node(), "PRIVATE KEY"):
        if len(trace) > 3:
            assert trace.encode() not in content, f"{name} contains {trace!r}"
    return content


if __name__ == "__main__":
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    main()
