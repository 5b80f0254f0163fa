"""Writes the examples' data, which scikit-learn carries or a seed makes, as the files that the pipelines ingest.

Run as `python -m switchyard.pipelines.examples.make_data`; the files are part of the repository.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits

HERE = Path(__file__).parent

_SUBJECTS = ("plot", "acting", "music", "ending", "dialogue", "camera work", "pace", "cast", "story", "humour")
_GOOD = ("wonderful", "clever", "moving", "brilliant", "charming", "fresh", "gripping", "superb", "funny", "tender")
_BAD = ("dull", "clumsy", "awful", "tedious", "shallow", "noisy", "predictable", "lazy", "flat", "painful")
_OPENINGS = (
    "I saw it last week with friends.",
    "My sister chose this one.",
    "We had waited for months.",
    "It runs for two hours.",
)

# How much a page of a shop speaks for an order, and how often it is seen.
_PAGES = {
    "home": (0.0, 4.0),
    "search": (0.2, 4.0),
    "category": (0.0, 4.0),
    "product": (0.5, 5.0),
    "reviews": (0.7, 2.0),
    "cart": (1.6, 2.0),
    "shipping": (0.9, 1.0),
    "returns": (-0.8, 1.0),
    "help": (-1.2, 1.0),
    "jobs": (-2.2, 0.5),
}


def breast_cancer() -> pd.DataFrame:
    """Returns 569 rows: 30 measurements and `diagnosis` (benign or malignant)."""
    data = load_breast_cancer()
    frame = pd.DataFrame(data.data, columns=[str(n).replace(" ", "_") for n in data.feature_names])
    frame["diagnosis"] = [str(data.target_names[t]) for t in data.target]
    return frame


def digits() -> pd.DataFrame:
    """Returns 1,797 rows: `image`, 64 grey values 0 to 16 in rows of 8, and `digit`, 0 to 9."""
    data = load_digits()
    return pd.DataFrame({"image": list(data.data.astype(np.float32)), "digit": data.target.astype(np.int64)})


def photos() -> pd.DataFrame:
    """Returns the digits as encoded images: `photo`, a grey PNG of 8 x 8 pixels, and `digit`, 0 to 9."""
    data = load_digits()
    files = []
    for image in data.images:
        file = io.BytesIO()
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    return pd.DataFrame({"photo": files, "digit": data.target.astype(np.int64)})


def reviews(rows: int = 2000, seed: int = 42) -> pd.DataFrame:
    """Returns invented reviews: `review`, of two to four opinions, some negated, and `positive`, yes or no, of the majority.

    One in twenty labels is wrong, so that no model is perfect.
    """
    random = np.random.default_rng(seed)
    texts: list[str] = []
    labels: list[str] = []
    while len(texts) < rows:
        opinions, balance = [], 0
        for subject in random.choice(_SUBJECTS, random.integers(2, 5), replace=False):
            good, negated = random.random() < 0.5, random.random() < 0.3
            word = str(random.choice(_GOOD if good else _BAD))
            opinions.append(f"The {subject} was {'not ' if negated else ''}{word}.")
            balance += 1 if good != negated else -1
        if balance:
            texts.append(" ".join([str(random.choice(_OPENINGS)), *opinions]))
            labels.append("yes" if (balance > 0) != (random.random() < 0.05) else "no")
    return pd.DataFrame({"review": texts, "positive": labels})


def sessions(rows: int = 2000, seed: int = 42) -> pd.DataFrame:
    """Returns invented visits of a shop: `device`, `pages` and `seconds`, lists of 0 to 14 values, and `ordered`, yes or no.

    The log-odds of an order are the mean of what the pages speak for it, and grow with the logarithm of the time on the page.
    """
    random = np.random.default_rng(seed)
    names, weights = list(_PAGES), np.array([weight for weight, _ in _PAGES.values()])
    often = np.array([share for _, share in _PAGES.values()])
    visits = []
    for _ in range(rows):
        count = int(min(14, random.geometric(0.2) - (random.random() < 0.1)))
        pages = random.choice(len(names), count, p=often / often.sum())
        seconds = 1 + random.lognormal(3.0, 0.8, count).round().astype(int)
        device = str(random.choice(["phone", "computer"], p=[0.6, 0.4]))
        worth = 6 * weights[pages].mean() + 2 * (np.log(seconds).mean() - 3) if count else -2.0
        ordered = random.random() < 1 / (1 + np.exp(2.2 - worth - 0.8 * (device == "computer")))
        label = "yes" if ordered else "no"
        visits.append((device, [names[page] for page in pages], seconds.tolist(), label))
    return pd.DataFrame(visits, columns=["device", "pages", "seconds", "ordered"])


def readings(rows: int = 4000, faults: float = 0.0, seed: int = 42) -> pd.DataFrame:
    """Returns invented readings of a machine: `hour` and eight sensors that follow its load and the weather, with noise.

    With `faults` the column `fault` says whether a row is an anomaly, in which one sensor shows the value of another hour: each
    reading is usual, but not beside the others.
    """
    random = np.random.default_rng(seed)
    hour = np.arange(rows)
    load = np.abs(np.sin(hour / 24 * np.pi)) + random.gamma(2.0, 0.3, rows)
    weather = np.sin(hour / (24 * 365) * 2 * np.pi) + random.normal(0, 0.5, rows)
    sensors = {
        "power": 40 * load,
        "current": 9 * load + 1.5,
        "temperature": 55 + 12 * load + 6 * weather,
        "oil": 40 + 8 * np.sqrt(load) + 4 * weather,
        "vibration": 0.3 + 0.4 * load**1.5,
        "inlet": 12 + 9 * weather,
        "outlet": 18 + 9 * weather + 5 * load,
        "pressure": 5 + 1.2 * load - 0.3 * weather,
    }
    frame = pd.DataFrame({n: v + random.normal(0, 0.08 * v.std(), rows) for n, v in sensors.items()})
    fault = random.random(rows) < faults
    for row in np.flatnonzero(fault):
        name = str(random.choice(list(sensors)))
        frame.loc[int(row), name] = frame.loc[int(random.integers(rows)), name]
    frame = frame.round(3)
    frame.insert(0, "hour", hour)
    return frame.assign(fault=fault.astype(int)) if faults else frame


def main() -> None:
    """Writes the files."""
    readings().to_csv(HERE / "anomalies" / "data.csv", index=False)
    readings(500, faults=0.1, seed=43).to_csv(HERE / "anomalies" / "new.csv", index=False)
    reviews().to_csv(HERE / "reviews" / "data.csv", index=False)
    sessions().to_json(HERE / "sessions" / "data.jsonl", orient="records", lines=True)
    breast_cancer().to_csv(HERE / "breast_cancer" / "data.csv", index=False)
    photos().to_parquet(HERE / "photos" / "data.parquet", index=False)
    digits().to_parquet(HERE / "digits" / "data.parquet", index=False)


if __name__ == "__main__":
    main()
