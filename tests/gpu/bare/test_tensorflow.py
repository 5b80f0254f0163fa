"""TensorFlow's side of test_pytorch.py: `python -m pytest tests/gpu/bare/test_tensorflow.py`, in a session of its own on a GPU.

Needs TensorFlow and Keras; neither TFX nor PyTorch.
"""

import itertools

import numpy as np
import pytest

from switchyard.components.errors import TrainingError
from switchyard.components.training.accelerator import AcceleratorProfile
from tests.gpu.bare.images import SPEC, images
from tests.training_inputs import TASKS, no_report, request, sources

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed on this machine")
keras = pytest.importorskip("keras")
TensorflowTrainer = pytest.importorskip("switchyard.components.training.tensorflow.trainer").TensorflowTrainer
steps = pytest.importorskip("switchyard.components.training.tensorflow.steps")
default_model = pytest.importorskip("switchyard.components.training.tensorflow.default_model")

DEVICES = len(tf.config.list_physical_devices("GPU"))
KIND = "gpu" if DEVICES else "cpu"
on_a_gpu = pytest.mark.skipif(not DEVICES, reason="TensorFlow sees no GPU")
ALLOWED = {"float32": 1e-3, "tf32": 1e-2, "bf16": 5e-2, "fp16": 1e-2}


@pytest.fixture
def no_dropout(monkeypatch):
    """Removes dropout from default models: another device or dtype draws other random numbers."""
    monkeypatch.setattr(default_model, "DROPOUT", 0.0)


@pytest.fixture
def trained(tmp_path):
    """Trains; returns the request and the result."""
    numbers = itertools.count()

    def train(task="binary", build_model=None, epochs=3, **devices):
        profile = AcceleratorProfile(**{"kind": KIND, **devices})
        made = request(
            sources(task), tmp_path / str(next(numbers)), task, build_model=build_model, accelerator=profile, epochs=epochs
        )
        return made, TensorflowTrainer().train(made, no_report)

    return train


def scores(made, rows=200, size=None):
    """Returns the exported model's scores of the first held-out rows, in batches of `size`."""
    predict = TensorflowTrainer.load_predictor(made.export_dir)
    return np.concatenate([predict(features) for features, _ in made.eval.batches(size or rows)])


@pytest.mark.parametrize(
    "precision",
    # In float32 on a CPU: twice the same training, which the contract of trainers covers.
    ["bf16", *(pytest.param(precision, marks=on_a_gpu) for precision in ("float32", "tf32", "fp16"))],
)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.usefixtures("no_dropout")
def test_learns_as_in_float32_and_serves_in_float32(task, precision, trained):
    _, alone = trained(task)
    made, found = trained(task, precision=precision)
    for a, b in zip(alone.history, found.history, strict=True):
        assert b["val_loss"] == pytest.approx(a["val_loss"], abs=ALLOWED[precision], rel=ALLOWED[precision])
    assert found.device.startswith(KIND)
    np.testing.assert_allclose(scores(made), scores(made, size=7), atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_a_split_on_the_device_trains_as_one_that_is_copied_ahead(task, trained, monkeypatch):
    _, there = trained(task)
    monkeypatch.setattr(steps, "fits", lambda source, free: False)
    _, ahead = trained(task)
    for a, b in zip(there.history, ahead.history, strict=True):
        assert b["val_loss"] == pytest.approx(a["val_loss"], abs=1e-5)


def much_memory(spec):
    inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}
    # Two rows, as the trainer tries a model, take 64 MB; 32 rows take terabytes.
    much = keras.layers.Lambda(lambda x: x + tf.reduce_sum(tf.fill([tf.shape(x)[0] ** 4, 1 << 20], x[0, 0])), output_shape=(2,))
    return keras.Model(inputs, keras.layers.Dense(spec.outputs)(much(inputs["x"])))


def test_memory_that_runs_out_is_an_error_that_names_the_allocation_and_the_next_training_works(trained):
    with pytest.raises(TrainingError, match=rf"ran out of memory on the {KIND} .*batch_size 32: .*alloc.*smaller"):
        trained(build_model=much_memory)
    _, found = trained(epochs=1)
    assert found.epochs == 1


def convolutions(spec):
    layers = keras.layers
    image = keras.Input((28, 28, 1), name="image")
    hidden = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(32, 3)(image)))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(64, 3, activation="relu")(layers.MaxPooling2D()(hidden)))
    return keras.Model({"image": image}, layers.Dense(3)(hidden))


@pytest.mark.core
def test_a_convolution_scores_a_row_the_same_in_any_batch_and_on_any_device(tmp_path):
    sets = [images(300, 1), images(60, 2)]
    made = request(
        sets, tmp_path, "multiclass", build_model=convolutions, accelerator=AcceleratorProfile(KIND), spec=SPEC, epochs=2
    )
    TensorflowTrainer().train(made, no_report)
    whole = scores(made, 60)
    # tensorflow#117663: cuDNN's convolutions change with the batch's size on a GPU, TF32 off; infra validation measures it.
    allowed = 1e-4 if DEVICES else 1e-5
    np.testing.assert_allclose(scores(made, 60, 7), whole, atol=allowed)
    features, _ = next(iter(made.eval.batches(60)))
    with tf.device("CPU:0"):
        loaded = tf.saved_model.load(str(made.export_dir))
        on_the_cpu = loaded.serve({"f0": tf.constant(features["image"])})
    np.testing.assert_allclose(on_the_cpu, whole, atol=allowed)
