"""Rows of one split key are drawn together by the bootstrap, and counted where there are few keys."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from switchyard.components.data.row_keys import load_row_keys, save_row_keys
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.evaluation.bootstrap import Rows, draws, interval, replicates
from switchyard.components.evaluation.own_metrics import own_replicates
from switchyard.components.evaluation.periods import note_on_keys
from switchyard.components.evaluation.trivial import Trivial
from switchyard.pipelines.api.compare_clusters import clusters_of

KEYS, VISITS = 60, 20


def visits():
    """Returns the rows of customers whose visits are alike, in no order, with the hashes of the customers."""
    random = np.random.default_rng(2)
    customer = random.permutation(np.repeat(np.arange(KEYS), VISITS))
    errors = random.normal(size=KEYS)[customer] + 0.1 * random.normal(size=len(customer))
    labels = random.normal(size=len(customer))
    scores = {"a": (labels + errors)[:, np.newaxis], "b": (labels + 1.1 * errors)[:, np.newaxis]}
    hashes = np.arange(1, KEYS + 1, dtype=np.uint64)[customer] << np.uint64(58)  # beyond int64
    return Rows("regression", labels, scores, clusters=hashes), customer


def test_the_replicates_are_those_of_a_cluster_bootstrap_by_hand():
    rows, customer = visits()
    found = replicates(rows)
    times = np.concatenate(list(draws(KEYS, len(found["a"]["loss"]))))
    for model, by_metric in found.items():
        losses = (rows.scores[model][:, 0] - rows.labels) ** 2
        by_hand = []
        for drawn in times:  # each customer as often as drawn, with all visits
            total = [n * losses[customer == c].sum() for c, n in enumerate(drawn)]
            by_hand.append(sum(total) / (VISITS * drawn.sum()))
        assert by_metric["loss"] == pytest.approx(np.asarray(by_hand))
    low, high = interval(found["b"]["loss"] - found["a"]["loss"])
    alone = replicates(replace(rows, clusters=None))
    narrow = interval(alone["b"]["loss"] - alone["a"]["loss"])
    assert high - low > 3 * (narrow[1] - narrow[0])


def test_a_metric_of_the_users_draws_the_same_keys(tmp_path):
    (tmp_path / "metrics.py").write_text("def mse(labels, scores): return ((labels - scores[:, 0]) ** 2).mean()\n")
    rows, _ = visits()
    expected = replicates(rows)["a"]["loss"]
    found = own_replicates(str(tmp_path / "metrics.py"), "mse", rows)["a"]
    assert found == pytest.approx(expected[: len(found)])


def test_rows_selected_by_a_mask_keep_their_keys():
    rows, customer = visits()
    half = rows.where(customer < KEYS // 2)
    assert set(half.clusters) == set(rows.clusters[customer < KEYS // 2])
    assert half.together.max() + 1 == KEYS // 2


@pytest.mark.parametrize(
    ("keys", "note"),
    [
        (10, ""),
        (7, "the test has 7 values of the split key 'user', which makes the intervals too narrow: at least 10"),
        (4, "too few for"),
    ],
)
def test_few_keys_are_noted_and_fewer_have_no_interval(keys, note):
    rows, customer = visits()
    few = rows.where(customer < keys)
    assert note in note_on_keys(keys, "user", "the test")
    assert bool(note) == bool(note_on_keys(keys, "user", "the test"))
    assert bool(replicates(few)["a"]) == (keys >= 5)
    assert (Trivial.of(few, "loss").samples is None) == (keys < 5)


def test_keys_are_stored_beside_the_summary(tmp_path):
    hashes = np.array([2**64 - 1, 0, 7], dtype=np.uint64)
    save_row_keys(str(tmp_path), hashes)
    assert load_row_keys(str(tmp_path)).tolist() == hashes.tolist()


def summary_of(split_key):
    nothing = {}
    return DatasetSummary("f", [], nothing, nothing, {"train": 1}, 0, [], [], "y", "regression", [], nothing, split_key=split_key)


def test_versions_are_compared_by_the_keys_of_the_file():
    frame = pd.DataFrame({"user": ["5", 5, 5.0, "a", None, None], "x": range(6)})
    found, note = clusters_of(frame, summary_of("user"), Path("d.csv"))
    assert len(found[:3].tolist()) - len(set(found[:3].tolist())) == 2
    assert len(set(found.tolist())) == 4
    assert note == "d.csv has 4 values of the split key 'user', too few for intervals: at least 10 are needed"
    assert clusters_of(frame, summary_of(""), Path("d.csv")) == (None, "")
    found, note = clusters_of(frame[["x"]], summary_of("user"), Path("d.csv"))
    assert found is None
    assert "d.csv has no column 'user', the split key: the intervals take its rows as independent" in note
