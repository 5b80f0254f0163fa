"""Trips in the manner of TFX's taxi tutorial, by a seed: seven columns, an integer label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

NUMBERS, WORDS, LABEL = ("miles", "fare", "seconds", "hour"), ("payment", "company"), "tipped"
_CHUNK = 500_000


def write_trips(path: Path, rows: int, seed: int = 7) -> None:
    """Writes `rows` trips as CSV."""
    random = np.random.default_rng(seed)
    companies = np.array([f"company {i}" for i in range(40)])
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    with path.open("wb") as file:
        # By hand: Arrow quotes the names, and CsvExampleGen takes the quotes for a part of them.
        file.write(",".join([*NUMBERS, *WORDS, LABEL]).encode() + b"\n")
        for start in range(0, rows, _CHUNK):
            n = min(_CHUNK, rows - start)
            miles = random.exponential(3, n).round(3)
            payment = np.array(["cash", "card", "other"])[random.choice(3, n, p=[0.35, 0.5, 0.15])]
            hour = random.integers(0, 24, n)
            logit = 2.2 * (payment == "card") - 2 + 0.15 * miles + 0.03 * (hour - 12)
            columns = {
                "miles": miles,
                "fare": (3 + 2 * miles + random.normal(0, 1, n)).round(2),
                "seconds": (miles * 180 + random.exponential(120, n)).astype(int),
                "hour": hour,
                "payment": payment,
                "company": random.choice(companies, n),
                LABEL: (random.random(n) < 1 / (1 + np.exp(-logit))).astype(int),
            }
            pyarrow.csv.write_csv(pa.table(columns), file, options)
