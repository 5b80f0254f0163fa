"""Runs the hyperparameter search: Optuna samples, trials train, MLflow records. A killed search resumes from disk."""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from switchyard.components.errors import TrainingError, UserError
from switchyard.components.metrics import direction
from switchyard.components.progress import say, warn
from switchyard.components.text.escaping import sqlite_uri
from switchyard.components.tracking import run as tracking
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.ledger import TrainingLedger
from switchyard.components.training.names import MODEL_PARAMETER, TREE_PARAMETER
from switchyard.components.training.settings import TrainerSettings
from switchyard.components.training.tuned import with_values
from switchyard.components.tuning.config import Dimension, TuneConfig
from switchyard.components.tuning.results import TrialResult, TuningResult
from switchyard.components.tuning.trial_runner import TrialRunner

# Keys of a trial's user attributes.
WHY, BEST_EPOCH, SECONDS, FOLDER = "why", "best_epoch", "seconds", "folder"
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
_STARTUP_TRIALS = 5
_LEAST_FOR_IMPORTANCE = 4
_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Inputs:
    """The inputs of every trial: settings of the training stage and folders, see `TrainingJob`."""

    settings: TrainerSettings
    examples: str
    transformed_examples: str
    start: str | None = None


class Search:
    """A hyperparameter search, stored as an Optuna study."""

    def __init__(self, tune: TuneConfig, inputs: Inputs, folder: Path) -> None:
        self._tune, self._inputs, self._folder = tune, inputs, folder
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS) if tune.pruner else optuna.pruners.NopPruner()
        self.study = optuna.create_study(
            study_name="tuning",
            # SQLite's transactions instead of Optuna's journal file, which a truncated line (full disk, kill) corrupts.
            storage=RDBStorage(sqlite_uri(folder / "study.db"), engine_kwargs={"connect_args": {"timeout": _PATIENCE_SECONDS}}),
            sampler=_sampler(tune),
            pruner=pruner,
            direction="maximize" if direction(tune.metric) > 0 else "minimize",
            load_if_exists=True,
        )
        # Serializes calls to Optuna: on SQLite two threads may receive the same trial.
        self._lock = threading.Lock()
        self._started = 0
        self._stop: Exception | None = None

    def run(self, trials: TrialRunner) -> None:
        """Runs the remaining trials.

        Raises:
            UserError: the user's code or settings are wrong.
            TrainingError: no trial completed.
        """
        self._resume()
        left = self._tune.trials - len(self.finished)
        minutes = self._tune.minutes
        deadline = time.monotonic() + minutes * 60 if minutes else math.inf
        with ThreadPoolExecutor(trials.processes, thread_name_prefix="trial") as pool:
            for each in [pool.submit(self._work, trials, left, deadline) for _ in range(trials.processes)]:
                each.result()
        if self._stop:
            raise self._stop
        if not any(t.state == TrialState.COMPLETE for t in self.finished):
            why = next((t.user_attrs[WHY] for t in self.finished if WHY in t.user_attrs), "no trial started in time")
            count = len(self.finished)
            # The next run starts over, as the cause may be temporary, such as a lack of memory.
            shutil.rmtree(self._folder)
            raise TrainingError(f"tuning: all {count} trials failed. The first: {why}")

    def _work(self, trials: TrialRunner, left: int, deadline: float) -> None:
        """Runs trials one after the other; several threads do so in parallel."""
        while True:
            with self._lock:
                if self._stop or self._started >= left or time.monotonic() > deadline:
                    return
                self._started += 1
                trial = self.study.ask()
                values = {name: suggest(trial, name, dimension) for name, dimension in self._tune.space.items()}
                folder = trial.user_attrs.get(FOLDER, str(trial.number))
                trial.set_user_attr(FOLDER, folder)
            try:
                self._run(trial, values, folder, trials)
            except Exception as error:
                # Errors that reach this point affect every trial.
                with self._lock:
                    self._stop = self._stop or error

    @property
    def finished(self) -> list[FrozenTrial]:
        """The finished trials, in order; without those interrupted by a kill."""
        return [t for t in self.study.get_trials(deepcopy=False) if t.state in _COUNTED or WHY in t.user_attrs]

    def result(self) -> TuningResult:
        """Returns the search's result; requires a complete trial."""
        best = self.study.best_trial
        trials = [_described(t) for t in self.finished]
        return TuningResult(self._tune.metric, best.number + 1, dict(best.params), self._importance(), trials)

    def _importance(self) -> dict[str, float]:
        complete = [t for t in self.finished if t.state == TrialState.COMPLETE]
        if len(complete) < _LEAST_FOR_IMPORTANCE or len({t.value for t in complete}) == 1:
            return {}
        try:
            # Optuna's default, PED-ANOVA, compares the best tenth with all trials: with ten trials that is a single one.
            found = get_param_importances(self.study, evaluator=FanovaImportanceEvaluator(seed=self._tune.seed))
            return {k: float(v) for k, v in found.items()}
        except (ValueError, RuntimeError) as error:
            warn(f"the importance of the hyperparameters cannot be computed: {error}")
            return {}

    def _resume(self) -> None:
        """Requeues interrupted trials with their values and checkpoints; starts a new study with the config's values."""
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
                # The same folder, so that the new trial resumes from the checkpoints.
                self.study.enqueue_trial(trial.params, user_attrs={FOLDER: trial.user_attrs.get(FOLDER, str(trial.number))})
        if self.finished:
            warn(f"an earlier search was interrupted: it resumes after {len(self.finished)} of {self._tune.trials} trials")
        if not trials:
            self.study.enqueue_trial(self._configured(), skip_if_exists=True)

    def _configured(self) -> dict[str, Any]:
        """Returns the config's own values that are in the space, so that the search also tries the user's settings."""
        settings = self._inputs.settings
        found = {}
        for name, dimension in self._tune.space.items():
            if name.startswith(MODEL_PARAMETER):
                value = settings.model_parameters.get(name.removeprefix(MODEL_PARAMETER))
            elif name.startswith(TREE_PARAMETER):
                value = getattr(settings.trees, name.removeprefix(TREE_PARAMETER), None)
            else:
                value = getattr(settings.hyperparameters, name)
            if dimension.holds(value):
                found[name] = value
        return found

    def _run(self, trial: optuna.Trial, values: Mapping[str, Any], folder: str, trials: TrialRunner) -> None:
        started = time.monotonic()
        run = tracking.nested(f"trial {trial.number + 1}", {"switchyard.stage": "trial"})
        run.params(values)
        metric, epoch, last = self._tune.metric, 0, 0

        def record(metrics: Mapping[str, float]) -> None:
            nonlocal epoch
            epoch += 1
            if metric not in metrics:
                raise UserError(f"tune.metric: the trainer reports no {metric!r}; it reports {', '.join(metrics)}")
            run.metrics(metrics, step=epoch)
            with self._lock:
                trial.report(metrics[metric], epoch)

        def report(step: int, metrics: Mapping[str, float]) -> bool:
            record(metrics)
            with self._lock:
                # A trial that has reached its last epoch is complete, whatever its value.
                return epoch != last and trial.should_prune()

        result, why = None, ""
        try:
            job = self._job(values, folder)
            hyper = job.hyperparameters
            last = hyper.epochs
            # Of an interrupted trial the trainer reports only the epochs after its checkpoint.
            for metrics in TrainingLedger.open(job.checkpoint_dir, hyper).history:
                record(metrics)
            result = trials.run(job, report)
        except TrainingError as error:
            why = str(error)
        except BaseException:
            run.end("FAILED")
            raise
        if result is not None:
            value = float(result["metrics"][metric])
            state, outcome = "complete", f"{metric} {value:.4f}"
            run.metrics({metric: value}, step=result["epochs"] + 1)
        else:
            state, outcome = ("failed", f"failed: {why}") if why else ("pruned", f"pruned after epoch {epoch}")
        run.tags({"switchyard.trial": state, **({"switchyard.error": why} if why else {})})
        run.end("FAILED" if why else "FINISHED")
        with self._lock:
            trial.set_user_attr(SECONDS, round(time.monotonic() - started, 2))
            if result is not None:
                trial.set_user_attr(BEST_EPOCH, result["best_epoch"])
                self.study.tell(trial, value)
            elif why:
                trial.set_user_attr(WHY, why)
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, state=TrialState.PRUNED)
            done = len(self.finished)
        shutil.rmtree(self._folder / "trials" / folder, ignore_errors=True)
        say(f"trial {trial.number + 1} ({_words(values)}): {outcome}; {done} of {self._tune.trials} done")

    def _job(self, values: Mapping[str, Any], folder: str) -> TrainingJob:
        return TrainingJob(
            settings=with_values(self._inputs.settings, values),
            examples=self._inputs.examples,
            transformed_examples=self._inputs.transformed_examples,
            state=str(self._folder / "trials" / folder),
            start=self._inputs.start,
        )


