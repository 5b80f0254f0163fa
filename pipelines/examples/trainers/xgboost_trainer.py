"""XGBoost as a trainer of your own: `trainer: {framework: "xgboost_trainer.py:XgboostTrainer"}` (pip install xgboost-cpu).

A round is an epoch. The model is stored in UBJSON, XGBoost's binary JSON. Reads `trainer.trees`, as the framework lightgbm does.
"""

import json
import os

import numpy as np
import xgboost

from switchyard import Trainer, TrainingLedger, Trees, UserError, epoch_metrics

OBJECTIVES = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}
SUFFIX = ".ubj"


class XgboostTrainer(Trainer):
    name = "xgboost"
    boosts_trees = True
    supports = frozenset({"class_weights", "early_stopping", "sample_weight"})

    def available_devices(self):
        return {"cpu": os.cpu_count() or 1}

    def fit(self, request, report):
        hyper, spec = request.hyperparameters, request.spec
        if spec.task not in OBJECTIVES:
            raise UserError(f"task: xgboost trains {', '.join(OBJECTIVES)} here, received {spec.task!r}; use another framework")
        names = [feature.name for feature in spec.features]
        train, labels, weights = matrix(request.train, names)
        held, held_labels, held_weights = matrix(request.eval, names)
        if hyper.class_weights:
            weights = np.asarray(hyper.class_weights)[labels] * (1 if weights is None else weights)
        if weights is not None:
            train.set_weight(weights)
        weighted = request.train.weighted  # by trainer.sample_weight
        ledger = TrainingLedger.open(request.checkpoint_dir, hyper)  # history, best round, early stopping, resuming
        model_file = str(ledger.last(SUFFIX)) if ledger.epochs else None
        booster = xgboost.Booster(parameters(hyper, spec, ledger.epochs), [train, held], model_file=model_file)
        while not ledger.finished:
            booster.update(train, ledger.epochs)
            metrics = {}
            for prefix, data, of, each in (("", train, labels, weights), ("val_", held, held_labels, held_weights)):
                scores = predict(booster, data, spec.outputs)
                metrics |= epoch_metrics(spec.task, scores, of, prefix=prefix, weights=each, weighted=weighted)
            ledger.record(ledger.epochs + 1, metrics)
            report(ledger.steps, ledger.history[-1])
            booster.save_model(ledger.last(SUFFIX))
            ledger.save()
        booster = xgboost.Booster(model_file=str(ledger.last(SUFFIX)))
        booster[: ledger.best_epoch].save_model(request.export_dir / f"model{SUFFIX}")
        (request.export_dir / "model.json").write_text(json.dumps({"names": names, "outputs": spec.outputs}))
        return ledger.result(parameters=len(booster.get_dump()), device="cpu")

    @classmethod
    def load_predictor(cls, export_dir):
        booster = xgboost.Booster(model_file=str(export_dir / f"model{SUFFIX}"))
        about = json.loads((export_dir / "model.json").read_text())
        return lambda features: predict(booster, xgboost.DMatrix(table(features, about["names"])), about["outputs"])


def table(features, names):
    """Returns all features side by side, shape (B, columns)."""
    rows = len(features[names[0]])
    return np.concatenate([features[name].reshape(rows, -1) for name in names], axis=1, dtype=np.float32)


def matrix(source, names):
    """Returns a split as XGBoost's table, its labels and its weights (None without any)."""
    features, labels, *weights = next(iter(source.batches(source.rows)))
    return xgboost.DMatrix(table(features, names), labels), labels, weights[0] if weights else None


def predict(booster, rows, outputs):
    return booster.predict(rows).reshape(rows.num_row(), outputs)


def parameters(hyper, spec, done):
    trees = hyper.trees or Trees()
    return {
        "objective": OBJECTIVES[spec.task],
        **({"num_class": spec.outputs} if spec.task == "multiclass" else {}),
        "eta": hyper.learning_rate,
        "grow_policy": "lossguide",
        "max_leaves": trees.leaves,
        "max_depth": trees.depth or 0,
        # Its nearest to a number of rows: the sum of the second derivatives in a leaf.
        "min_child_weight": trees.min_leaf_rows * (1 if spec.task == "regression" else 0.05),
        "subsample": trees.row_share,
        "colsample_bytree": trees.feature_share,
        "alpha": trees.l1,
        "lambda": trees.l2,
        # XGBoost begins its random numbers anew when it resumes: it would draw the rows of the first rounds again.
        "seed": hyper.seed + done,
        "disable_default_eval_metric": True,
    }
