"""Weights of rows: every trainer trains and measures with them as NumPy computes, alone and with class weights."""

import numpy as np
import pytest
from scipy.special import softmax

from switchyard.components.errors import UserError
from switchyard.components.evaluation.bootstrap import weighted_metrics
from switchyard.components.training.columns import WEIGHTS
from switchyard.components.training.examples import Examples
from switchyard.components.training.losses import named_loss
from switchyard.components.training.schedule import factor
from tests.contract.sklearn_trainer import SklearnTrainer
from tests.contract.test_losses import linear, reference
from tests.contract.test_trainers import BUILT_IN, EXAMPLES
from tests.training_inputs import TARGETS, examples, request
from tests.training_requests import FRAMEWORKS, no_report

CLASSES = (1.0, 3.0)
# Loss, schedule, clipping, weights and accumulation together; 13 batches in an epoch: steps of 3, 3, 3, 3 and 1.
ALL = {
    "optimizer": "sgd",
    "learning_rate": 0.3,
    "epochs": 3,
    "schedule": "cosine",
    "warmup_steps": 3,
    "clip_norm": 0.1,
    "accumulate_steps": 3,
    "class_weights": CLASSES,
}


@pytest.fixture
def weighted(tmp_path):
    """Returns a request for a training on weighted examples."""

    def build(task="binary", folder="run", sources=None, **given):
        made = sources or [examples(task, rows, seed, weighted=True) for seed, rows in enumerate((400, 200))]
        return request(made, tmp_path / folder, task, **given)

    return build


def by_hand(request):
    """Returns the loss of each epoch and the last model's weights: a linear model by SGD, in NumPy and float64."""
    hyper, loss, model = request.hyperparameters, request.loss, np.zeros((3, request.spec.outputs))
    total, curve, step, together = hyper.total_steps(request.train.rows), [], 0, hyper.accumulate_steps
    for epoch in range(hyper.epochs):
        found = []
        batches = list(request.train.batches(hyper.batch_size, seed=hyper.seed, epoch=epoch))
        for group in (batches[i : i + together] for i in range(0, len(batches), together)):
            x = np.concatenate([inputs(features) for features, *_ in group])
            labels, of_rows = (np.concatenate([batch[i] for batch in group]) for i in (1, 2))
            weights = of_rows * (np.asarray(hyper.class_weights)[labels] if hyper.class_weights else 1.0)
            losses, gradients = reference(loss.name, loss.parameters, 0.0, labels, x @ model)
            found += list(weights * losses)
            gradient = x.T @ (weights[:, np.newaxis] * gradients) / len(labels)
            if hyper.clip_norm:
                gradient *= min(1.0, hyper.clip_norm / np.linalg.norm(gradient))
            model = model - hyper.learning_rate * factor(np, hyper.schedule, float(step), total, hyper.warmup_steps) * gradient
            step += 1
        curve.append(np.mean(found))
    return curve, model


def with_weights(source, weights, labels, **limits):
    columns = (*source.resident[0], weights.astype(np.float32)[:, np.newaxis])
    return Examples((*source.blocks, WEIGHTS), [(columns, labels)], **limits)


def inputs(features):
    return np.column_stack([features["x"], np.ones(len(features["x"]))]).astype(np.float64)


def measured(request, model):
    """Returns the metrics of the eval split, weighted by the column alone."""
    features, labels, weights = next(iter(request.eval.batches(request.eval.rows)))
    losses, _ = reference(request.loss.name, request.loss.parameters, 0.0, labels, inputs(features) @ model)
    scores = inputs(features) @ model
    spec = request.spec
    scores = 1 / (1 + np.exp(-scores)) if spec.task in ("binary", "multilabel") else scores
    scores = softmax(scores, axis=1) if spec.task == "multiclass" else scores
    metrics = weighted_metrics(spec.task, labels.astype(float), scores, spec.targets)
    found = {f"val_{n}": float(metrics[n](weights.astype(float))) for n in ("accuracy", "auc", "mae") if n in metrics}
    return {**found, "val_loss": np.average(losses, weights=weights)}


CASES = {
    "rows": ("binary", "cross_entropy", {"optimizer": "sgd", "epochs": 3, "learning_rate": 0.3}),
    "rows and classes": ("binary", "cross_entropy", {"optimizer": "sgd", "epochs": 3, "class_weights": CLASSES}),
    "a regression": ("regression", "huber", {"optimizer": "sgd", "epochs": 3}),
    "three classes": ("multiclass", "cross_entropy", {"optimizer": "sgd", "epochs": 3}),
    "quantiles": ("quantile", "pinball", {"optimizer": "sgd", "epochs": 3}),
    "several values": ("multioutput", "mse", {"optimizer": "sgd", "epochs": 3, "accumulate_steps": 2}),
    "several labels": ("multilabel", "cross_entropy", {"optimizer": "sgd", "epochs": 3}),
    "several labels, accumulated": ("multilabel", "cross_entropy", {"optimizer": "sgd", "epochs": 3, "accumulate_steps": 2}),
    "everything": ("binary", "focal", ALL),
}
CORE = ("rows", "everything", "several labels, accumulated")


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.core) if c in CORE else c for c in CASES])
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_every_framework_trains_with_weights_as_numpy_does(trainer, case, weighted):
    task, name, given = CASES[case]
    loss = named_loss(task, name, targets=TARGETS.get(task, ()))
    made = weighted(task, build_model=linear(trainer), loss=loss, **given)
    history = trainer().train(made, no_report).history
    curve, model = by_hand(made)
    assert [h["loss"] for h in history] == pytest.approx(curve, abs=1e-4)
    expected = measured(made, model)
    # Both frameworks measure the area at 200 thresholds.
    assert {n: history[-1][n] for n in expected} == pytest.approx(expected, abs=1e-4 if "val_auc" not in expected else 5e-3)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_weights_beyond_memory_are_those_in_memory(trainer, weighted):
    given = CASES["rows"][2]
    made = weighted(build_model=linear(trainer), **given)
    sources = [with_weights(s, s.resident_weights, s.resident[1], memory_bytes=0) for s in (made.train, made.eval)]
    large = weighted(folder="large", sources=sources, build_model=linear(trainer), **given)
    history = trainer().train(large, no_report).history
    assert [h["loss"] for h in history] == pytest.approx(by_hand(large)[0], abs=1e-4)


@pytest.mark.parametrize("trainer", [*BUILT_IN, *EXAMPLES])
def test_a_row_of_weight_0_does_not_count_and_the_scale_of_weights_neither(trainer, tmp_path):
    whole = examples("binary", 400, 0)
    labels, wrong = whole.resident[1], np.random.default_rng(1).random(400) < 0.3
    results = []
    for scale in (1, 1000):
        source = with_weights(whole, np.where(wrong, 0, scale), np.where(wrong, 1 - labels, labels))
        results.append(trainer().train(request([source] * 2, tmp_path / str(scale), "binary", epochs=10), no_report))
    small, large = (r.history[-1] for r in results)
    assert small["val_loss"] == pytest.approx(large["val_loss"], rel=1e-3)
    # Measured without the rows of weight 0, which are all wrong.
    assert small["val_accuracy"] > 0.85


def test_a_trainer_that_ignores_weights_is_refused(weighted):
    with pytest.raises(UserError, match=r"trainer\.sample_weight: the trainer 'sklearn' does not support it"):
        SklearnTrainer().train(weighted(), no_report)
