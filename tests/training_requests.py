"""Requests for trainers: 400 rows of two numbers and a word. Imports both frameworks."""

import numpy as np
import tensorflow as tf

from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.contract import FeatureSpec, Hyperparameters, ModelSpec, TrainRequest
from switchyard.components.training.examples import TransformedExamples
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer

FRAMEWORKS = [TensorflowTrainer, PytorchTrainer]
TASKS = {"binary": 1, "multiclass": 3, "regression": 1}
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


def write(folder, task, rows, seed):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "examples")) as writer:
        for _ in range(rows):
            x, word = rng.normal(size=2).astype(np.float32), int(rng.integers(0, 4))
            score = 2 * x[0] - x[1] + (word - 1.5)
            label = {"binary": int(score > 0), "multiclass": int(np.digitize(score, [-1, 1])), "regression": float(score)}[task]
            feature = {
                "x": tf.train.Feature(float_list=tf.train.FloatList(value=x)),
                "word": tf.train.Feature(int64_list=tf.train.Int64List(value=[word])),
                "y": tf.train.Feature(float_list=tf.train.FloatList(value=[label]))
                if task == "regression"
                else tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def sources(folder, task):
    """Writes the examples of both splits; returns what reads them."""
    write(folder / "train", task, 400, 0)
    write(folder / "eval", task, 200, 1)
    spec = {
        "x": tf.io.FixedLenFeature([2], tf.float32),
        "word": tf.io.FixedLenFeature([1], tf.int64),
        "y": tf.io.FixedLenFeature([], tf.float32 if task == "regression" else tf.int64),
    }
    return [TransformedExamples(sorted(map(str, (folder / s).iterdir())), spec, "y") for s in ("train", "eval")]


def request(examples, folder, task, build_model=None, accelerator=None, train=None, **hyper):
    """Returns the request to train on `examples`, train and eval."""
    return TrainRequest(
        spec=ModelSpec((FeatureSpec("word", "int64", (1,), 4), FeatureSpec("x", "float32", (2,))), task, TASKS[task]),
        train=train or examples[0],
        eval=examples[1],
        hyperparameters=Hyperparameters(**{**HYPER, **hyper}),
        accelerator=accelerator or AcceleratorProfile(),
        build_model=build_model,
        checkpoint_dir=folder / "checkpoints",
        export_dir=folder / "export",
    )


def no_report(step, metrics):
    pass
