"""One suite for every trainer: what `switchyard.components.training.contract` promises."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import torch

from switchyard.components.errors import TrainingError, UserError
from switchyard.components.evaluation.ranking import query_values
from switchyard.components.metrics import trained_names
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.hyperparameters import Trees
from switchyard.components.training.ledger import TrainingLedger
from switchyard.components.training.lightgbm.columns import categorical, column_order, read
from switchyard.components.training.lightgbm.library import lightgbm
from switchyard.components.training.lightgbm.trainer import LightgbmTrainer
from switchyard.components.training.losses import Loss
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer
from switchyard.pipelines.examples.trainers.jax_trainer import JaxTrainer
from switchyard.pipelines.examples.trainers.xgboost_trainer import XgboostTrainer
from tests.contract.sklearn_trainer import SklearnTrainer
from tests.training_requests import FRAMEWORKS, SPECS, TASKS, Killed, examples, in_memory, killed_at, no_report, request

# What trees of 400 rows take to learn in as few rounds as networks have epochs.
TREES = {LightgbmTrainer: {"learning_rate": 0.3}}
BUILT_IN = [*FRAMEWORKS, *TREES]
EXAMPLES = [XgboostTrainer, JaxTrainer]
TREES |= {XgboostTrainer: {"learning_rate": 0.3}}
ALL = [*BUILT_IN, *EXAMPLES, SklearnTrainer]
# Trainer -> the tasks that it has, if not all.
LEARNS = {
    **{key: ["binary", "multiclass", "regression"] for key in EXAMPLES},
    SklearnTrainer: ["binary", "multiclass"],
}


def core(*parameters):
    """Returns parameters of tests that `make test` runs; those beside them run in the suite `contract`."""
    return [pytest.param(p, marks=pytest.mark.core) for p in parameters]


def steps(trainer, epochs):
    """Returns the steps of so many epochs: 400 rows in batches of 32, or a round of boosting."""
    return epochs if trainer in TREES else 13 * epochs


# JAX compiles for seconds: in `make test` the example learns one task.
@pytest.mark.parametrize(
    ("trainer", "task"),
    [
        pytest.param(t, k, marks=[] if t is JaxTrainer and k != "binary" else [pytest.mark.core])
        for t in ALL
        for k in LEARNS.get(t, TASKS)
    ],
)
def test_every_trainer_learns_reports_each_epoch_and_exports_what_predicts(trainer, task, make):
    request = make(task, **TREES.get(trainer, {}))
    reports = []
    result = trainer().train(request, lambda step, metrics: reports.append((step, dict(metrics))))
    assert [step for step, _ in reports] == [steps(trainer, n) for n in range(1, 7)]
    measured = {name.removeprefix(split) for name in trained_names(task) for split in ("", "val_")}
    assert all(set(metrics) == measured for _, metrics in reports)
    assert result.epochs == 6
    assert result.steps == steps(trainer, 6)
    assert [dict(h) for h in result.history] == [m for _, m in reports]
    assert result.metrics["val_loss"] < reports[0][1]["val_loss"] or trainer is SklearnTrainer
    features, labels = next(iter(request.eval.batches(1000)))
    predict = trainer.load_predictor(request.export_dir)
    scores = predict(features)
    assert scores.shape == (200, TASKS[task])
    np.testing.assert_allclose(predict({name: column[:7] for name, column in features.items()}), scores[:7], atol=1e-5)
    if task == "binary":
        assert ((scores[:, 0] > 0.5) == labels).mean() > 0.85
    elif task == "multiclass":
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
        assert (scores.argmax(axis=1) == labels).mean() > 0.6
    elif task == "multilabel":
        assert ((scores > 0.5) == labels).mean() > 0.8
    elif task == "multioutput":
        assert (np.mean((scores - labels) ** 2, axis=0) < np.var(labels, axis=0) / 2).all()
    elif task == "ranking":
        found = query_values(labels.astype(np.float64), scores)
        assert found["ndcg"].mean() > 0.9
        assert found["loss"].mean() == pytest.approx(min(h["val_loss"] for h in result.history), abs=1e-4)
    elif task == "quantile":
        np.testing.assert_allclose((labels[:, np.newaxis] <= scores).mean(axis=0), [0.1, 0.5, 0.9], atol=0.12)
    else:
        assert np.mean((scores[:, 0] - labels) ** 2) < np.var(labels) / 2


def custom_loss(labels, outputs):
    """The squared error of a label (B, 2), or the distance from 1, in either framework's tensors."""
    wanted = [1.0, 1.0] if labels is None else [labels[:, 0], labels[:, 1]]
    return (outputs[:, 0, 0] - wanted[0]) ** 2 + (outputs[:, 1, 0] - wanted[1]) ** 2


