"""A forecast over windows of a long table: both trainers learn it, files and requests get the same forecasts."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.by_hand.forecast import FUTURE, PAST, SHOPS, table
from switchyard.components.bundle.model import load_bundle

TARGETS = [f"sales_{step}" for step in range(1, FUTURE + 1)]


@pytest.fixture(scope="module")
def ran(warm, tmp_path_factory):
    """The folder, and the run of both trainers."""
    folder = tmp_path_factory.mktemp("forecast")
    table(hours=900).to_csv(folder / "sales.csv", index=False)
    document = {
        "name": "forecast",
        "data": {"path": "sales.csv", "windows": {"order": "hour", "group": "shop", "past": PAST, "future": FUTURE}},
        "label": "sales",
        "task": "multioutput",
        "trainer": {"framework": ["tensorflow", "pytorch"], "hyperparameters": {"epochs": 8, "learning_rate": 0.003}},
        "evaluation": {"slices": ["shop"]},
    }
    (folder / "pipeline.yaml").write_text(json.dumps(document))
    return folder, warm.run(folder / "pipeline.yaml", folder / "w").json


def test_both_trainers_beat_the_last_value_and_are_measured_by_horizon_and_series(ran):
    folder, result = ran
    assert result["status"] == "blessed"
    for trainer in ("tensorflow", "pytorch"):
        metrics = result["models"][trainer]["metrics"]
        assert 0 < metrics["loss/sales_1"] < metrics[f"loss/sales_{FUTURE}"] < 0.6, trainer
    [evaluation] = (folder / "w" / "artifacts" / "evaluation" / "evaluation").iterdir()
    stored = json.loads((evaluation / "metrics.json").read_text())
    assert {f"shop={shop}" for shop in SHOPS} <= stored["models"]["pytorch"]["slices"].keys()


def test_a_long_table_gets_the_forecasts_that_its_last_windows_get_as_requests(ran, warm, tmp_path):
    folder, _ = ran
    new = table(hours=900).groupby("shop", sort=False).tail(PAST + 5).sample(frac=1, random_state=1)
    pd.concat([new, new[new.shop == "centre"].head(3).assign(shop="new")]).to_csv(tmp_path / "new.csv", index=False)
    for model in sorted(folder.glob("w/artifacts/training_*/model/*/Format-Serving")):
        done = warm("predict", model, tmp_path / "new.csv", "-o", tmp_path / "out.csv", "--trust", "--fresh")
        assert done.code == 0, done.stderr
        found = pd.read_csv(tmp_path / "out.csv")
        assert list(found.columns) == ["shop", "hour", *(f"prediction_{t}" for t in TARGETS)]
        assert sorted(found.shop) == SHOPS
        assert set(found.hour) == {new.hour.max()}
        [refused] = map(json.loads, (tmp_path / "out.csv.bad.jsonl").read_text().splitlines())
        assert refused == {"shop": "new", "reason": f"has 3 rows up to the last one with 'sales', and a window has {PAST}"}
        last = new.sort_values("hour").groupby("shop").tail(PAST).groupby("shop")[["temperature", "sales"]].agg(list)
        rows = last.loc[found.shop].reset_index()
        np.testing.assert_allclose(load_bundle(model).scores(rows), found[[f"prediction_{t}" for t in TARGETS]], atol=1e-5)
