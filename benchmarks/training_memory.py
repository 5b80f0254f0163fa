"""Measures the memory of the process that trains a PyTorch model in a whole run, of this tree or of an older commit.

python benchmarks/training_memory.py [--commit 3e727a9] [--rows 20000] [--json]

A model file of the benchmark samples the memory of its process until the process ends, so that the same file measures every
version. The largest samples are printed: resident memory; of it the part that is not a file (code, mapped data); and the
proportional part, in which memory shared with one other process counts half.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FEATURES = 20
_MODEL = """
import os
import sys
import threading
import time

import torch

FIELDS = {"Rss": "resident", "Anonymous": "anonymous", "Pss": "proportional"}


def sample():
    most, path = {}, os.environ["TRAINING_MEMORY"]
    while True:
        with open("/proc/self/smaps_rollup") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in FIELDS:
                    most[FIELDS[name]] = max(most.get(FIELDS[name], 0), int(value.split()[0]))
        loaded = [name for name in ("tensorflow", "tfx", "apache_beam") if sys.modules.get(name)]
        with open(f"{path}/{os.getpid()}", "w") as file:
            file.write(f"{most['resident']} {most['anonymous']} {most['proportional']} {','.join(loaded) or '-'}")
        time.sleep(0.1)


def build_model(spec):
    if not any(thread.name == "memory" for thread in threading.enumerate()):
        threading.Thread(target=sample, name="memory", daemon=True).start()

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layers = torch.nn.Linear(len(spec.features), 64), torch.nn.ReLU(), torch.nn.Linear(64, spec.outputs)
            self.layers = torch.nn.Sequential(*layers)

        def forward(self, features):
            return self.layers(torch.cat([features[f.name] for f in spec.features], dim=1))

    return Net()
"""


def main() -> None:
    """Runs a pipeline and prints what its training process took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", help="measure this commit of the repository instead of the working tree")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = _tree(options.commit, folder / "tree") if options.commit else ROOT
        found = _measure(tree, folder, options.rows)
    if options.json:
        print(json.dumps({"commit": options.commit, "rows": options.rows, **found}))
        return
    print(f"{options.commit or 'the working tree'}, {options.rows:,} rows of {FEATURES} numbers: the process that trains, in MiB")
    print(f"resident {found['resident']:.0f}, of it anonymous {found['anonymous']:.0f}, proportional {found['proportional']:.0f}")
    print(f"loaded there: {found['loaded']}")


def _tree(commit: str, folder: Path) -> Path:
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def _measure(tree: Path, folder: Path, rows: int) -> dict[str, float | str]:
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, FEATURES))
    y = x @ np.linspace(-1, 1, FEATURES) + random.normal(size=rows) > 0
    header = ",".join([*(f"x{i}" for i in range(FEATURES)), "y"])
    np.savetxt(
        folder / "data.csv", np.column_stack([x, y]), delimiter=",", header=header, comments="", fmt=["%.4f"] * FEATURES + ["%d"]
    )
    (folder / "model.py").write_text(_MODEL)
    trainer = {"framework": "pytorch", "model": "model.py", "hyperparameters": {"epochs": 5}}
    document = {"name": "memory", "data": {"path": "data.csv"}, "label": "y", "trainer": trainer}
    (folder / "pipeline.yaml").write_text(json.dumps({**document, "serving": {"infra_validation": None}}))
    samples = folder / "samples"
    samples.mkdir()
    ours = {"PYTHONPATH": str(tree), "TRAINING_MEMORY": str(samples), "TF_CPP_MIN_LOG_LEVEL": "3", "SWITCHYARD_WARM": "0"}
    environment = {**os.environ, **ours}
    command = [sys.executable, "-m", "switchyard", "run", "pipeline.yaml"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the run ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    # The checks before the run build the model too: the process that trains takes most.
    resident, anonymous, proportional, loaded = max((f.read_text().split() for f in samples.iterdir()), key=lambda s: int(s[1]))
    sizes = {"resident": resident, "anonymous": anonymous, "proportional": proportional}
    return {**{name: int(kib) / 1024 for name, kib in sizes.items()}, "loaded": loaded}


if __name__ == "__main__":
    main()
