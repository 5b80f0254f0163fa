"""A regression on messy columns: missing values, texts beyond ASCII, awkward names, an empty column."""

import numpy as np
import pandas as pd


def messy_frame():
    rng = np.random.default_rng(3)
    n = 1500
    frame = pd.DataFrame(
        {
            "Trip Miles": rng.gamma(2, 2, n),
            "fare/usd (net)": rng.normal(10, 3, n),
            "größe.cm": rng.integers(0, 9, n),
            "company": rng.choice(["A", "B", "", "ünïcode, with comma", "x" * 200], n),
            "a$b$": rng.normal(size=n),
            "flag": rng.choice(["True", "False"], n),
            "nothing": np.nan,
            "constant": 1,
        }
    )
    frame.loc[::3, "Trip Miles"] = np.nan
    frame["price"] = 2 * frame["fare/usd (net)"] + 3 * frame["größe.cm"] + frame["company"].eq("A") * 5 + rng.normal(0, 1, n)
    return frame
