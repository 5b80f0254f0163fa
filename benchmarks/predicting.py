"""Compares `switchyard predict` on a file of trips with a loop over the bundle, without checks of values or resumption.

python benchmarks/predicting.py [--rows 5000000] [--trainer tensorflow] [--repeats 1] [--json]

The loop reads the CSV in blocks with pandas, calls the bundle's `predict` and writes Parquet. Both sides are separate processes;
seconds are wall-clock time including imports; the smallest of the repeats of each is compared. The command checks that both
files have the same predictions.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from runs import NETWORKS, machine, our_command, row, run
from stock_tfx.trips import write_trips

TARGET = 1.3
_TRAINED = 20_000
_MOST_DIFFERENCE = 1e-6
_LOOP = """
import json, sys
import pandas as pd, pyarrow as pa, pyarrow.parquet as pq
from switchyard.components.import_order import import_torch_first
import_torch_first()
from switchyard.components.bundle.model import load_bundle
bundle = load_bundle(sys.argv[1])
writer, rows = None, 0
for block in pd.read_csv(sys.argv[2], chunksize=100_000):
    found = pa.Table.from_pandas(pd.concat([block, bundle.predict(block)], axis=1), preserve_index=False)
    writer = writer or pq.ParquetWriter(sys.argv[3], found.schema)
    writer.write_table(found)
    rows += len(block)
writer.close()
print(json.dumps({"rows": rows}))
"""
_OURS = """
import json, sys
from switchyard import predict
done = predict(sys.argv[1], sys.argv[2], output=sys.argv[3], trust=True, fresh=True)
print(json.dumps({"rows": done.rows, "bad_rows": done.bad_rows}))
"""


def main() -> None:
    """Trains a model, predicts on both sides and prints seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--trainer", choices=NETWORKS, default="tensorflow")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = _measure(options.rows, options.trainer, options.repeats)
    ratio = min(found["switchyard"]) / min(found["loop"])
    if options.json:
        what = f"predict of {options.rows:,} rows, {options.trainer}, a loop over the bundle = 1"
        print(json.dumps({"rows": options.rows, "machine": machine(), "measured": found, "table": [row(what, ratio, TARGET)]}))
        return
    print(f"{options.rows:,} rows, {machine()}")
    for side, seconds in found.items():
        print(f"{side:12}{min(seconds):8.1f} s{options.rows / min(seconds):12,.0f} rows/s")
    print(f"ratio {ratio:.2f}, target: at most {TARGET}")


def _measure(rows: int, trainer: str, repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {"switchyard": [], "loop": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = folder / "trips.csv", folder / "rows.csv"
        write_trips(small, min(_TRAINED, rows))
        write_trips(large, rows, seed=8)
        print("training", file=sys.stderr)
        run(our_command(folder, small, trainer))
        [model] = (folder / "w" / "artifacts" / "training" / "model").iterdir()
        sides = {"switchyard": _OURS, "loop": _LOOP}
        for repeat in range(repeats):
            for side, script in sides.items():
                print(f"{repeat + 1} of {repeats}: {side}", file=sys.stderr)
                output = folder / f"{side}.parquet"
                output.unlink(missing_ok=True)
                done = run([sys.executable, "-c", script, str(model / "Format-Serving"), str(large), str(output)])
                if done["rows"] != rows or done.get("bad_rows"):
                    sys.exit(f"{side} predicted {done} of {rows} rows")
                seconds[side].append(done["seconds"])
        _same(folder / "switchyard.parquet", folder / "loop.parquet")
    return seconds


def _same(ours: Path, loop: Path) -> None:
    one, other = (_scores(pq.read_table(file)) for file in (ours, loop))
    if len(one) != len(other) or np.abs(one - other).max() > _MOST_DIFFERENCE:
        sys.exit("predict and the loop differ in their probabilities")


def _scores(table: Any) -> np.ndarray:
    return np.asarray(table["probability"].to_numpy(), dtype=np.float64)


if __name__ == "__main__":
    main()
