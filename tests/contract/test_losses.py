"""Losses: the same in every framework, row by row and over a training, and as NumPy computes them."""

import numpy as np
import pytest

from switchyard.components.errors import UserError
from switchyard.components.evaluation.row_values import pinball
from switchyard.components.tasks import TASKS
from switchyard.components.training.losses import Loss, named_loss
from switchyard.components.training.names import LOSSES
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer
from tests.contract.sklearn_trainer import SklearnTrainer
from tests.gpu.bare import linear_model
from tests.training_requests import FRAMEWORKS, no_report, request


def log_softmax(z):
    return z - z.max(axis=1, keepdims=True) - np.log(np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))


def two_columns(z):
    return np.concatenate([np.zeros_like(z), z], axis=1)


def cross_entropy(y, z, smoothing=0.0):
    if z.shape[1] == 1:
        z = two_columns(z)
    target = np.eye(z.shape[1])[y] * (1 - smoothing) + smoothing / z.shape[1]
    return -(target * log_softmax(z)).sum(axis=1)


def focal(y, z, gamma, smoothing=0.0):
    logs = log_softmax(two_columns(z) if z.shape[1] == 1 else z)
    return (1 - np.exp(logs[np.arange(len(y)), y])) ** gamma * cross_entropy(y, z, smoothing)


def hinge(y, z):
    if z.shape[1] == 1:
        return np.maximum(0, 1 - (2 * y - 1) * z[:, 0])
    own = np.eye(z.shape[1])[y] == 1
    return np.maximum(0, 1 + np.where(own, -np.inf, z).max(axis=1) - z[own])


def huber(y, z, delta):
    error = np.abs(y - z[:, 0])
    return np.where(error <= delta, error**2 / 2, delta * (error - delta / 2))


def of_queries(labels, z, loss):
    labels = labels.astype(np.float64)
    found = np.zeros(len(labels))
    for query in np.unique(labels[:, 1]):
        rows = labels[:, 1] == query
        found[rows] = labels[rows, 2] * loss(labels[rows, 0], z[rows, 0])
    return found


def listwise(y, z):
    return -(y * log_softmax(z[np.newaxis])[0]).sum() / y.sum() if y.sum() else 0


def pairwise(y, z):
    pairs = [np.log1p(np.exp(z[j] - z[i])) for i in range(len(y)) for j in range(len(y)) if y[i] > y[j]]
    return np.mean(pairs) if pairs else 0


NUMPY = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "hinge": hinge,
    "mse": lambda y, z: (y - z[:, 0]) ** 2,
    "mae": lambda y, z: np.abs(y - z[:, 0]),
    "huber": huber,
    "listwise": lambda y, z: of_queries(y, z, listwise),
    "pairwise": lambda y, z: of_queries(y, z, pairwise),
    "poisson": lambda y, z: np.exp(z[:, 0]) - y * z[:, 0],
    "pinball": lambda y, z, quantiles: pinball(y, z, quantiles).mean(axis=1),
    "quantile": lambda y, z, quantile: np.maximum(quantile * (y - z[:, 0]), (quantile - 1) * (y - z[:, 0])),
}


def numpy_loss(name, y, z, **options):
    if y.ndim == 1 or name in LOSSES["ranking"]:
        return NUMPY[name](y, z, **options)
    each = y.astype(int).T if name in LOSSES["multilabel"] else y.T
    return np.mean([NUMPY[name](of, z[:, [i]], **options) for i, of in enumerate(each)], axis=0)


