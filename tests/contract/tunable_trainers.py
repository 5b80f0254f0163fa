"""A trainer with a known optimum for searches: it reports a formula of its hyperparameters."""

import json
import math
import os
import time
from pathlib import Path

import numpy as np

from switchyard.components.errors import TrainingError, UserError
from switchyard.components.training.contract import Trainer, TrainResult


class BowlTrainer(Trainer):
    """`val_loss` is 0.1 + (log10(learning_rate) + 2)^2 / 10, falling to it over the epochs; `width` hardly matters."""

    name = "bowl"

    def available_devices(self):
        return {"cpu": 1}

    def fit(self, request, report):
        hyper, own = request.hyperparameters, request.spec.parameters
        if own.get("how") == "crash":
            os._exit(7)
        if own.get("how") == "diverge":
            raise TrainingError("training diverged: loss is nan in epoch 1")
        if own.get("how") == "typo":
            raise UserError("trainer.model: build_model failed: model.py, line 3: NameError: name 'widht' is not defined")
        loss = 0.1 + (math.log10(hyper.learning_rate) + 2) ** 2 / 10 + own.get("width", 0) * 1e-6
        history = []
        for epoch in range(1, hyper.epochs + 1):
            time.sleep(own.get("seconds", 0))
            history.append({"loss": loss, "val_loss": loss + 1 / epoch})
            report(epoch, history[-1])
        (request.export_dir / "model.json").write_text(json.dumps(loss))
        return TrainResult(
            epochs=hyper.epochs,
            steps=hyper.epochs,
            best_epoch=hyper.epochs,
            metrics=history[-1],
            history=tuple(history),
            resumed_from_epoch=0,
            parameters=1,
            device="cpu",
        )

    @classmethod
    def load_predictor(cls, export_dir):
        assert (Path(export_dir) / "model.json").exists()

        def predict(features):
            first = next(iter(features.values()))
            # The larger the first column, the more probable: surely better than a trivial predictor of the example.
            return 1 / (1 + np.exp(-first.reshape(len(first), -1)[:, :1]))

        return predict