@pytest.mark.core
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_custom_task_trains_your_loss_on_an_output_of_your_shape(trainer, labelled, make):
    spec = ModelSpec(SPECS, "custom", 2, output_shape=(2, 1), label_shape=(2,) if labelled else None)
    loss = Loss("mine", {}, custom_loss, label_shape=spec.label_shape, labelled=labelled)
    request = replace(make("multioutput"), spec=spec, loss=loss)
    result = trainer().train(request, no_report)
    assert set(result.metrics) == {"loss", "val_loss"}
    features, labels = next(iter(request.eval.batches(1000)))
    scores = trainer.load_predictor(request.export_dir)(features)
    assert scores.shape == (200, 2)
    wanted = labels if labelled else np.ones((200, 2))
    assert ((scores - wanted) ** 2).sum(axis=1).mean() == pytest.approx(result.metrics["val_loss"], rel=1e-3)
    assert result.metrics["val_loss"] < result.history[0]["val_loss"]


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_query_stays_in_one_batch_of_one_device(trainer, make):
    with pytest.raises(UserError, match=r"batch_size: 7, and a query has 8 rows, which stay in one batch; set it to at least 8"):
        trainer().train(make("ranking", batch_size=7), no_report)
    with pytest.raises(
        UserError, match=r"trainer\.accelerator: a ranking task keeps the rows of a query in one batch, received 2"
    ):
        trainer().train(make("ranking", accelerator=AcceleratorProfile(kind="cpu", count=2)), no_report)
    with pytest.raises(UserError, match=r"accumulate_steps: the batches of a ranking differ in their rows, received 2"):
        trainer().train(make("ranking", accumulate_steps=2), no_report)


@pytest.mark.parametrize("trainer", [*core(*BUILT_IN, XgboostTrainer), JaxTrainer])
def test_the_exported_model_is_the_best_epochs(trainer, make):
    request = make(learning_rate=0.3, epochs=8) if trainer not in TREES else make(learning_rate=0.9, epochs=60)
    result = trainer().train(request, no_report)
    losses = [h["val_loss"] for h in result.history]
    assert result.best_epoch == int(np.argmin(losses)) + 1 < len(losses)
    features, labels = next(iter(request.eval.batches(1000)))
    p = trainer.load_predictor(request.export_dir)(features)[:, 0].clip(1e-7, 1 - 1e-7)
    loss = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    assert loss == pytest.approx(min(losses), abs=1e-4)


@pytest.mark.core
@pytest.mark.parametrize("trainer", [*BUILT_IN, XgboostTrainer])
def test_a_killed_training_resumes_where_it_stopped(trainer, make):
    whole = trainer().train(make(folder="whole"), no_report)

    with pytest.raises(Killed):
        trainer().train(make(folder="cut"), killed_at(steps(trainer, 3)))
    seen = []
    resumed = trainer().train(make(folder="cut"), lambda step, metrics: seen.append(step))
    assert resumed.resumed_from_epoch in (2, 3)
    assert seen == [steps(trainer, n) for n in range(resumed.resumed_from_epoch + 1, 7)]
    assert resumed.steps == whole.steps
    for there, here in zip(whole.history, resumed.history, strict=True):
        assert here["val_loss"] == pytest.approx(there["val_loss"], abs=1e-5)  # dropout draws the same, too


def test_resumed_trees_do_not_draw_the_rows_of_their_first_round_again(make):
    # With so small a rate a tree depends on the drawn rows alone.
    given = {"trees": Trees(row_share=0.5), "learning_rate": 1e-9, "epochs": 2}
    with pytest.raises(Killed):
        LightgbmTrainer().train(make(**given), killed_at(2))
    request = make(**given)
    assert LightgbmTrainer().train(request, no_report).resumed_from_epoch == 1
    model = "".join(p.read_text() for p in request.checkpoint_dir.glob("last-2.*"))
    first, second = (line for line in model.split("\n") if line.startswith("threshold="))
    assert first != second


