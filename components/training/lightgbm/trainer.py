"""The LightGBM trainer: boosted trees. An epoch, like a step, is a boosting round, which adds a tree for each output."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from switchyard.components.errors import UserError
from switchyard.components.progress import say
from switchyard.components.tasks import BINARY, MULTICLASS, QUANTILE, REGRESSION
from switchyard.components.training.contract import Predictor, Report, Trainer, TrainRequest, TrainResult
from switchyard.components.training.epoch_metrics import epoch_metrics
from switchyard.components.training.hyperparameters import Hyperparameters, Trees
from switchyard.components.training.ledger import TrainingLedger, check_finite
from switchyard.components.training.lightgbm.columns import categorical, column_order, read
from switchyard.components.training.lightgbm.library import lightgbm
from switchyard.components.training.lightgbm.model_file import FILE, save_model
from switchyard.components.training.lightgbm.objectives import TASKS as WIDE
from switchyard.components.training.lightgbm.objectives import Objective, exported
from switchyard.components.training.lightgbm.predictor import LightgbmPredictor
from switchyard.components.training.lightgbm.quantiles import QuantileBoosters
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.positional import save_names

_OBJECTIVES = {name: name for name in (BINARY, MULTICLASS, REGRESSION, QUANTILE)}
_LAST = ".txt"
_LARGEST = float(np.finfo(np.float32).max)
# A checkpoint holds all trees so far; written every round, it would cost more than the trees.
_ROUNDS_BETWEEN_CHECKPOINTS = 0.05


class LightgbmTrainer(Trainer):
    """A trainer of boosted trees, exported in LightGBM's text format. Vocabulary indices are categories without an order."""

    name = "lightgbm"
    boosts_trees = True
    # Always deterministic, whatever the number of threads.
    supports = frozenset({"deterministic", "sample_weight", "class_weights", "early_stopping"})

    def available_devices(self) -> Mapping[str, int]:
        """See Trainer."""
        return {"cpu": os.cpu_count() or 1}

    def is_out_of_memory(self, error: Exception) -> bool:
        """See Trainer."""
        return isinstance(error, MemoryError) or "bad_alloc" in str(error)

    def fit(self, request: TrainRequest, report: Report) -> TrainResult:
        """See the base class."""
        hyper, spec = request.hyperparameters, request.spec
        if spec.task not in (*_OBJECTIVES, *WIDE):
            known = ", ".join((*_OBJECTIVES, *WIDE))
            raise UserError(f"task: lightgbm trains {known}, received {spec.task!r}; choose another framework")
        ledger = TrainingLedger.open(request.checkpoint_dir, hyper)
        ordered = column_order(request.train, spec.features)
        objective = None
        if spec.task in WIDE or not ledger.finished:
            rows, labels, weights = read(request.train, ordered)
            objective = Objective(spec.task, labels, weights) if spec.task in WIDE else None
        if not ledger.finished:
            several = spec.outputs if spec.task != QUANTILE else 1
            params = _parameters(hyper, objective or _OBJECTIVES[spec.task], several, ledger.epochs)
            before = ledger.last(_LAST) if ledger.epochs else None
            starts = [_scores(before, rows)] if before and spec.task == QUANTILE else []
            if hyper.class_weights:
                weights = np.asarray(hyper.class_weights)[labels] * (1.0 if weights is None else weights)
            # LightGBM has one column of labels; an objective of ours has all of them, and the weights.
            train = lightgbm.Dataset(
                rows,
                np.zeros(len(labels)) if objective else labels,
                weight=None if objective else weights,
                params=params,
                categorical_feature=categorical(ordered),
            )
            rows, held_labels, held_weights = read(request.eval, ordered)
            held = lightgbm.Dataset(
                rows, np.zeros(len(held_labels)) if objective else held_labels, reference=train, params=params
            )
            starts += [_scores(before, rows)] if before and starts else []
            del rows
            of_train, of_held = (labels, "", weights), (held_labels, "val_", held_weights)
            course = _Rounds(ledger, report, spec, objective, weighted=request.train.weighted)
            save: Callable[[Path], Any]
            if spec.task == QUANTILE:
                boosters = QuantileBoosters(params, spec.targets, train, held, (before, starts) if before else None)
                save = boosters.save
                course.grow(boosters, (of_train, of_held))
            else:
                course.trees = lightgbm.Booster(model_file=before).num_trees() if before else 0
                trained = lightgbm.train(
                    params,
                    train,
                    num_boost_round=hyper.epochs - ledger.epochs,
                    valid_sets=[train, held],
                    feval=lambda scores, data: course.measure(scores, *(of_train if data is train else of_held)),
                    callbacks=[course],
                    init_model=before,
                    keep_training_booster=True,
                )
                save = partial(trained.save_model, num_iteration=-1)
            course.end(save)
        booster = lightgbm.Booster(model_file=ledger.last(_LAST))
        best = booster.model_to_string(num_iteration=ledger.best_epoch)
        if objective:
            save_model(
                best, request.export_dir / FILE, objective=exported(spec.task, spec.outputs), start=objective.start.tolist()
            )
        else:
            save_model(best, request.export_dir / FILE)
        save_names(request.export_dir, [f.name for f in ordered])
        leaves = sum(int(line.removeprefix("num_leaves=")) for line in best.split("\n") if line.startswith("num_leaves="))
        return ledger.result(parameters=leaves, device=request.accelerator.kind)

    @classmethod
    def load_predictor(cls, export_dir: Path) -> Predictor:
        """See Trainer."""
        return LightgbmPredictor.load_predictor(export_dir)


