"""The forecast without Switchyard, in plain PyTorch: prints the mean squared error of the test period, and of some horizons.

The data are hourly sales of shops, made by seed: `python -m benchmarks.by_hand.forecast --write sales.csv` writes them, and

    data:
      path: sales.csv
      windows: {order: hour, group: shop, past: 24, future: 12}
    label: sales
    task: multioutput

is the same task in Switchyard.

Usage: python -m benchmarks.by_hand.forecast [--write FILE]
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd
from torch.nn import functional

from benchmarks.by_hand.network import fit

PAST, FUTURE, HOURS = 24, 12, 24 * 120
SHOPS = ["airport", "centre", "harbour", "station"]
SHARES = {"train": 0.7, "eval": 0.1, "test": 0.2}


def table(hours: int = HOURS) -> pd.DataFrame:
    """Returns hourly `sales` of each shop with a daily and a weekly pattern, noise that lasts, and the `temperature`."""
    random = np.random.default_rng(7)
    hour = np.arange(hours)
    frames = []
    for number, shop in enumerate(SHOPS):
        noise, temperature = np.zeros(hours), np.zeros(hours)
        for i in range(1, hours):
            noise[i] = 0.8 * noise[i - 1] + 0.2 * random.normal()
            temperature[i] = 0.95 * temperature[i - 1] + 0.3 * random.normal()
        daily = np.sin(2 * np.pi * (hour - 6 - 2 * number) / 24)
        weekly = 0.4 * (hour // 24 % 7 >= 5)
        sales = 1 + 0.3 * number + daily - weekly + 0.3 * temperature + noise + 0.1 * random.normal(size=hours)
        moments = pd.date_range("2024-01-01", periods=hours, freq="h").strftime("%Y-%m-%d %H:%M:%S")
        frames.append(pd.DataFrame({"hour": moments, "shop": shop, "temperature": temperature.round(3), "sales": sales.round(4)}))
    return pd.concat(frames).sort_values(["hour", "shop"], ignore_index=True)


def windows(frame: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns split -> features (n, 2 * PAST + shops), scaled by the training period, and labels (n, FUTURE), float32.

    A window belongs to the period that holds its whole future.
    """
    hours = frame.hour.nunique()
    ends = np.rint(np.cumsum(list(SHARES.values())) / sum(SHARES.values()) * hours).astype(int)
    found: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {split: ([], []) for split in SHARES}
    for number, shop in enumerate(SHOPS):
        rows = frame[frame.shop == shop].sort_values("hour")
        sales, temperature = rows.sales.to_numpy(), rows.temperature.to_numpy()
        for first in range(PAST, hours - FUTURE + 1):
            periods = {int(np.searchsorted(ends, i, side="right")) for i in (first, first + FUTURE - 1)}
            if len(periods) == 1:
                inputs, labels = found[list(SHARES)[periods.pop()]]
                one_hot = np.eye(len(SHOPS))[number]
                inputs.append(np.concatenate([sales[first - PAST : first], temperature[first - PAST : first], one_hot]))
                labels.append(sales[first : first + FUTURE])
    arrays = {split: (np.stack(x), np.stack(y)) for split, (x, y) in found.items()}
    mean, deviation = arrays["train"][0][:, : 2 * PAST].mean(axis=0), arrays["train"][0][:, : 2 * PAST].std(axis=0)
    for inputs, _ in arrays.values():
        inputs[:, : 2 * PAST] = (inputs[:, : 2 * PAST] - mean) / deviation
    return {split: (x.astype(np.float32), y.astype(np.float32)) for split, (x, y) in arrays.items()}


def main() -> None:
    """Writes the data, or trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", metavar="FILE", help="write the data as CSV and end")
    arguments = parser.parse_args()
    if arguments.write:
        table().to_csv(arguments.write, index=False)
        return
    data = windows(table())
    labels = data["test"][1]
    errors = ((fit(data, FUTURE, functional.mse_loss, epochs=20, rate=0.001) - labels) ** 2).mean(axis=0)
    repeated = (labels[:, :1] * 0 + _last(data)) - labels
    found = {"loss": errors.mean(), "loss/sales_1": errors[0], f"loss/sales_{FUTURE}": errors[-1]}
    found |= {"repeated": (repeated**2).mean(), "mean": labels.var(axis=0).mean()}
    print(json.dumps({"rows": len(labels), **{name: round(float(value), 4) for name, value in found.items()}}))


def _last(data: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Returns the last past value of each window of the test period, (n, 1)."""
    frame = table()
    hours = frame.hour.nunique()
    first = {shop: frame[frame.shop == shop].sort_values("hour").sales.to_numpy() for shop in SHOPS}
    start = int(np.rint((SHARES["train"] + SHARES["eval"]) * hours))
    return np.concatenate([first[shop][start - 1 : hours - FUTURE] for shop in SHOPS])[:, np.newaxis]


if __name__ == "__main__":
    main()