def test_the_trees_of_each_quantile_are_those_of_lightgbms_own_objective(tmp_path):
    """Whatever the unit of the label; and a killed training resumes, though one of its boosters finds no split."""
    columns = [next(iter(examples("quantile", rows, seed, weighted=True).batches(1000))) for seed, rows in enumerate((400, 200))]
    splits = [in_memory(x, 1000 + 5000 * y, SPECS, weights=w) for x, y, w in columns]
    given = {"task": "quantile", "learning_rate": 0.3, "epochs": 30, "trees": Trees(min_leaf_rows=150)}
    with pytest.raises(Killed):
        LightgbmTrainer().train(request(splits, tmp_path / "cut", **given), killed_at(13))
    found = []
    for folder in ("whole", "cut"):
        result = LightgbmTrainer().train(request(splits, tmp_path / folder, **given), no_report)
        features, labels, weights = next(iter(splits[1].batches(1000)))
        found.append(LightgbmTrainer.load_predictor(tmp_path / folder / "export")(features))
    assert 0 < result.resumed_from_epoch < 13
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    q = np.array([0.1, 0.5, 0.9])
    error = labels[:, np.newaxis] - found[1]
    loss = (np.maximum(q * error, (q - 1) * error).mean(axis=1) * weights).mean()
    assert loss == pytest.approx(min(h["val_loss"] for h in result.history), rel=1e-4)
    [rows, y, w] = read(splits[0], column_order(splits[0], SPECS))
    params = {"objective": "quantile", "learning_rate": 0.3, "min_data_in_leaf": 150, "seed": 1, "deterministic": True}
    params |= {"force_row_wise": True, "verbosity": -1}
    held = read(splits[1], column_order(splits[1], SPECS))[0]
    for i, quantile in enumerate(q):
        data = lightgbm.Dataset(rows, y, weight=w, categorical_feature=categorical(column_order(splits[0], SPECS)))
        alone = lightgbm.train({**params, "alpha": quantile}, data, result.best_epoch)
        np.testing.assert_allclose(found[0][:, i], alone.predict(held), rtol=1e-4)


def trees_of(text):
    """Returns the number of leaves of each tree of a model's text."""
    return [int(line.removeprefix("num_leaves=")) for line in text.split("\n") if line.startswith("num_leaves=")]


@pytest.mark.parametrize("task", ["binary", "multiclass", "quantile", "multilabel"])
@pytest.mark.parametrize(
    ("trees", "ends"),
    [
        (Trees(min_leaf_rows=390), True),  # no round finds a split
        (Trees(min_leaf_rows=46, row_share=0.24), False),  # some do, with the rows that they draw
    ],
)
def test_a_round_without_a_split_does_not_count(task, trees, ends, tmp_path):
    splits = [examples(task, 400, 0), examples(task, 200, 1)]
    seen = []
    result = LightgbmTrainer().train(
        request(splits, tmp_path, task, epochs=40, trees=trees, learning_rate=0.3), lambda step, metrics: seen.append(step)
    )
    outputs = TASKS[task] if task != "binary" else 1
    [last] = (tmp_path / "checkpoints").glob("last-*.txt")
    leaves = np.reshape(trees_of(last.read_text()), (-1, outputs))
    assert result.epochs == len(leaves) == len(seen) == len(result.history) < 40
    assert seen == list(range(1, result.epochs + 1))
    assert (leaves[1:].max(axis=1, initial=0) > 1).all(), "each round but the first has a split"
    assert (result.epochs == 1) == ends
    exported = trees_of((tmp_path / "export" / "model.txt").read_text())
    assert len(exported) == result.best_epoch * outputs
    features, labels = next(iter(splits[1].batches(1000)))
    if task == "binary":
        p = LightgbmTrainer.load_predictor(tmp_path / "export")(features)[:, 0].astype(np.float64)
        assert -np.log(np.where(labels == 1, p, 1 - p)).mean() == pytest.approx(
            min(h["val_loss"] for h in result.history), rel=1e-4
        )


