"""The metrics that the PyTorch trainer counts by itself are torchmetrics'."""

import pytest
import torch
import torchmetrics

from switchyard.components.training.pytorch.metrics import Metrics
from tests.training_inputs import request, sources


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
