"""An ensemble: the weights of the smallest loss, compared with a grid, the mean of the members, and what the config refuses."""

import itertools

import numpy as np
import pytest

from switchyard.components.bundle.members import Member, averaged, problem
from switchyard.components.ensemble.weights import SMALLEST, find_weights
from switchyard.components.errors import UserError
from switchyard.components.tasks import TASKS
from switchyard.pipelines.config.load import load_config
from tests.bad_input import Case, config

ROWS = 400
QUANTILES = ("0.1", "0.5", "0.9")
GRID = [w for w in itertools.product(np.arange(0, 1.001, 0.02), repeat=3) if abs(sum(w) - 1) < 1e-9]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def data(task):
    """Returns labels and the scores of three members: two with errors of their own, and one that knows little."""
    random = np.random.default_rng(3)
    noise = [random.normal(size=(ROWS, 3)) * size for size in (0.8, 1.2, 9.0)]
    if task == "multiclass":
        truth = random.normal(size=(ROWS, 3)) * 2
        labels = np.array([random.choice(3, p=p) for p in softmax(truth)]).astype(float)
        return labels, {f"m{i}": softmax(truth + n).clip(1e-7, 1 - 1e-7) for i, n in enumerate(noise)}
    truth = random.normal(size=(ROWS, 3 if task in ("multilabel", "multioutput") else 1)) * 2
    if task in ("binary", "multilabel"):
        labels = (random.random(truth.shape) < sigmoid(truth)).astype(float)
        scores = {f"m{i}": sigmoid(truth + n[:, : truth.shape[1]]).clip(1e-7, 1 - 1e-7) for i, n in enumerate(noise)}
    elif task == "quantile":
        labels = truth + random.normal(size=truth.shape)
        scores = {f"m{i}": np.sort(truth + n + [-1.3, 0, 1.3], axis=1) for i, n in enumerate(noise)}
    else:
        labels = truth + random.normal(size=truth.shape) * 0.1
        scores = {f"m{i}": truth + n[:, : truth.shape[1]] for i, n in enumerate(noise)}
    return labels if labels.shape[1] > 1 else labels[:, 0], scores


def loss(task, labels, scores, weights=None):
    """The task's loss, as its formula is written."""
    y = labels.reshape(len(labels), -1)
    if task == "multiclass":
        each = -np.log(scores[np.arange(len(y)), labels.astype(int)])
    elif task in ("binary", "multilabel"):
        each = -(y * np.log(scores) + (1 - y) * np.log(1 - scores)).mean(axis=1)
    elif task == "quantile":
        q = np.array(QUANTILES, dtype=float)
        each = np.maximum(q * (y - scores), (q - 1) * (y - scores)).mean(axis=1)
    else:
        each = ((y - scores) ** 2).mean(axis=1)
    return np.average(each, weights=weights)


def mean(weights, scores):
    return sum(w * s for w, s in zip(weights, scores.values(), strict=True))


@pytest.mark.parametrize("weighted", [False, True], ids=["rows alike", "rows with weights"])
@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.has_means])
def test_no_mean_of_a_grid_has_a_smaller_loss_than_the_weights_found(task, weighted):
    labels, scores = data(task)
    weights = np.random.default_rng(5).integers(0, 4, ROWS).astype(float) if weighted else None
    found = find_weights(task, labels, scores, QUANTILES if task == "quantile" else (), weights)
    assert sum(found.by_member.values()) == pytest.approx(1, abs=1e-12)
    assert all(w == 0 or w >= SMALLEST for w in found.by_member.values())
    ours = loss(task, labels, mean(found.by_member.values(), scores), weights)
    assert found.loss == pytest.approx(ours, rel=1e-9)
    assert found.losses == pytest.approx({n: loss(task, labels, s, weights) for n, s in scores.items()}, rel=1e-9)
    assert ours <= min(loss(task, labels, mean(w, scores), weights) for w in GRID) + 1e-5
    assert found.by_member["m0"] > found.by_member["m1"] > 0.05


