"""One suite for every trainer: what `components.training.contract` promises."""

import numpy as np
import pytest
import tensorflow as tf

from components.accelerators import AcceleratorProfile
from components.errors import TrainingError, UserError
from components.progress import set_sink
from components.training.contract import FeatureSpec, Hyperparameters, ModelSpec, TrainRequest
from components.training.input import TransformedExamples
from components.training.pytorch_trainer import PytorchTrainer
from components.training.tensorflow_trainer import TensorflowTrainer
from tests.contract.sklearn_trainer import SklearnTrainer

FRAMEWORKS = [TensorflowTrainer, PytorchTrainer]
ALL = [*FRAMEWORKS, SklearnTrainer]
TASKS = {"binary": 1, "multiclass": 3, "regression": 1}
METRICS = {
    "binary": {"loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc"},
    "multiclass": {"loss", "accuracy", "val_loss", "val_accuracy"},
    "regression": {"loss", "mae", "val_loss", "val_mae"},
}
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


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    made = {}

    def get(task):
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            write(folder / "train", task, 400, 0)
            write(folder / "eval", task, 200, 1)
            spec = {
                "x": tf.io.FixedLenFeature([2], tf.float32),
                "word": tf.io.FixedLenFeature([1], tf.int64),
                "y": tf.io.FixedLenFeature([], tf.float32 if task == "regression" else tf.int64),
            }
            made[task] = [TransformedExamples(sorted(map(str, (folder / s).iterdir())), spec, "y") for s in ("train", "eval")]
        return made[task]

    return get


@pytest.fixture
def make(data, tmp_path):
    def request(task="binary", folder="run", build_model=None, accelerator=None, train=None, **hyper):
        sources = data(task)
        return TrainRequest(
            spec=ModelSpec((FeatureSpec("word", "int64", (1,), 4), FeatureSpec("x", "float32", (2,))), task, TASKS[task]),
            train=train or sources[0],
            eval=sources[1],
            hyperparameters=Hyperparameters(**{**HYPER, **hyper}),
            accelerator=accelerator or AcceleratorProfile(),
            build_model=build_model,
            checkpoint_dir=tmp_path / folder / "checkpoints",
            export_dir=tmp_path / folder / "export",
        )

    return request


def no_report(step, metrics):
    pass


# The scikit-learn trainer is a classifier.
@pytest.mark.parametrize(("trainer", "task"), [(t, k) for t in ALL for k in TASKS if (t, k) != (SklearnTrainer, "regression")])
def test_learns_reports_and_exports(trainer, task, make):
    request = make(task)
    reports = []
    result = trainer().train(request, lambda step, metrics: reports.append((step, dict(metrics))))
    assert [step for step, _ in reports] == [13 * n for n in range(1, 7)]
    assert all(set(metrics) == METRICS[task] for _, metrics in reports)
    assert result.epochs == 6
    assert result.steps == 78
    assert [dict(h) for h in result.history] == [m for _, m in reports]
    assert result.metrics["val_loss"] < reports[0][1]["val_loss"] or trainer is SklearnTrainer
    features, labels = next(iter(request.eval.batches(1000)))
    scores = trainer.load_predictor(request.export_dir)(features)
    assert scores.shape == (200, TASKS[task])
    if task == "binary":
        assert ((scores[:, 0] > 0.5) == labels).mean() > 0.85
    elif task == "multiclass":
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
        assert (scores.argmax(axis=1) == labels).mean() > 0.6
    else:
        assert np.mean((scores[:, 0] - labels) ** 2) < np.var(labels) / 2


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_exported_model_is_the_best_epoch(trainer, make):
    request = make(learning_rate=0.3, epochs=8)
    result = trainer().train(request, no_report)
    losses = [h["val_loss"] for h in result.history]
    assert result.best_epoch == int(np.argmin(losses)) + 1
    features, labels = next(iter(request.eval.batches(1000)))
    p = trainer.load_predictor(request.export_dir)(features)[:, 0].clip(1e-7, 1 - 1e-7)
    loss = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    assert loss == pytest.approx(min(losses), abs=1e-4)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_goes_on_where_a_killed_run_stopped(trainer, make):
    whole = trainer().train(make(folder="whole"), no_report)

    class Killed(BaseException):
        pass

    def kill_in_third(step, metrics):
        if step == 39:
            raise Killed

    with pytest.raises(Killed):
        trainer().train(make(folder="cut"), kill_in_third)
    seen = []
    resumed = trainer().train(make(folder="cut"), lambda step, metrics: seen.append(step))
    assert resumed.resumed_from_epoch in (2, 3)
    assert seen == [13 * n for n in range(resumed.resumed_from_epoch + 1, 7)]
    assert resumed.steps == whole.steps
    for there, here in zip(whole.history, resumed.history, strict=True):
        # Dropout's random state is not part of the checkpoint: alike, not equal.
        assert here["val_loss"] == pytest.approx(there["val_loss"], abs=0.05)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_finished_training_is_not_repeated(trainer, make):
    trainer().train(make(), no_report)
    seen = []
    again = trainer().train(make(), lambda step, metrics: seen.append(step))
    assert seen == []
    assert again.resumed_from_epoch == 6


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_same_seed_same_result(trainer, make):
    first, second = (trainer().train(make(folder=f), no_report) for f in ("a", "b"))
    other = trainer().train(make(folder="c", seed=2), no_report)
    assert first.history == second.history
    assert first.history != other.history


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_early_stopping(trainer, make):
    result = trainer().train(make(epochs=50, patience=2, learning_rate=0.5), no_report)
    assert result.epochs < 50
    assert result.epochs - result.best_epoch == 2


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_steps_limit(trainer, make):
    assert trainer().train(make(epochs=2, steps=20), no_report).steps == 20


