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


def main() -> None:
    """Writes the files."""
    reviews().to_csv(HERE / "reviews" / "data.csv", index=False)
    breast_cancer().to_csv(HERE / "breast_cancer" / "data.csv", index=False)
    photos().to_parquet(HERE / "photos" / "data.parquet", index=False)
    digits().to_parquet(HERE / "digits" / "data.parquet", index=False)


if __name__ == "__main__":
    main()
