"""The metrics that the PyTorch trainer counts by itself are torchmetrics'."""

import pytest
import torch
import torchmetrics

from switchyard.components.training.hooks import Hooks
from switchyard.components.training.pytorch import metrics as pytorch_metrics
from switchyard.components.training.pytorch.metrics import Metrics, roc_area, roc_counts
from tests.training_inputs import TASKS, examples, request, sources


def weighted(task, folder):
    own = Hooks(build_metrics=lambda spec: {"distance": torchmetrics.MeanAbsoluteError()})
    return Metrics(request([examples(task, 400, 0, weighted=True)] * 2, folder, task, hooks=own), prefix="")


@pytest.mark.core
def test_the_auc_equals_torchmetrics_for_probabilities_on_its_thresholds():
    torch.manual_seed(0)
    reference = torchmetrics.classification.BinaryAUROC(thresholds=200)
    thresholds, counts = torch.linspace(0, 1, 200), 0
    for rows in (1, 64, 5000):
        probabilities = torch.where(torch.rand(rows) < 0.5, torch.rand(rows), thresholds[torch.randint(0, 200, (rows,))])
        labels = torch.randint(0, 2, (rows,))
        counts = counts + roc_counts(probabilities, labels)
        reference.update(probabilities, labels)
    assert roc_area(counts) == reference.compute()
    assert roc_area(roc_counts(probabilities, torch.ones_like(labels))) == 0, "of one class"


REFERENCES = {
    "binary": {"accuracy": torchmetrics.classification.BinaryAccuracy, "auc": torchmetrics.classification.BinaryAUROC},
    "multiclass": {"accuracy": torchmetrics.classification.MulticlassAccuracy},
    "multilabel": {
        "accuracy": torchmetrics.classification.MultilabelAccuracy,
        "auc": torchmetrics.classification.MultilabelAUROC,
    },
    "regression": {"mae": torchmetrics.MeanAbsoluteError},
    "multioutput": {"mae": torchmetrics.MeanAbsoluteError},
}


@pytest.mark.core
@pytest.mark.parametrize("task", REFERENCES)
def test_the_metrics_of_many_batches_equal_torchmetrics(task, tmp_path):
    torch.manual_seed(0)
    metrics, outputs = Metrics(request(sources(task), tmp_path, task), prefix="val_"), TASKS[task]
    output = torch.randn(200, 8, outputs)
    labels = torch.randn(200, 8, outputs) if task == "multioutput" else torch.randn(200, 8)
    if task in ("binary", "multiclass"):
        labels = torch.randint(0, max(2, outputs), (200, 8))
    if task == "multilabel":
        labels = torch.randint(0, 2, (200, 8, outputs)).float()
    losses = torch.rand(200, 8)
    for _ in range(2):  # a result resets them
        for batch in zip(losses, output, labels, strict=True):
            metrics.add(*batch)
        found = metrics.result()
    assert found.pop("val_loss") == pytest.approx(float(losses.mean()), rel=1e-6)
    predicted, labels = output.flatten(0, 1), labels.flatten(0, 1)
    activation = {"multiclass": lambda x: x.softmax(1), "binary": torch.sigmoid, "multilabel": torch.sigmoid}
    predicted = activation.get(task, lambda x: x)(predicted)
    predicted = predicted[:, 0] if task in ("binary", "regression") else predicted
    given = {"multiclass": {"num_classes": outputs, "average": "micro"}, "multilabel": {"num_labels": outputs}}.get(task, {})
    for name, kind in REFERENCES[task].items():
        reference = kind(**given, **({"thresholds": 200} if name == "auc" else {}))
        reference.update(predicted, labels.long() if task == "multilabel" else labels)
        assert found.pop(f"val_{name}") == pytest.approx(float(reference.compute()), abs=1e-6)
    assert not found


@pytest.mark.parametrize("task", ["binary", "multilabel", "regression"])
def test_weighted_metrics_read_no_value_before_the_end_of_an_epoch(task, tmp_path):
    metrics = weighted(task, tmp_path).to("meta")  # has no values to read
    labels = torch.ones((8, 2) if task == "multilabel" else 8, dtype=torch.int64 if task == "binary" else None, device="meta")
    for _ in range(200):
        metrics.add(torch.rand(8, device="meta"), torch.rand(8, TASKS[task], device="meta"), labels, torch.rand(8, device="meta"))


@pytest.mark.parametrize("at_once", [1 << 24, 50], ids=["once an epoch", "often"])
def test_rows_of_weight_0_do_not_count_in_the_users_metrics(at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(pytorch_metrics, "_VALUES_SELECTED_AT_ONCE", at_once)
    metrics = weighted("binary", tmp_path)
    torch.manual_seed(0)
    output, labels, weights = torch.randn(200, 8, 1), torch.randint(0, 2, (200, 8)), torch.randint(0, 3, (200, 8)).float()
    weights[:70] = 0.0
    for batch in zip(torch.rand(200, 8), output, labels, weights, strict=True):
        metrics.add(*batch)
    distances = (output[..., 0].sigmoid() - labels).abs()
    for _ in range(2):
        assert metrics.result()["distance"] == pytest.approx(float(distances[weights > 0].mean()), abs=1e-6)
        metrics.add(torch.rand(8), output[-1], labels[-1], weights[-1])
        distances, weights = distances[-1], weights[-1]


def test_a_metric_of_the_users_may_have_the_name_of_a_method_of_a_module(tmp_path):
    own = Hooks(build_metrics=lambda spec: {"type": torchmetrics.MeanAbsoluteError()})
    metrics = Metrics(request([examples("regression", 8, 0)] * 2, tmp_path, "regression", hooks=own), prefix="")
    metrics.add(torch.rand(8), torch.ones(8, 1), torch.zeros(8))
    assert metrics.to("cpu").result()["type"] == 1.0
    assert any(isinstance(part, torchmetrics.Metric) for part in metrics.modules()), "it moves to a device"
