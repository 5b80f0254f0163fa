"""No false alarms, and real shifts are caught: trips with a heavy tail, an outlier, a column of one value, and days."""

import numpy as np
import pandas as pd
import pytest

TRIPS = "name: trips\ndata: {path: d.csv}\nlabel: y\ntrainer: {framework: pytorch, hyperparameters: {epochs: 2}}\n"
QUICK = ["--set", "serving.infra_validation=null"]
STOPPED = 3


def trips(rows=3000, seed=4, first="2024-01-01"):
    rng = np.random.default_rng(seed)
    a, miles = rng.normal(size=rows), rng.lognormal(0, 1, rows).round(2)
    frame = pd.DataFrame({"a": a.round(4), "miles": miles, "y": (rng.random(rows) < 1 / (1 + np.exp(-3 * a))).astype(int)})
    frame.loc[17, "miles"] = 1710.0
    frame["tract"] = pd.array([17031980000 if i == 40 else pd.NA for i in range(rows)], dtype="Int64")
    frame["day"] = pd.date_range(first, periods=rows, freq="h").strftime("%Y-%m-%d")
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory, warm):
    """A folder with the data, the pipeline and the workspace of a first run."""
    folder = tmp_path_factory.mktemp("trips")
    trips().to_csv(folder / "d.csv", index=False)
    (folder / "pipeline.yaml").write_text(TRIPS)
    warm.run(folder / "pipeline.yaml", folder / "w", *QUICK)
    return folder


def again(warm, folder, *arguments):
    return warm("run", folder / "pipeline.yaml", "--workspace", folder / "w", "--json", *QUICK, *arguments)


def test_the_same_file_with_another_learning_rate_passes_and_its_days_are_reported(warm, folder):
    done = again(warm, folder, "--set", "trainer.hyperparameters.learning_rate=0.01")
    assert done.code in (0, 4), done.stderr
    told = [line for line in done.stderr.splitlines() if "day (train)" in line]
    assert len(told) == 1
    assert "grows with time. Expected: values that also occur in later rows. Seen: 2024-01-01 to 2024-05-04" in told[0]
    assert "distribution has changed" not in done.stderr
    assert "tract (" not in done.stderr


def test_the_next_months_of_the_same_source_are_not_stopped(warm, folder):
    trips(seed=5, first="2024-05-05").to_csv(folder / "later.csv", index=False)
    done = again(warm, folder, "--set", "data.path=later.csv")
    assert done.code in (0, 4), done.stderr
    assert "distribution has changed" not in done.stderr


def test_changed_units_stop_the_run_with_one_line_that_has_the_expected_values_the_received_ones_and_the_fix(warm, folder):
    trips(seed=6).assign(miles=lambda t: t.miles * 1.609e3).to_csv(folder / "metres.csv", index=False)
    done = again(warm, folder, "--set", "data.path=metres.csv")
    assert done.code == STOPPED
    lines = [line for line in done.json["error"].splitlines() if "miles" in line]
    assert len(lines) == 1, done.json["error"]
    assert "drift: miles (train, against the champion's training data): its distribution has changed" in lines[0]
    assert "Expected: median " in lines[0]
    assert "Also: drift: the same (train, against the previous run)" in lines[0]
    assert "--set 'validation.drift.features.miles={fail: 1}'" in lines[0]