def _described(trial: FrozenTrial) -> TrialResult:
    epochs = len(trial.intermediate_values)
    value = trial.value if trial.state == TrialState.COMPLETE else trial.intermediate_values.get(epochs)
    failed = trial.state == TrialState.FAIL
    return TrialResult(
        number=trial.number + 1,
        state={TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}.get(trial.state, "failed"),
        values=dict(trial.params),
        value=None if failed else value,
        epochs=epochs,
        best_epoch=trial.user_attrs.get(BEST_EPOCH),
        seconds=trial.user_attrs.get(SECONDS, 0.0),
        why=trial.user_attrs.get(WHY, ""),
    )


def suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> Any:
    """Returns Optuna's suggested value for a dimension."""
    if dimension.choices is not None:
        return trial.suggest_categorical(name, dimension.choices)
    low, high = dimension.range
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, step=int(dimension.step or 1), log=dimension.log)
    return trial.suggest_float(name, low, high, step=dimension.step, log=dimension.log)


def _sampler(tune: TuneConfig) -> BaseSampler:
    if tune.sampler == "random":
        return RandomSampler(seed=tune.seed)
    return TPESampler(seed=tune.seed, n_startup_trials=_STARTUP_TRIALS)


def _words(values: Mapping[str, Any]) -> str:
    shown = {k.removeprefix(MODEL_PARAMETER): f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in values.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())