# Task, loss, parameters, label smoothing.
CASES = [
    ("binary", "cross_entropy", {}, 0.0),
    ("binary", "cross_entropy", {}, 0.2),
    ("binary", "focal", {}, 0.0),
    ("binary", "focal", {"gamma": 0.5}, 0.1),
    ("binary", "hinge", {}, 0.0),
    ("multiclass", "cross_entropy", {}, 0.0),
    ("multiclass", "cross_entropy", {}, 0.2),
    ("multiclass", "focal", {"gamma": 3}, 0.1),
    ("multiclass", "hinge", {}, 0.0),
    ("regression", "mse", {}, 0.0),
    ("regression", "mae", {}, 0.0),
    ("regression", "huber", {"delta": 0.7}, 0.0),
    ("regression", "poisson", {}, 0.0),
    ("regression", "quantile", {"quantile": 0.9}, 0.0),
    ("quantile", "pinball", {"quantiles": [0.1, 0.5, 0.9]}, 0.0),
    ("multioutput", "mse", {}, 0.0),
    ("multioutput", "mae", {}, 0.0),
    ("multioutput", "huber", {"delta": 0.7}, 0.0),
    ("multioutput", "poisson", {}, 0.0),
    ("multioutput", "quantile", {"quantile": 0.9}, 0.0),
    ("multilabel", "cross_entropy", {}, 0.0),
    ("multilabel", "cross_entropy", {}, 0.2),
    ("multilabel", "focal", {"gamma": 0.5}, 0.1),
    ("multilabel", "hinge", {}, 0.0),
    ("ranking", "listwise", {}, 0.0),
    ("ranking", "pairwise", {}, 0.0),
]
OUTPUTS = {"binary": 1, "multiclass": 3, "regression": 1, "quantile": 3, "multioutput": 2, "multilabel": 2, "ranking": 1}


def rows(task, count=50):
    rng = np.random.default_rng(0)
    shape = (count, OUTPUTS[task]) if TASKS[task].has_labels else count
    labels = rng.integers(0, 3 if task == "multiclass" else 2, shape)
    if task == "ranking":
        labels = np.stack(
            [rng.integers(0, 4, count) * (np.arange(count) % 6 > 0), np.arange(count) % 6, rng.random(count)], axis=1
        )
    return labels.astype(np.int64 if TASKS[task].has_classes else np.float32), rng.normal(size=(count, OUTPUTS[task])) * 3


def by_keras(task, loss, smoothing, labels, outputs):
    import tensorflow as tf

    from switchyard.components.training.tensorflow.losses import row_losses

    z = tf.Variable(outputs, dtype=tf.float32)
    with tf.GradientTape() as tape:
        losses = row_losses(task, loss, smoothing)(tf.constant(labels), z)
    return losses.numpy(), tape.gradient(losses, z).numpy()


def by_torch(task, loss, smoothing, labels, outputs):
    import torch

    from switchyard.components.training.pytorch.losses import row_losses

    z = torch.tensor(outputs, dtype=torch.float32, requires_grad=True)
    losses = row_losses(task, loss, smoothing)(torch.from_numpy(labels), z)
    losses.sum().backward()
    return losses.detach().numpy(), z.grad.numpy()


def reference(name, parameters, smoothing, labels, outputs):
    """Returns the losses and, by differences, their gradients by the outputs."""
    options = {**parameters, **({"smoothing": smoothing} if smoothing else {})}
    step, gradient = 1e-6, np.zeros_like(outputs)
    # Rows of a ranking depend on each other.
    alone = name in LOSSES["ranking"]
    for places in np.ndindex(outputs.shape if alone else (1, outputs.shape[1])):
        moved = np.zeros_like(outputs)
        moved[places if alone else (slice(None), places[1])] = step
        high, low = (numpy_loss(name, labels, outputs + s * moved, **options) for s in (1, -1))
        change = (high - low) / (2 * step)
        gradient[places if alone else (slice(None), places[1])] = change.sum() if alone else change
    return numpy_loss(name, labels, outputs, **options), gradient


