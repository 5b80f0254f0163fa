"""Writes the data of the twenty tasks of a new user, docs/twenty-tasks.md: `python -m benchmarks.twenty_tasks FOLDER`."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.by_hand.data import LABELS, TASKS

ROWS = 1500
_GOOD, _BAD = ("thanks", "friendly", "clean"), ("late", "rude", "dirty")


def trips(random: np.random.Generator) -> pd.DataFrame:
    """Returns taxi trips, with tips that depend on the payment and on the fare."""
    miles = random.exponential(3, ROWS).round(3)
    frame = pd.DataFrame({"miles": miles, "fare": (3 + 2 * miles + random.normal(size=ROWS)).round(2)})
    frame["payment"] = random.choice(["cash", "card", "card", "other"], ROWS)
    frame["weekend"] = random.choice(["yes", "no"], ROWS)
    frame["importance"] = random.integers(1, 4, ROWS)
    frame["tipped"] = (random.random(ROWS) < np.where(frame.payment == "card", 0.8, 0.15)).astype(int)
    frame["tip"] = (0.2 * frame.fare * (frame.payment == "card") + 0.3 * random.normal(size=ROWS)).round(2)
    return frame


def notes(random: np.random.Generator) -> pd.DataFrame:
    """Returns short notes of passengers; a complaint has one of three words."""
    complaint = random.integers(0, 2, ROWS)
    words = [random.choice(_BAD if bad else _GOOD) for bad in complaint]
    fillers = random.choice(["the ride was", "driver and car", "we arrived", "all in all"], ROWS)
    numbers = random.integers(0, 10**6, ROWS)
    texts = [f"{filler} {word} ({number})" for filler, word, number in zip(fillers, words, numbers, strict=True)]
    return pd.DataFrame({"note": texts, "complaint": complaint})


def gestures(random: np.random.Generator) -> list[dict[str, object]]:
    """Returns rows with a small picture, a list of speeds of any length, and a label that both tell."""
    rows: list[dict[str, object]] = []
    for _ in range(ROWS // 2):
        waved = int(random.integers(0, 2))
        file = io.BytesIO()
        Image.fromarray(random.integers(60 * waved, 196 + 60 * waved, (8, 8)).astype(np.uint8)).save(file, "PNG")
        speeds = (random.normal(size=random.integers(1, 9)) + waved).round(3).tolist()
        rows.append({"picture": base64.b64encode(file.getvalue()).decode(), "speeds": speeds, "waved": waved})
    return rows


def write(folder: Path) -> None:
    """Writes all files into a folder."""
    random = np.random.default_rng(7)
    table = trips(random)
    table.drop(columns="tip").to_csv(folder / "trips.csv", index=False)
    table.drop(columns=["tipped", "importance"]).to_csv(folder / "tips.csv", index=False)
    zones = table[["miles", "fare", "weekend"]].assign(zone=np.digitize(table.miles + random.normal(size=ROWS), [1, 4]))
    zones.assign(zone=zones.zone.map({0: "center", 1: "ring", 2: "outside"})).to_csv(folder / "zones.csv", index=False)
    wishes = TASKS["multilabel"](ROWS, random)
    named = [[name for name in LABELS["multilabel"] if row[name]] for row in wishes.to_dict("records")]
    wishes = wishes.drop(columns=LABELS["multilabel"]).assign(wishes=["|".join(names) or "[]" for names in named])
    wishes.to_csv(folder / "wishes.csv", index=False)
    TASKS["multioutput"](ROWS, random).to_csv(folder / "energy.csv", index=False)
    TASKS["quantile"](ROWS, random).rename(columns={"y": "minutes"}).to_csv(folder / "arrival.csv", index=False)
    TASKS["ranking"](ROWS, random).to_csv(folder / "search.csv", index=False)
    notes(random).to_csv(folder / "notes.csv", index=False)
    (folder / "gestures.jsonl").write_text("\n".join(map(json.dumps, gestures(random))) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
