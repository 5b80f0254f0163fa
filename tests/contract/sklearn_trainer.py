"""A third trainer, written against the public contract only: logistic regression by scikit-learn's SGD."""

import json
from pathlib import Path

import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss, roc_auc_score

from switchyard import Trainer, TrainResult


class SklearnTrainer(Trainer):
    name = "sklearn"

    def available_devices(self):
        return {"cpu": 1}

    def fit(self, request, report):
        hyper = request.hyperparameters
        model = SGDClassifier(loss="log_loss", random_state=hyper.seed, learning_rate="constant", eta0=hyper.learning_rate)
        classes = np.arange(max(2, request.spec.outputs))
        history = []
        for epoch in range(hyper.epochs):
            for features, labels in request.train.batches(hyper.batch_size, seed=hyper.seed, epoch=epoch):
                model.partial_fit(flat(features), labels, classes=classes)
            history.append({**measure(model, request.train, ""), **measure(model, request.eval, "val_")})
            report((epoch + 1) * -(-request.train.rows // hyper.batch_size), history[-1])
        np.savez(request.export_dir / "model.npz", coefficients=model.coef_, intercept=model.intercept_)
        (request.export_dir / "outputs.json").write_text(json.dumps(request.spec.outputs))
        return TrainResult(
            epochs=hyper.epochs,
            steps=hyper.epochs * -(-request.train.rows // hyper.batch_size),
            best_epoch=hyper.epochs,
            metrics=history[-1],
            history=tuple(history),
            resumed_from_epoch=0,
            parameters=model.coef_.size + model.intercept_.size,
            device="cpu",
        )

    @classmethod
    def load_predictor(cls, export_dir):
        saved = np.load(Path(export_dir) / "model.npz", allow_pickle=False)
        outputs = json.loads((Path(export_dir) / "outputs.json").read_text())

        def predict(features):
            logits = flat(features) @ saved["coefficients"].T + saved["intercept"]
            scores = 1 / (1 + np.exp(-logits))
            return scores if outputs == 1 else scores / scores.sum(axis=1, keepdims=True)

        return predict


def flat(features):
    return np.concatenate([features[k].reshape(len(features[k]), -1) for k in sorted(features)], axis=1)


def measure(model, source, prefix):
    features, labels = next(iter(source.batches(source.rows)))
    scores = model.predict_proba(flat(features))
    found = {
        f"{prefix}loss": log_loss(labels, scores, labels=model.classes_),
        f"{prefix}accuracy": float((scores.argmax(axis=1) == labels).mean()),
    }
    if len(model.classes_) == 2:
        found[f"{prefix}auc"] = roc_auc_score(labels, scores[:, 1])
    return found