@pytest.mark.parametrize("trainer", FRAMEWORKS)
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_optimizers(trainer, optimizer, make):
    result = trainer().train(make(optimizer=optimizer, epochs=3, learning_rate=0.05), no_report)
    assert result.history[-1]["loss"] < result.history[0]["loss"]


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_class_weights_shift_predictions(trainer, make):
    plain, weighted = make(folder="plain"), make(folder="weighted", class_weights=(1.0, 20.0))
    means, losses = [], []
    for request in (plain, weighted):
        losses.append(trainer().train(request, no_report).history[0]["loss"])
        features, _ = next(iter(request.eval.batches(1000)))
        means.append(trainer.load_predictor(request.export_dir)(features).mean())
    assert losses[1] > 3 * losses[0]
    assert means[1] > means[0] + 0.01


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_bf16(trainer, make):
    result = trainer().train(make(accelerator=AcceleratorProfile("cpu", 1, "bf16"), epochs=2, learning_rate=0.05), no_report)
    assert result.metrics["val_auc"] > 0.9
    assert result.device == "cpu"


@pytest.mark.parametrize("trainer", ALL)
def test_a_device_that_is_not_there_is_an_error(trainer, make):
    if trainer().available_devices().get("tpu"):
        pytest.skip("this machine has a TPU")
    with pytest.raises(UserError, match=r"asks for 1 tpu, this machine has: \d+ cpu"):
        trainer().train(make(accelerator=AcceleratorProfile("tpu")), no_report)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_fp16_on_a_cpu_is_an_error(trainer, make):
    with pytest.raises(UserError, match="fp16"):
        trainer().train(make(accelerator=AcceleratorProfile("cpu", 1, "fp16")), no_report)


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_divergence_is_an_error(trainer, make):
    with pytest.raises(TrainingError, match="learning_rate"):
        trainer().train(make("regression", learning_rate=1e30, optimizer="sgd"), no_report)


def keras_model(outputs):
    import keras

    x, word = keras.Input((2,), name="x"), keras.Input((1,), dtype="int64", name="word")
    return keras.Model({"x": x, "word": word}, keras.layers.Dense(outputs)(x))


def torch_model(outputs):
    from torch import nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, outputs)

        def forward(self, features):
            return self.layer(features["x"])

    return Model()


BUILD = {TensorflowTrainer: keras_model, PytorchTrainer: torch_model}


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_the_users_model(trainer, make):
    result = trainer().train(make(build_model=lambda spec: BUILD[trainer](spec.outputs)), no_report)
    assert result.parameters == 3


