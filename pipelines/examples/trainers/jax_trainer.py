"""JAX and Flax as a trainer of your own: `trainer: {framework: "jax_trainer.py:JaxTrainer"}` (pip install flax optax).

Two dense layers over the features, vocabulary indices as one-hot; Adam. The weights are stored as plain arrays (.npz, no pickle).
"""

import json
from itertools import islice

import jax
import numpy as np
import optax
from flax import linen
from jax import numpy as jnp

from switchyard import Trainer, TrainingLedger, UserError, epoch_metrics

ACTIVATIONS = {"binary": jax.nn.sigmoid, "multiclass": jax.nn.softmax, "regression": lambda value: value}


class Network(linen.Module):
    outputs: int

    @linen.compact
    def __call__(self, x):
        for width in (64, 32):
            x = linen.relu(linen.Dense(width)(x))
        return linen.Dense(self.outputs)(x)


class JaxTrainer(Trainer):
    name = "jax"
    supports = frozenset({"class_weights", "early_stopping", "sample_weight"})

    def available_devices(self):
        return {"cpu": 1}

    def fit(self, request, report):
        hyper, spec = request.hyperparameters, request.spec
        if hyper.optimizer != "adam":
            raise UserError(f"trainer.hyperparameters.optimizer: the jax trainer has adam, received {hyper.optimizer!r}")
        if spec.task not in ACTIVATIONS:
            raise UserError(
                f"task: the jax trainer trains {', '.join(ACTIVATIONS)}, received {spec.task!r}; use another framework"
            )
        about = {"task": spec.task, "outputs": spec.outputs, "features": [[f.name, f.vocabulary_size] for f in spec.features]}
        model, optimizer = Network(spec.outputs), optax.adam(hyper.learning_rate)

        def loss(variables, x, labels, weights):
            output, labels = model.apply(variables, x), jnp.asarray(labels)
            losses = {
                "binary": lambda: optax.sigmoid_binary_cross_entropy(output[:, 0], labels),
                "multiclass": lambda: optax.softmax_cross_entropy_with_integer_labels(output, labels),
                "regression": lambda: (output[:, 0] - labels) ** 2,
            }[spec.task]()
            return (losses * weights).mean()

        @jax.jit
        def step(variables, state, x, labels, weights):
            updates, state = optimizer.update(jax.grad(loss)(variables, x, labels, weights), state)
            return optax.apply_updates(variables, updates), state

        everything = {split: next(iter(s.batches(s.rows))) for split, s in (("", request.train), ("val_", request.eval))}
        first = table(everything[""][0], about)[:1]
        variables = best = model.init(jax.random.PRNGKey(hyper.seed), first)
        # A training that was cut off begins anew: the optimizer's state is in no checkpoint here.
        ledger = TrainingLedger(request.checkpoint_dir, hyper)
        state, steps = optimizer.init(variables), 0
        while not ledger.finished:
            batches = request.train.batches(hyper.batch_size, seed=hyper.seed, epoch=ledger.epochs)
            for features, labels, *rest in islice(batches, hyper.steps and hyper.steps - steps):
                weights = weights_of(labels, rest, hyper.class_weights)
                variables, state = step(variables, state, table(features, about), labels, weights)
                steps += 1
            metrics = {}
            for prefix, (features, labels, *rest) in everything.items():
                weights = weights_of(labels, rest, None if prefix else hyper.class_weights)
                found, weighted = scores(model, variables, features, about), request.train.weighted
                metrics |= epoch_metrics(spec.task, found, labels, prefix=prefix, weights=weights, weighted=weighted)
            best = variables if ledger.record(steps, metrics) else best
            report(steps, ledger.history[-1])
        leaves = jax.tree.leaves(best)
        np.savez(request.export_dir / "model.npz", *map(np.asarray, leaves))
        (request.export_dir / "model.json").write_text(json.dumps({**about, "inputs": first.shape[1]}))
        return ledger.result(parameters=sum(leaf.size for leaf in leaves), device="cpu")

    @classmethod
    def load_predictor(cls, export_dir):
        about = json.loads((export_dir / "model.json").read_text())
        model = Network(about["outputs"])
        empty = jax.eval_shape(model.init, jax.random.PRNGKey(0), jnp.zeros((1, about["inputs"])))
        saved = np.load(export_dir / "model.npz", allow_pickle=False)
        variables = jax.tree.unflatten(jax.tree.structure(empty), [saved[name] for name in saved.files])
        return lambda features: scores(model, variables, features, about)


def weights_of(labels, rest, class_weights):
    """Returns each row's weight: of trainer.sample_weight, times that of its class."""
    of_rows = rest[0] if rest else np.ones(len(labels), np.float32)
    return of_rows * np.asarray(class_weights, np.float32)[labels] if class_weights else of_rows


def table(features, about):
    """Returns all features side by side, shape (B, columns), vocabulary indices as one-hot."""
    parts = []
    for name, size in about["features"]:
        values = np.eye(size, dtype=np.float32)[features[name]] if size else features[name].astype(np.float32)
        parts.append(values.reshape(len(values), -1))
    return np.concatenate(parts, axis=1)


def scores(model, variables, features, about):
    output = model.apply(variables, table(features, about))
    return np.asarray(ACTIVATIONS[about["task"]](output))