@pytest.mark.core
@pytest.mark.parametrize(("task", "name", "parameters", "smoothing"), CASES)
@pytest.mark.parametrize("framework", [by_keras, by_torch])
def test_every_framework_has_the_losses_and_gradients_of_numpy(framework, task, name, parameters, smoothing):
    labels, outputs = rows(task)
    loss = named_loss(task, name, parameters)
    losses, gradients = framework(task, loss, smoothing, labels, outputs)
    expected = reference(name, loss.parameters, smoothing, labels, outputs)
    np.testing.assert_allclose(losses, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradients, expected[1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("framework", [by_keras, by_torch])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_focal_loss_has_a_finite_gradient_for_a_perfect_prediction(framework, task):
    labels = np.array([1, 1], np.int64)
    outputs = np.array([[200.0], [-200.0]]) if task == "binary" else np.array([[0.0, 200.0, 0.0], [200.0, 0.0, 0.0]])
    losses, gradients = framework(task, named_loss(task, "focal", {"gamma": 0.5}), 0.0, labels, outputs)
    assert np.isfinite(losses).all()
    assert np.isfinite(gradients).all()


def keras_linear(spec):
    import keras

    inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}
    return keras.Model(inputs, keras.layers.Dense(spec.outputs, kernel_initializer="zeros")(inputs["x"]))


def linear(trainer):
    return keras_linear if trainer is TensorflowTrainer else linear_model.build_model


def by_hand(request, name, parameters, smoothing):
    """Returns the loss of each epoch of a linear model by SGD, in NumPy and float64."""
    hyper, weights, curve = request.hyperparameters, np.zeros((3, request.spec.outputs)), []
    for epoch in range(hyper.epochs):
        found = []
        for features, labels in request.train.batches(hyper.batch_size, seed=hyper.seed, epoch=epoch):
            x = np.column_stack([features["x"], np.ones(len(labels))]).astype(np.float64)
            losses, gradient = reference(name, parameters, smoothing, labels, x @ weights)
            found += list(losses)
            weights = weights - hyper.learning_rate * x.T @ gradient / len(labels)
        curve.append(np.mean(found))
    return curve


@pytest.mark.parametrize(("task", "name", "parameters", "smoothing"), [c for c in CASES if c[1] != "poisson"])
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_every_framework_trains_as_numpy_does(trainer, task, name, parameters, smoothing, make):
    loss = named_loss(task, name, parameters)
    given = {"optimizer": "sgd", "learning_rate": 0.05, "epochs": 3, "label_smoothing": smoothing}
    request = make(task, build_model=linear(trainer), loss=loss, **given)
    curve = [h["loss"] for h in trainer().train(request, no_report).history]
    assert curve == pytest.approx(by_hand(request, name, loss.parameters, smoothing), abs=1e-4)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_model_of_counts_serves_the_mean_and_is_measured_by_it(trainer, counts, tmp_path):
    made = request([counts, counts], tmp_path, "regression", loss=named_loss("regression", "poisson"))
    found = trainer().train(made, no_report)
    features, labels = next(iter(counts.batches(counts.rows)))
    served = trainer.load_predictor(made.export_dir)(features)[:, 0]
    assert found.metrics["val_mae"] == pytest.approx(np.abs(served - labels).mean(), abs=1e-4)
    assert found.metrics["val_mae"] < np.abs(labels - labels.mean()).mean()


@pytest.fixture
def counts():
    from tests.training_inputs import SPECS, in_memory

    rng = np.random.default_rng(0)
    x, word = rng.normal(size=(400, 2)).astype(np.float32), rng.integers(0, 4, size=(400, 1))
    return in_memory({"x": x, "word": word}, rng.poisson(np.exp(1 + 0.5 * x[:, 0])).astype(np.float32), SPECS)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_labels_below_0_are_refused_as_counts(trainer, make):
    request = make("regression", loss=named_loss("regression", "poisson"))
    with pytest.raises(UserError, match=r"trainer\.loss: poisson needs labels of 0 and above, received -"):
        trainer().train(request, no_report)


def own_loss(labels, outputs, power=2.0):
    return abs(outputs[:, 0] - labels) ** power


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_custom_loss_trains_like_the_built_in_one(trainer, make):
    curves = []
    for loss in (named_loss("regression", "mse"), Loss("losses.py:own_loss", {"power": 2.0}, own_loss)):
        request = make("regression", folder=loss.name[:3], loss=loss, build_model=linear(trainer), epochs=2)
        curves.append([h["val_loss"] for h in trainer().train(request, no_report).history])
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def mean_loss(labels, outputs):
    return (outputs[0, 0] - labels[0]) ** 2


def broken_loss(labels, outputs):
    return labels["nothing"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (mean_loss, r"trainer\.loss: l\.py:f returned shape \(\) for 256 rows; return one loss per row, shape \(256,\)"),
        (broken_loss, r"trainer\.loss: l\.py:f failed: test_losses\.py, line \d+"),
    ],
)
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_custom_loss_that_fails_is_refused_before_training(trainer, function, message, make):
    epochs = []
    with pytest.raises(UserError, match=message):
        trainer().train(make("regression", loss=Loss("l.py:f", {}, function)), lambda step, metrics: epochs.append(step))
    assert epochs == []


def test_a_trainer_refuses_a_loss_that_it_does_not_support():
    with pytest.raises(UserError, match=r"trainer\.loss: the trainer 'sklearn' does not support it, received 'focal'"):
        SklearnTrainer().check_settings({"loss": "focal", "hyperparameters": {}})
