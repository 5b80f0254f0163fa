"""The metrics that the PyTorch trainer counts by itself are torchmetrics'."""

import pytest
import torch
import torchmetrics

from switchyard.components.training.hooks import Hooks
from switchyard.components.training.pytorch import metrics as pytorch_metrics
from switchyard.components.training.pytorch.metrics import Metrics
from tests.training_inputs import TASKS, examples, request, sources


def weighted(task, folder):
    own = Hooks(build_metrics=lambda spec: {"distance": torchmetrics.MeanAbsoluteError()})
    return Metrics(request([examples(task, 400, 0, weighted=True)] * 2, folder, task, hooks=own), prefix="")


@pytest.mark.core
def test_the_auc_equals_torchmetrics_for_probabilities_on_its_thresholds(tmp_path):
    torch.manual_seed(0)
    metrics = Metrics(request(sources("binary"), tmp_path, "binary"), prefix="")
    reference = torchmetrics.classification.BinaryAUROC(thresholds=200)
    thresholds = torch.linspace(0, 1, 200)
    for rows in (1, 64, 5000):
        probabilities = torch.where(torch.rand(rows) < 0.5, torch.rand(rows), thresholds[torch.randint(0, 200, (rows,))])
        labels = torch.randint(0, 2, (rows,))
        ours = metrics.metrics["auc"]
        ours.update(probabilities, labels)
        reference.update(probabilities, labels)
        assert torch.equal(ours.confmat, reference.confmat)
    assert metrics.metrics["auc"].compute() == reference.compute()


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
    assert len(list(metrics.modules())) > 3, "all of them move to a device"
