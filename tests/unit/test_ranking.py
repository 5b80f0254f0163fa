"""A ranking's metrics, which are exact over queries, its bootstrap, and the batches of its training."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import ndcg_score

from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import Rows, replicates, units, weighted_metrics
from switchyard.components.evaluation.ranking import query_codes, query_values
from switchyard.components.evaluation.row_plots import row_plots
from switchyard.components.evaluation.trivial import Trivial
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.scan import scan
from switchyard.components.training import queries
from switchyard.components.training.example_source import Shard, blocks
from switchyard.components.training.model_spec import FeatureSpec
from switchyard.components.training.queries import HASH_PART, QueryExamples
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import input_spec
from tests.bad_input import Case, config

CUTS = {"ndcg": None, "ndcg_5": 5, "ndcg_10": 10}


def ranked(rows=300, queries=40, levels=5):
    """Returns labels (rows, 2) and scores (rows, 1) with many ties."""
    random = np.random.default_rng(0)
    relevance = random.choice([0, 0, 0, 1, 2, 4], rows)
    labels = np.stack([relevance, random.integers(0, queries, rows)], axis=1).astype(float)
    return labels, random.integers(0, levels, (rows, 1)) / 4


def each_query(labels, scores):
    """Yields relevance and scores of each query that has a relevant row, in the order of the queries."""
    for query in np.unique(labels[:, 1]):
        rows = labels[:, 1] == query
        if labels[rows, 0].any():
            yield labels[rows, 0], scores[rows, 0]


def test_the_gain_of_each_query_is_scikit_learns_ties_included():
    labels, scores = ranked()
    found = query_values(labels, scores)
    for i, (y, s) in enumerate(each_query(labels, scores)):
        for name, cut in CUTS.items():
            assert found[name][i] == pytest.approx(ndcg_score([2**y - 1], [s], k=cut))
    assert len(found["ndcg"]) == i + 1


def test_average_precision_of_equal_scores_is_the_mean_over_their_orders():
    labels, scores = ranked(rows=120, queries=25, levels=3)
    found = query_values(labels, scores)["map"]
    for i, (y, s) in enumerate(each_query(labels, scores)):
        if len(y) > 6:
            continue
        orders = [o for o in itertools.permutations(range(len(y))) if (np.diff(s[list(o)]) <= 0).all()]
        hits = (y[np.array(orders)] > 0).astype(float)
        precision = hits.cumsum(axis=1) / np.arange(1, len(y) + 1)
        assert found[i] == pytest.approx(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean())


def test_a_query_without_a_relevant_row_counts_in_no_metric():
    labels = np.array([[0, 1], [0, 1], [1, 2], [0, 2]], float)
    found = query_values(labels, np.array([[0.1], [0.2], [0.9], [0.3]]))
    assert {name: list(values) for name, values in found.items() if name != "loss"} == {name: [1.0] for name in (*CUTS, "map")}
    assert found["loss"] == pytest.approx([np.log(1 + np.exp(-0.6))])
    assert units("ranking", labels) == 1


def test_a_bootstrap_draws_queries_and_a_metric_is_their_mean():
    labels, scores = ranked()
    values = query_values(labels, scores)["ndcg_10"]
    weights = np.random.default_rng(1).poisson(1, len(values)).astype(float)
    assert weighted_metrics("ranking", labels, scores)["ndcg_10"](weights) == pytest.approx(np.average(values, weights=weights))
    drawn = replicates(Rows("ranking", labels, {"m": scores}))["m"]["ndcg_10"]
    assert drawn.std() == pytest.approx(values.std() / np.sqrt(len(values)), rel=0.15)


def test_the_trivial_predictor_is_the_mean_of_all_orders():
    labels, _ = ranked()
    random = np.random.default_rng(0)
    shuffled = [query_values(labels, random.random((len(labels), 1)))["ndcg_10"].mean() for _ in range(200)]
    assert Trivial.of(Rows("ranking", labels, {}), "ndcg_10").value == pytest.approx(np.mean(shuffled), abs=0.005)


def test_the_plot_has_the_mean_relevance_of_each_rank():
    labels = np.array([[1, 5], [3, 5], [0, 6], [2, 6]], float)
    found = row_plots(Rows("ranking", labels, {"m": np.array([[2.0], [1.0], [1.0], [2.0]])}), "m", 0)["ranks"]
    assert [(r["relevance"], r["best"]) for r in found] == [(1.5, 2.5), (1.5, 0.5)]


def test_a_query_has_one_code_in_every_type_and_file_format():
    texts = query_codes(pa.array(["5", "7", "5"]))
    assert texts[0] == texts[2] != texts[1]
    for values in ([5, 7], [5.0, 7.0], [b"5", b"7"], [[5], [7]]):
        assert query_codes(pa.array(values)).tolist() == texts[:2].tolist()
    assert (texts < 2**53).all()


def examples(sizes, seed=0):
    """Returns shuffled rows of queries of these sizes; `x` is the query, and every third query has no relevant row."""
    query = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    labels = np.stack([query % 3, query // 5, HASH_PART - 5 + query % 5], axis=1).astype(np.float32)
    return QueryExamples(blocks([FeatureSpec("x", "float32", (1,))]), [((query[:, np.newaxis].astype(np.float32),), labels)])


def test_more_queries_than_float32_tells_apart_are_refused(monkeypatch):
    monkeypatch.setattr(queries, "MOST_QUERIES", 3)
    examples([2, 1, 1])

    with pytest.raises(UserError, match="group: 4 queries in one split, at most 3 fit their numbers"):
        examples([1, 1, 1, 1])


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("batch_size", [9, 16, 1000])
def test_every_batch_holds_whole_queries_and_an_epoch_every_row_once(seed, batch_size):
    sizes = np.random.default_rng(1).integers(1, 10, 60)
    made, seen = examples(sizes), []
    batches = list(made.batches(batch_size, seed=seed, epoch=1))
    assert len(batches) == -(-sizes.sum() // batch_size)
    for features, labels in batches:
        names, counts = np.unique(features["x"], return_counts=True)
        assert counts.tolist() == sizes[names.astype(int)].tolist()
        assert len(labels) < batch_size + 9
        assert len(np.unique(labels[:, 1])) == len(names)
        seen += dict.fromkeys(features["x"][:, 0].tolist())
    assert sorted(seen) == list(range(60))
    assert (seen == sorted(seen)) is (seed is None)


def test_the_mean_over_rows_by_their_weights_is_the_mean_over_queries_with_a_relevant_row():
    [(features, labels)] = examples([4, 2, 6, 1, 3]).batches(100)
    value = features["x"][:, 0]
    assert np.mean(labels[:, 2] * value) == pytest.approx(np.mean([1, 2, 4]))


def test_several_workers_are_refused_as_they_would_cut_queries():
    with pytest.raises(UserError, match="a ranking task is trained on one device"):
        examples([3, 3]).order(4, shard=Shard(0, 2))


RANKING = {"task": "ranking", "group": "q"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "ranking"}, "group: a ranking task needs the column that names the query of each row"),
        ({"task": "regression", "group": "q"}, "group: a task regression has none; remove it, or set task to ranking"),
        ({**RANKING, "group": "y"}, "group: 'y' is the label"),
        ({**RANKING, "data": {"path": "d.csv", "split_key": "x"}}, "data.split_key: a ranking is split by its group, 'q'"),
        ({**RANKING, "trainer": {"hyperparameters": {"accumulate_steps": 2}}}, "accumulate_steps: the batches of a ranking"),
        ({**RANKING, "tune": {"space": {"accumulate_steps": [1, 2]}}}, "tune.space.accumulate_steps: the batches of a ranking"),
        ({**RANKING, "trainer": {"accelerator": {"kind": "cpu", "count": 2}}}, "received 2 workers; set count and nodes to 1"),
        ({**RANKING, "trainer": {"hyperparameters": {"class_weights": "balanced"}}}, "a ranking task has no classes"),
    ],
)
def test_settings_that_a_ranking_does_not_have_are_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        load_config(Case("c", "", config=config(**changes)).write(tmp_path))


def scanned(folder, labels=("0", "1", "2.5"), queries=("a", "b")):
    """Returns the scan of 60 rows with these labels and queries in turn."""
    rows = "x,y,q\n" + "".join(f"{i % 7}.5,{labels[i % len(labels)]},{queries[i % len(queries)]}\n" for i in range(60))
    case = Case("c", "", files={"d.csv": rows}, config=config(**RANKING))
    return scan(input_spec(load_config(case.write(folder))), BadRows(0))


def test_a_relevance_is_a_number_from_0_to_31(tmp_path):
    assert scanned(tmp_path).task == "ranking"
    for wrong, message in {"-1": "label: 'y' holds -1; a relevance", "32": "label: 'y' holds 32", "high": "'y' is text"}.items():
        with pytest.raises(UserError, match=message):
            scanned(tmp_path, labels=("0", wrong))


def test_a_relevance_beyond_the_counted_values_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.setattr("switchyard.components.ingest.labels.MAX_CLASSES", 3)
    with pytest.raises(UserError, match="label: 'y' holds 99; a relevance"):
        scanned(tmp_path, labels=("0", "1", "2", "3", "4", "99"))


def test_a_row_without_a_query_and_data_without_its_column_are_refused(tmp_path):
    with pytest.raises(UserError, match="group: 30 of 60 rows have no value of 'q' and cannot be ranked"):
        scanned(tmp_path, queries=("a", ""))
    case = Case("c", "", files={"d.csv": "x,y\n1.5,1\n2.5,0\n"}, config=config(**RANKING))
    with pytest.raises(UserError, match=r"group: .*d\.csv has no column 'q'"):
        scan(input_spec(load_config(case.write(tmp_path))), BadRows(0))