# With weights LightGBM's own mean squared error rounds otherwise, and equally good splits are chosen by chance.
@pytest.mark.parametrize(("task", "alone", "weighted"), [("multilabel", "binary", True), ("multioutput", "regression", False)])
def test_the_trees_of_each_label_are_those_of_a_task_of_its_own(task, alone, weighted, tmp_path):
    """And a killed training of several labels resumes with the same trees."""
    splits = [examples(task, 400, 0, weighted=weighted), examples(task, 200, 1, weighted=weighted)]
    given = {"task": task, "learning_rate": 0.3}
    with pytest.raises(Killed):
        LightgbmTrainer().train(request(splits, tmp_path / "cut", **given), killed_at(3))
    found = []
    for folder in ("whole", "cut"):
        result = LightgbmTrainer().train(request(splits, tmp_path / folder, **given), no_report)
        features = next(iter(splits[1].batches(1000)))[0]
        found.append(LightgbmTrainer.load_predictor(tmp_path / folder / "export")(features))
    assert result.resumed_from_epoch in (2, 3)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    for i in range(2):
        columns = [next(iter(split.batches(1000))) for split in splits]
        labels = [c[1][:, i].astype(np.int64 if alone == "binary" else np.float32) for c in columns]
        weights = [c[2] if weighted else None for c in columns]
        single = [in_memory(c[0], y, SPECS, weights=w) for c, y, w in zip(columns, labels, weights, strict=True)]
        LightgbmTrainer().train(request(single, tmp_path / f"of {i}", **{**given, "task": alone}), no_report)
        expected = LightgbmTrainer.load_predictor(tmp_path / f"of {i}" / "export")(features)
        np.testing.assert_allclose(found[0][:, i], expected[:, 0], atol=1e-5)


@pytest.mark.core
@pytest.mark.parametrize("trainer", BUILT_IN)
def test_a_kill_between_checkpoint_and_ledger_loses_no_epoch(trainer, make, monkeypatch):
    save = TrainingLedger.save

    def killed(ledger):
        if ledger.epochs == 3:
            raise Killed
        save(ledger)

    monkeypatch.setattr(TrainingLedger, "save", killed)
    with pytest.raises(Killed):
        trainer().train(make(), no_report)
    monkeypatch.undo()
    request = make()
    assert list(request.checkpoint_dir.glob("last-3.*")), "its checkpoint was there"
    resumed = trainer().train(request, no_report)
    assert resumed.resumed_from_epoch == 2
    assert (resumed.epochs, resumed.steps) == (6, steps(trainer, 6))
    assert len(list(request.checkpoint_dir.glob("last-*"))) == len(list(request.checkpoint_dir.glob("best-*"))) == 1


@pytest.mark.parametrize("trainer", BUILT_IN)
def test_a_finished_training_is_not_repeated(trainer, make):
    trainer().train(make(), no_report)
    seen = []
    again = trainer().train(make(), lambda step, metrics: seen.append(step))
    assert seen == []
    assert again.resumed_from_epoch == 6


@pytest.mark.parametrize("trainer", BUILT_IN)
def test_the_same_seed_gives_the_same_result(trainer, make):
    drawn = {"trees": Trees(row_share=0.8)} if trainer in TREES else {}
    first, second = (trainer().train(make(folder=f, **drawn), no_report) for f in ("a", "b"))
    other = trainer().train(make(folder="c", seed=2, **drawn), no_report)
    assert first.history == second.history
    assert first.history != other.history


@pytest.mark.parametrize("trainer", [*BUILT_IN, *EXAMPLES])
def test_training_stops_early_when_nothing_improves(trainer, make):
    result = trainer().train(make(epochs=100, patience=2, learning_rate=0.5), no_report)
    assert result.epochs < 100
    assert result.epochs - result.best_epoch == 2


@pytest.mark.parametrize("trainer", [*core(*FRAMEWORKS), JaxTrainer])
def test_training_ends_at_max_steps(trainer, make):
    assert trainer().train(make(epochs=2, steps=20), no_report).steps == 20


@pytest.mark.parametrize("trainer", FRAMEWORKS)
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_each_optimizer_lowers_the_loss(trainer, optimizer, make):
    result = trainer().train(make(optimizer=optimizer, epochs=3, learning_rate=0.05), no_report)
    assert result.history[-1]["loss"] < result.history[0]["loss"]