@pytest.mark.parametrize("trainer", FRAMEWORKS)
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda trainer: BUILD[trainer](7), r"shape \(2, 7\).*needs logits of shape \(2, 1\)"),
        (lambda trainer: "not a model", "must return a .*received str"),
        (lambda trainer: 1 / 0, "build_model failed: .*ZeroDivisionError"),
    ],
)
def test_a_model_that_does_not_fit(trainer, build, message, make):
    with pytest.raises(UserError, match=message):
        trainer().train(make(build_model=lambda spec: build(trainer)), no_report)


def test_both_frameworks_agree(make):
    results = {t: t().train(make(folder=t.name, epochs=20), no_report) for t in FRAMEWORKS}
    aucs = [r.metrics["val_auc"] for r in results.values()]
    assert abs(aucs[0] - aucs[1]) < 0.02


def torch_model_that_takes_memory(spec):
    import torch

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, spec.outputs)

        def forward(self, features):
            x = features["x"]
            # Two rows, as the trainer tries a model, take 64 MB; 32 rows take terabytes.
            return self.layer(x) + torch.zeros(len(x) ** 4, 1 << 20).sum()

    return Model()


def keras_model_that_takes_memory(spec):
    import keras

    inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}

    def much(x):
        rows = tf.shape(x)[0]
        return x[:, :1] + tf.reduce_sum(tf.fill([rows**4, 1 << 20], x[0, 0]))

    return keras.Model(inputs, keras.layers.Dense(spec.outputs)(keras.layers.Lambda(much, output_shape=(1,))(inputs["x"])))


@pytest.mark.parametrize(
    ("trainer", "build_model"),
    [(TensorflowTrainer, keras_model_that_takes_memory), (PytorchTrainer, torch_model_that_takes_memory)],
)
def test_no_memory_left_is_an_error_that_names_the_batch_size(trainer, build_model, make):
    with pytest.raises(
        TrainingError, match=r"ran out of memory on the cpu with trainer.hyperparameters.batch_size 32: .*smaller"
    ):
        trainer().train(make(build_model=build_model), no_report)


@pytest.fixture
def said():
    found = []
    set_sink(found.append)
    yield found
    set_sink(None)


def plain(trainer):
    def torch_model(spec):
        import torch

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, spec.outputs)

            def forward(self, features):
                return self.layer(features["x"])

        return Model()

    def keras_model_of_x(spec):
        import keras

        inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}
        return keras.Model(inputs, keras.layers.Dense(spec.outputs)(inputs["x"]))

    return torch_model if trainer is PytorchTrainer else keras_model_of_x


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_compiled_models_learn_the_same(trainer, make, said):
    build_model = plain(trainer)
    as_it_is = trainer().train(make(folder="as it is", build_model=build_model, epochs=2), no_report)
    accelerator = AcceleratorProfile("cpu", compile=True)
    compiled = trainer().train(make(folder="compiled", build_model=build_model, epochs=2, accelerator=accelerator), no_report)
    assert said == []
    for a, b in zip(as_it_is.history, compiled.history, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-4)


def test_without_a_compiler_pytorch_trains_as_it_is_and_says_so(make, said, monkeypatch):
    import torch

    torch.compiler.reset()
    monkeypatch.setenv("CXX", "/there/is/no/compiler")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/there/is/no/compiler"))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    accelerator = AcceleratorProfile("cpu", compile=True)
    PytorchTrainer().train(make(build_model=plain(PytorchTrainer), epochs=1, accelerator=accelerator), no_report)
    assert len(said) == 1
    assert "torch.compile cannot do this model, it is trained as it is" in said[0]


def test_what_xla_cannot_do_is_trained_as_it_is_and_said(make, said):
    def build_model(spec):
        import keras

        inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}
        text = keras.layers.Lambda(lambda x: tf.strings.to_number(tf.strings.as_string(x)), output_shape=(2,))(inputs["x"])
        return keras.Model(inputs, keras.layers.Dense(spec.outputs)(text))

    accelerator = AcceleratorProfile("cpu", compile=True)
    TensorflowTrainer().train(make(build_model=build_model, epochs=1, accelerator=accelerator), no_report)
    assert len(said) == 1
    assert "XLA cannot do this model, it is trained as it is" in said[0]
