"""The ensemble stage's executor: predicts the eval split with all members, finds their weights and writes the bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from switchyard.components.artifacts import DIVERGED, MEMBERS
from switchyard.components.bundle.model import bundle_path
from switchyard.components.bundle.writer import save_ensemble
from switchyard.components.data.summary import EVAL, DatasetSummary, split_files
from switchyard.components.data.tfrecords import read_batches
from switchyard.components.ensemble.config import EnsembleSettings
from switchyard.components.ensemble.weights import Weights, described, find_weights
from switchyard.components.errors import TrainingError, UserError
from switchyard.components.evaluation.batched_metrics import Batch
from switchyard.components.evaluation.predictions import Predict
from switchyard.components.progress import say, warn
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.environment import keep_environment
from switchyard.components.tracking.manifest import digest_of, keep_digest
from switchyard.components.training.executor import RESULT, TUNED
from switchyard.components.training.names import ENSEMBLE

# Key in `RESULT`: member -> weight.
WEIGHTS = "weights"


class Executor(base_executor.BaseExecutor):
    """The ensemble executor: reads raw `examples` and the `members`' bundles, writes `model` (bundle) and `model_run`."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class.

        Raises:
            UserError: there is no held-out split besides the one on which the weights are found.
            TrainingError: no member's predictions are finite.
        """
        settings = EnsembleSettings.model_validate_json(exec_properties["settings"])
        examples = artifact_utils.get_single_uri(input_dict["examples"])
        summary = DatasetSummary.load(examples)
        if summary.held_out == EVAL:
            raise UserError(
                "data.splits: the split test has no rows, and an ensemble is not judged on the split eval, on which its weights "
                f"are found; give it more rows, or remove {ENSEMBLE} from trainer.framework"
            )
        members = {m.get_string_custom_property("framework"): m for m in input_dict["members"]}
        found = _weights({n: (str(bundle_path(m.uri)), digest_of(m)) for n, m in members.items()}, examples, summary)
        used = {name: weight for name, weight in found.by_member.items() if weight}
        model = artifact_utils.get_single_instance(output_dict["model"])
        places = [(bundle_path(members[name].uri), weight) for name, weight in used.items()]
        digest = save_ensemble(bundle_path(model.uri), ENSEMBLE, places, settings.dependencies)
        run_folder = Path(artifact_utils.get_single_uri(output_dict["model_run"]))
        run_folder.mkdir(parents=True, exist_ok=True)
        result = {"history": [], TUNED: {}, WEIGHTS: found.by_member}
        (run_folder / RESULT).write_text(json.dumps(result, indent=1), encoding="utf-8")
        model.set_string_custom_property("framework", ENSEMBLE)
        model.set_string_custom_property(MEMBERS, described(found.by_member))
        diverged = [members[name].get_string_custom_property(DIVERGED) for name in used]
        model.set_string_custom_property(DIVERGED, diverged[0] if all(diverged) else "")
        keep_digest(model, digest)
        keep_environment(model)
        _track(found, summary)


def _weights(bundles: Mapping[str, tuple[str, str | None]], examples: str, summary: DatasetSummary) -> Weights:
    rows = _predicted(bundles, examples, summary)
    scores = {name: s for name, s in rows.predictions.items() if np.isfinite(s).all()}
    for name in bundles.keys() - scores.keys():
        warn(f"{name} has the weight 0: some of its predictions of the split {EVAL} are not finite numbers")
    if not scores:
        raise TrainingError(
            f"the ensemble has no member whose predictions of the split {EVAL} are finite numbers; try a lower "
            f"trainer.hyperparameters.learning_rate, or remove {ENSEMBLE} from trainer.framework"
        )
    found = find_weights(summary.task, rows.labels, scores, summary.targets, rows.weights)
    every = {name: found.by_member.get(name, 0.0) for name in bundles}
    return Weights(every, found.loss, found.losses)


def _predicted(bundles: Mapping[str, tuple[str, str | None]], examples: str, summary: DatasetSummary) -> Batch:
    """Returns labels, sample weights and the members' predictions of the eval split."""
    predict = Predict(bundles, [], summary)
    predict.setup()
    files = sorted(split_files(examples, EVAL))
    found = (out for file in files for batch in read_batches(file) for out in predict.process(batch))
    return Batch.joined([out for out in found if isinstance(out, Batch)])


def _track(found: Weights, summary: DatasetSummary) -> None:
    run = tracking.current_run()
    weights = {f"weight.{name}": weight for name, weight in found.by_member.items()}
    run.params({"framework": ENSEMBLE, "members": ", ".join(found.by_member), **weights})
    run.metrics({"val_loss": found.loss, **{f"val_loss.{name}": loss for name, loss in found.losses.items()}})
    best = min(found.losses, key=found.losses.__getitem__)
    on = f"loss on the {summary.rows[EVAL]:,} rows of {EVAL}"
    say(f"{described(found.by_member)}: {on} {found.loss:.4f}, {best}'s {found.losses[best]:.4f}")