def test_a_member_that_is_right_alone_has_all_the_weight():
    labels = np.arange(50.0)
    found = find_weights(
        "regression", labels, {"bad": labels[:, None] + 3, "good": labels[:, None], "worse": labels[:, None] * 0}
    )
    assert found.by_member == {"bad": 0, "good": 1, "worse": 0}
    assert found.loss == 0


def test_opposite_errors_of_large_values_cancel():
    labels = np.linspace(0, 1e6, 100)
    scores = {"high": labels[:, None] + 1e5, "low": labels[:, None] - 3e5}
    found = find_weights("regression", labels, scores)
    assert found.by_member == pytest.approx({"high": 0.75, "low": 0.25}, abs=1e-4)


def test_the_mean_of_quantiles_is_that_of_each_models_own_order():
    models = [(lambda _: np.array([[3.0, 1.0]]), 0.25), (lambda _: np.array([[0.0, 4.0]]), 0.75)]
    np.testing.assert_array_equal(averaged(models, ascending=True)({}), [[0.25, 3.75]])
    np.testing.assert_array_equal(averaged(models, ascending=False)({}), [[0.75, 3.25]])


def test_the_members_of_a_bundle_are_checked():
    assert problem([]) == ""
    assert problem([Member("a", "a", 0.5), Member("b", "b", 0.5)]) == ""
    assert "duplicate" in problem([Member("a", "a", 0.5), Member("a", "b", 0.5)])
    for weights in ((0.5, 0.6), (1.0, 0.0), (1.5, -0.5), (float("nan"), 0.5)):
        assert "weights" in problem([Member("a", "a", weights[0]), Member("b", "b", weights[1])])


ALL = ["tensorflow", "pytorch", "ensemble"]
REFUSED = [
    Case("alone", "framework: an ensemble is made of two trained models or more", config(trainer={"framework": "ensemble"})),
    Case(
        "of one", "two trained models or more, received pytorch, ensemble", config(trainer={"framework": ["pytorch", "ensemble"]})
    ),
    Case("twice", "pytorch, ensemble, ensemble; name each once", config(trainer={"framework": [*ALL, "ensemble"]})),
    Case("misspelt", "Did you mean 'ensemble'", config(trainer={"framework": ["tensorflow", "pytorch", "ensembel"]})),
    Case("its loss", "loss: 'ensemble' is not a framework", config(trainer={"framework": ALL, "loss": {"ensemble": "focal"}})),
    Case(
        "its start",
        "'ensemble' is not a framework; allowed: tensorflow, pytorch, lightgbm.",
        config(trainer={"framework": ALL, "start_from": {"ensemble": "champion"}}),
    ),
    Case("a ranking", "a ranking task has no ensemble", config(trainer={"framework": ALL}, task="ranking", group="q")),
    Case(
        "no test split",
        "trainer.framework: the weights of an ensemble are found on the split eval",
        config(trainer={"framework": ALL}, data={"path": "d.csv", "splits": {"train": 8, "eval": 2}}),
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.name)
def test_an_ensemble_that_cannot_work_is_refused_when_the_config_is_read(case, tmp_path):
    with pytest.raises(UserError) as refused:
        load_config(case.write(tmp_path))
    assert case.message in str(refused.value)


def test_a_custom_task_has_no_ensemble(tmp_path):
    document = config(trainer={"framework": ALL, "output_shape": [1]}, task="custom", evaluation={"metrics": "metrics.py"})
    with pytest.raises(UserError, match="a custom task has no ensemble"):
        load_config(Case("custom", "", document, {"metrics.py": "def m(labels, scores):\n    return 0.0\n"}).write(tmp_path))


def test_the_frameworks_to_train_do_not_hold_the_ensemble(tmp_path):
    found = load_config(
        Case("good", "", config(trainer={"framework": ["ensemble", "pytorch", "lightgbm"]})).write(tmp_path)
    ).trainer
    assert found.frameworks == ("pytorch", "lightgbm")
    assert found.candidates == ("pytorch", "lightgbm", "ensemble")
