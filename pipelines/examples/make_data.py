"""Writes the examples' data, which scikit-learn carries, as the files that the pipelines ingest.

Run as `python -m switchyard.pipelines.examples.make_data`; the files are part of the repository.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits

HERE = Path(__file__).parent


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


def main() -> None:
    """Writes both files."""
    breast_cancer().to_csv(HERE / "breast_cancer" / "data.csv", index=False)
    digits().to_parquet(HERE / "digits" / "data.parquet", index=False)


if __name__ == "__main__":
    main()
