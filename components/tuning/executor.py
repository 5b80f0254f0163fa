"""The tuning stage's executor: runs one trainer's search and writes the best values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.tracking import run as tracking
from switchyard.components.training.inputs import local_columns, local_start, local_summary
from switchyard.components.training.settings import TrainerSettings
from switchyard.components.tuning.config import TuningSettings
from switchyard.components.tuning.page import tuning_page
from switchyard.components.tuning.results import PAGE, TRIALS, TuningResult
from switchyard.components.tuning.search import Inputs, Search
from switchyard.components.tuning.trial_runner import trial_runner

_LOG = "trials.log"


class Executor(base_executor.BaseExecutor):
    """The tuning executor: reads the dataset summary and transformed examples, writes `best_hyperparameters`."""

    def __init__(self, context: base_executor.BaseExecutor.Context) -> None:
        super().__init__(context)
        # The runner keeps this folder between a killed run and the next one with the same inputs and settings.
        self._state = Path(context.stateful_working_dir)

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class. Runs no TensorFlow operation in this process, to leave the devices to the trials."""
        settings = TrainerSettings.model_validate_json(exec_properties["settings"])
        tune = TuningSettings.model_validate_json(exec_properties["tune"])
        state = self._state
        examples, transformed = (artifact_utils.get_single_uri(input_dict[key]) for key in ("examples", "transformed_examples"))
        start = local_start(input_dict, state)
        inputs = Inputs(settings, local_summary(DatasetSummary.load(examples), state), local_columns(transformed, state), start)
        search = Search(tune, inputs, state / "search")
        run = tracking.current_run()
        run.params(tune.model_dump(mode="json", exclude={"space"}, exclude_none=True))
        space = {name: dimension.model_dump(mode="json") for name, dimension in tune.space.items()}
        run.text(json.dumps(space, indent=1), "tuning/space.json")
        with trial_runner(min(tune.parallel, tune.trials), settings.framework, state / _LOG) as trials:
            search.run(trials)
        result = search.result()
        folder = Path(artifact_utils.get_single_uri(output_dict["best_hyperparameters"]))
        result.save(folder)
        (folder / PAGE).write_text(tuning_page(settings.framework, result), encoding="utf-8")
        _track(run, result, folder, state / _LOG)


def _track(run: tracking.Run, result: TuningResult, folder: Path, log: Path) -> None:
    best = result.best_trial
    run.metrics(
        {f"best_{result.metric}": best.value or 0.0, "best_trial": float(best.number), "trials": float(len(result.trials))}
    )
    run.tags({"best_trial": str(best.number), **{f"best.{name}": str(value) for name, value in result.values.items()}})
    if result.importance:
        run.metrics({f"importance.{name}": share for name, share in result.importance.items()})
    names = list(best.values)
    columns: dict[str, list[Any]] = {
        "trial": [t.number for t in result.trials],
        "state": [t.state for t in result.trials],
        result.metric: [t.value for t in result.trials],
        **{name: [t.values.get(name) for t in result.trials] for name in names},
        "epochs": [t.epochs for t in result.trials],
        "seconds": [t.seconds for t in result.trials],
    }
    run.table(columns, "tuning/trials_table.json")
    for file in (folder / PAGE, folder / TRIALS, log):
        run.file(str(file), "tuning")
