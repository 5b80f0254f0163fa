"""Requests for trainers: 400 rows of two numbers and a word. Imports no framework."""

import numpy as np

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.columns import WEIGHTS
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.example_source import blocks
from switchyard.components.training.examples import Examples, columns_of
from switchyard.components.training.hooks import NO_HOOKS
from switchyard.components.training.hyperparameters import Hyperparameters
from switchyard.components.training.losses import named_loss
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.queries import QueryExamples

TASKS = {"binary": 1, "multiclass": 3, "regression": 1, "quantile": 3, "multioutput": 2, "multilabel": 2, "ranking": 1}
TARGETS = {"quantile": ("0.1", "0.5", "0.9"), "multioutput": ("a", "b"), "multilabel": ("a", "b")}
HYPER = dict(
    epochs=6,
    steps=None,
    batch_size=32,
    learning_rate=0.02,
    optimizer="adam",
    seed=1,
    patience=None,
    min_delta=0.0,
    class_weights=None,
)


SPECS = (FeatureSpec("word", "int64", (1,), 4), FeatureSpec("x", "float32", (2,)))


def examples(task, rows, seed, *, weighted=False):
    rng = np.random.default_rng(seed)
    x, word = rng.normal(size=(rows, 2)).astype(np.float32), rng.integers(0, 4, size=(rows, 1))
    score = 2 * x[:, 0] - x[:, 1] + (word[:, 0] - 1.5)
    label = {
        "binary": (score > 0).astype(np.int64),
        "multiclass": np.digitize(score, [-1, 1]),
        "regression": score.astype(np.float32),
        "quantile": (score + rng.normal(size=rows)).astype(np.float32),
        "multioutput": np.stack([score / 8, -score / 4], axis=1).astype(np.float32),
        "multilabel": np.stack([score > 0, x[:, 0] > 0], axis=1).astype(np.float32),
        # Of 8 rows each, in two parts of a hash.
        "ranking": np.stack([np.digitize(score, [0, 2]), *np.divmod(np.arange(rows) % (rows // 8), 7)], axis=1),
    }[task]
    weights = rng.integers(0, 5, rows).astype(np.float32) if weighted else None
    return in_memory({"x": x, "word": word}, label, SPECS, QueryExamples if task == "ranking" else Examples, weights=weights)


def in_memory(features, labels, specs, kind=Examples, weights=None, **limits):
    """Returns arrays by name as an `ExampleSource`."""
    layout = blocks(specs) if weights is None else (*blocks(specs), WEIGHTS)
    return kind(layout, [columns_of(features, labels, specs, weights)], **limits)


def sources(task):
    """Returns the examples of both splits."""
    return [examples(task, 400, 0), examples(task, 200, 1)]


def request(
    examples, folder, task, build_model=None, accelerator=None, train=None, spec=None, loss=None, hooks=NO_HOOKS, **hyper
):
    """Returns the request to train on `examples`, train and eval."""
    return TrainRequest(
        spec=spec or ModelSpec(SPECS, task, TASKS[task], targets=TARGETS.get(task, ())),
        train=train or examples[0],
        eval=examples[1],
        hyperparameters=Hyperparameters(**{**HYPER, **hyper}),
        loss=loss or named_loss(task, targets=TARGETS.get(task, ())),
        accelerator=accelerator or AcceleratorProfile(),
        build_model=build_model,
        checkpoint_dir=folder / "checkpoints",
        export_dir=folder / "export",
        hooks=hooks,
    )


def no_report(step, metrics):
    pass


class Killed(BaseException):
    """What ends a training as a kill does: no `except Exception` of a trainer sees it."""


def killed_at(last):
    """Returns a report that ends the training in step `last`, after its checkpoint."""

    def report(step, metrics):
        if step == last:
            raise Killed

    return report