class _Rounds:
    """A callback at the end of each round: measures, reports, writes the checkpoint, stops when the ledger is finished.

    A round that finds no split adds no tree and is none: it is neither recorded nor counted. Unless rounds draw rows or features,
    no later one finds a split.

    Attributes:
        trees: trees of the model so far.
    """

    def __init__(
        self, ledger: TrainingLedger, report: Report, spec: ModelSpec, objective: Objective | None, *, weighted: bool
    ) -> None:
        self._ledger, self._report, self._spec, self._weighted = ledger, report, spec, weighted
        self._objective = objective
        self._metrics: dict[str, float] = {}
        self._saved = ledger.epochs
        self.trees = 0

    def measure(
        self, scores: np.ndarray, labels: np.ndarray, prefix: str, weights: np.ndarray | None
    ) -> list[tuple[str, float, bool]]:
        """Measures a split; LightGBM itself needs no metric."""
        # Models serve float32, and LightGBM stops adding trees where its float32 gradients overflow.
        largest = float(np.abs(scores).max())
        check_finite(f"{prefix}loss", largest if largest < _LARGEST else math.inf, self._ledger.epochs + 1)
        scores = self._objective.scores(scores) if self._objective else scores.reshape(len(labels), -1)
        self._metrics |= epoch_metrics(
            self._spec.task,
            scores,
            labels,
            prefix=prefix,
            weights=weights,
            weighted=self._weighted,
            targets=self._spec.targets,
        )
        return []

    def __call__(self, environment: Any) -> None:
        before, self.trees = self.trees, environment.model.num_trees()
        if self.trees > before:
            self.end_round(partial(environment.model.save_model, num_iteration=-1))
        if self._ledger.finished or (self.trees == before and not _draws(self._ledger.hyperparameters)):
            raise lightgbm.callback.EarlyStopException(self._ledger.best_epoch - 1, [])

    def grow(self, boosters: QuantileBoosters, splits: Sequence[tuple[np.ndarray, str, np.ndarray | None]]) -> None:
        """Grows the boosters of quantiles round by round; `splits` are the arguments of `measure` for both."""
        for _ in range(self._ledger.hyperparameters.epochs - self._ledger.epochs):
            if boosters.update():
                for scores, of_split in zip(boosters.scores(), splits, strict=True):
                    self.measure(scores, *of_split)
                self.end_round(boosters.save)
            elif not _draws(self._ledger.hyperparameters):
                return
            if self._ledger.finished:
                return

    def end_round(self, save: Callable[[Path], Any]) -> None:
        """Records the round that was measured; `save` writes all trees to a file."""
        ledger = self._ledger
        ledger.record(ledger.epochs + 1, self._metrics)
        self._report(ledger.steps, ledger.history[-1])
        if ledger.finished or ledger.epochs - self._saved >= _ROUNDS_BETWEEN_CHECKPOINTS * ledger.epochs:
            self._checkpoint(save)

    def end(self, save: Callable[[Path], Any]) -> None:
        """Ends the training; `save` as of `end_round`. Fewer rounds than configured are said, unless they were stopped early."""
        ledger = self._ledger
        if not ledger.finished:
            say(f"no further split was found: {ledger.epochs} of {ledger.hyperparameters.epochs} rounds have trees")
            ledger.stopped = True
            self._checkpoint(save)

    def _checkpoint(self, save: Callable[[Path], Any]) -> None:
        path = self._ledger.last(_LAST)
        save(path.with_name(f"new_{path.name}"))
        os.replace(path.with_name(f"new_{path.name}"), path)
        self._ledger.save()
        self._saved = self._ledger.epochs


def _draws(hyper: Hyperparameters) -> bool:
    """Whether each round draws rows or features anew, so that one may find a split after one that found none."""
    trees = hyper.trees or Trees()
    return trees.row_share < 1 or trees.feature_share < 1


def _scores(model: Path, rows: np.ndarray) -> np.ndarray:
    """Returns the scores of a checkpoint without an objective, (B, outputs)."""
    scores = lightgbm.Booster(model_file=model).predict(rows)
    return np.asarray(scores, np.float64).reshape(len(rows), -1)


def _parameters(hyper: Hyperparameters, objective: str | Objective, outputs: int, done: int) -> dict[str, Any]:
    trees = hyper.trees or Trees()
    return {
        "objective": objective,
        **({"num_class": outputs} if outputs > 1 else {}),
        "metric": "none",
        "learning_rate": hyper.learning_rate,
        "num_leaves": trees.leaves,
        "max_depth": trees.depth or -1,
        "min_data_in_leaf": trees.min_leaf_rows,
        "bagging_fraction": trees.row_share,
        "bagging_freq": int(trees.row_share < 1),
        "feature_fraction": trees.feature_share,
        "lambda_l1": trees.l1,
        "lambda_l2": trees.l2,
        # LightGBM begins its random numbers anew when it resumes: it would draw the rows of the first rounds again.
        "seed": (hyper.seed + done) % (1 << 31),
        "deterministic": True,
        # Otherwise the layout is chosen by a measurement of time.
        "force_row_wise": True,
        "verbosity": -1,
    }