@pytest.mark.parametrize("trainer", [*core(*BUILT_IN, XgboostTrainer), JaxTrainer])
def test_class_weights_shift_predictions(trainer, make):
    plain, weighted = make(folder="plain"), make(folder="weighted", class_weights=(1.0, 20.0))
    means, losses = [], []
    for each in (plain, weighted):
        losses.append(trainer().train(each, no_report).history[0]["loss"])
        features, _ = next(iter(each.eval.batches(1000)))
        means.append(trainer.load_predictor(each.export_dir)(features).mean())
    # Boosting begins with the mean, which the weights move.
    assert losses[1] > (2 if trainer in TREES else 3) * losses[0]
    assert means[1] > means[0] + 0.01


@pytest.mark.core
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_a_model_trained_in_bf16_is_exported_in_float32(trainer, make):
    request = make(accelerator=AcceleratorProfile("cpu", 1, "bf16"), epochs=2, learning_rate=0.05)
    result = trainer().train(request, no_report)
    assert result.metrics["val_auc"] > 0.9
    assert result.device == "cpu"
    # It is served in the precision of its weights: what it was trained on need not be there.
    assert not any("bfloat16" in dtype for dtype in exported_dtypes(trainer, request.export_dir))


def exported_dtypes(trainer, folder):
    if trainer is TensorflowTrainer:
        loaded = tf.saved_model.load(str(folder))
        graph = loaded.serve.concrete_functions[0].graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        return {tf.as_dtype(a.type).name for n in nodes for a in n.attr.values() if a.type}
    program = torch.export.load(folder / "model.pt2")
    return {str(n.meta["val"].dtype) for n in program.graph.nodes if hasattr(n.meta.get("val"), "dtype")}


@pytest.mark.core
@pytest.mark.parametrize("trainer", ALL)
def test_a_device_that_is_not_there_is_an_error(trainer, make):
    if trainer().available_devices().get("tpu"):
        pytest.skip("this machine has a TPU")
    with pytest.raises(UserError, match=r"requests 1 tpu, this machine has: \d+ cpu"):
        trainer().train(make(accelerator=AcceleratorProfile("tpu")), no_report)


@pytest.mark.core
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_fp16_on_a_cpu_is_an_error(trainer, make):
    with pytest.raises(UserError, match="fp16"):
        trainer().train(make(accelerator=AcceleratorProfile("cpu", 1, "fp16")), no_report)


@pytest.mark.core
def test_fp16_on_a_tpu_is_an_error():
    with pytest.raises(UserError, match="'fp16' needs a GPU, the device is a TPU"):
        AcceleratorProfile("tpu", 1, "fp16").resolve({"tpu": 1})


@pytest.mark.core
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_tpus_of_several_machines_are_an_error(trainer):
    with pytest.raises(UserError, match="received 2; set"):
        trainer().processes(AcceleratorProfile("tpu", nodes=2))


@pytest.mark.core
@pytest.mark.parametrize("trainer", BUILT_IN)
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


@pytest.mark.core
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_the_users_model_is_the_one_that_is_trained(trainer, make):
    result = trainer().train(make(build_model=lambda spec: BUILD[trainer](spec.outputs)), no_report)
    assert result.parameters == 3


@pytest.mark.core
@pytest.mark.parametrize("trainer", FRAMEWORKS)
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda trainer: BUILD[trainer](7), r"shape \(2, 7\).*needs logits of shape \(2, 1\)"),
        (lambda trainer: "not a model", "must return a .*received str"),
        (lambda trainer: 1 / 0, "build_model failed: .*ZeroDivisionError"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(trainer, build, message, make):
    with pytest.raises(UserError, match=message):
        trainer().train(make(build_model=lambda spec: build(trainer)), no_report)


@pytest.mark.parametrize("trainer", [LightgbmTrainer, *EXAMPLES])
def test_a_trainer_without_custom_models_refuses_one(trainer, make):
    with pytest.raises(UserError, match=r"^trainer\.model: "):
        trainer().train(make(build_model=lambda spec: None), no_report)


def test_the_frameworks_agree(make):
    results = {t: t().train(make(folder=t.name, epochs=20, **TREES.get(t, {})), no_report) for t in BUILT_IN}
    aucs = {t: r.metrics["val_auc"] for t, r in results.items()}
    assert abs(aucs[TensorflowTrainer] - aucs[PytorchTrainer]) < 0.02
    assert aucs[LightgbmTrainer] > aucs[PytorchTrainer] - 0.03
