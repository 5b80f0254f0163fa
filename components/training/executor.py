"""The training stage's executor: builds the request, runs the trainer, writes the bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf
import tensorflow_transform as tft
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from switchyard.components.artifacts import DIVERGED
from switchyard.components.bundle.code import bundled_code
from switchyard.components.bundle.model import BundleInfo, RawFeature, bundle_path
from switchyard.components.bundle.rows import to_frame
from switchyard.components.bundle.writer import raw_features, save_bundle
from switchyard.components.data.summary import FILE as DATASET
from switchyard.components.data.summary import DatasetSummary, split_files
from switchyard.components.progress import say, warn
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.environment import keep_environment
from switchyard.components.tracking.manifest import keep_digest
from switchyard.components.training.beside import Beside
from switchyard.components.training.contract import TrainResult
from switchyard.components.training.hooks import OF_OWN_TRAINING, may_train_itself, replaced
from switchyard.components.training.inputs import local_columns, local_start, local_summary, local_tokenizer
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.ledger import TrainingLedger, diverged
from switchyard.components.training.settings import TrainerSettings
from switchyard.components.training.start import STARTED_FROM, Origin
from switchyard.components.training.trainers import TRAINERS, trainer_class
from switchyard.components.training.tuned import best_values, with_values
from switchyard.components.training.vocabularies import FILE as VOCABULARIES
from switchyard.components.training.workers.group import train
from switchyard.components.user_code.tokenizer import load_tokenizer

KEPT_ROWS = 16
RESULT = "result.json"
# Key in `RESULT` beside the TrainResult's fields: hyperparameter -> value found by the tuning stage.
TUNED = "tuned"


class Executor(base_executor.BaseExecutor):
    """The training executor: reads raw and transformed examples and their metadata, writes `model` (bundle) and `model_run`."""

    def __init__(self, context: base_executor.BaseExecutor.Context) -> None:
        super().__init__(context)
        # The runner keeps this folder between a killed run and the next one with the same inputs and settings.
        self._state = Path(context.stateful_working_dir)

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class."""
        settings = TrainerSettings.model_validate_json(exec_properties["settings"])
        framework = settings.framework
        # Built-in trainers are not imported here: PyTorch is imported only in the training process.
        own = None if framework in TRAINERS else trainer_class(framework)
        trainer = own.name if own else framework
        best = input_dict.get("best_hyperparameters")
        tuned = best_values(artifact_utils.get_single_uri(best)) if best else {}
        if tuned:
            settings = _tuned(settings, tuned, trainer)
        graph_uri, examples_uri, transformed = (
            artifact_utils.get_single_uri(input_dict[key]) for key in ("transform_graph", "examples", "transformed_examples")
        )
        model = artifact_utils.get_single_instance(output_dict["model"])
        summary = DatasetSummary.load(examples_uri)
        state = self._state
        job = TrainingJob(
            settings=settings,
            examples=local_summary(summary, state),
            transformed_examples=local_columns(transformed, state),
            state=str(state),
            start=local_start(input_dict, state),
        )
        origin = Origin.load(job.start) if job.start else None
        tokenizer = local_tokenizer(transformed, state)
        if tokenizer:
            load_tokenizer(tokenizer)  # before the training, which would be in vain
        if origin:
            _track_origin(origin)
        result = _train(trainer, job)
        run_folder = Path(artifact_utils.get_single_uri(output_dict["model_run"]))
        run_folder.mkdir(parents=True, exist_ok=True)
        (run_folder / RESULT).write_text(json.dumps({**asdict(result), TUNED: tuned}, indent=1), encoding="utf-8")
        features = raw_features(tft.TFTransformOutput(graph_uri).raw_feature_spec(), summary)
        predictor, code = bundled_code(framework, own)
        info = BundleInfo(
            framework=trainer,
            predictor=predictor,
            task=summary.task,
            label=summary.label,
            classes=list(summary.classes),
            targets=list(summary.targets),
            output_shape=list(summary.output_shape),
            features=features,
            sample_weight=summary.sample_weight,
            user_code=settings.own_preprocessing or settings.code is not None or bool(code),
            tokenizer=tokenizer is not None,
        )
        digest = save_bundle(
            bundle_path(model.uri),
            info=info,
            transform_graph=graph_uri,
            export_dir=job.export_dir,
            rows=raw_rows(examples_uri, "eval", features, KEPT_ROWS),
            code=code,
            data=_training_data(input_dict, state, Path(job.transformed_examples)),
            tokenizer=tokenizer,
            dependencies=settings.dependencies,
        )
        model.set_string_custom_property("framework", trainer)
        if origin and origin.version:
            for key, value in origin.tags.items():
                model.set_string_custom_property(key, value)
        why = diverged(job.loss.name, len(summary.classes), result.metrics)
        model.set_string_custom_property(DIVERGED, why)
        if why:
            warn(why)
        keep_digest(model, digest)
        keep_environment(model)


def _tuned(settings: TrainerSettings, values: dict[str, Any], trainer: str) -> TrainerSettings:
    tracking.current_run(parent=True).tags({f"tuned.{trainer}": json.dumps(values)})
    say("with " + ", ".join(f"{name} {value}" for name, value in values.items()))
    return with_values(settings, values)


def _track_origin(origin: Origin) -> None:
    tracking.current_run().params({STARTED_FROM: origin.lineage})
    tracking.current_run().tags(origin.tags)


def _training_data(input_dict: Any, folder: Path, transformed: Path) -> dict[str, Path]:
    """Returns the files that later data is compared with, see `components.bundle.model.training_data`."""
    words = transformed / VOCABULARIES
    return {
        # Of examples that an older version transformed there is none.
        **({VOCABULARIES: words} if words.is_file() else {}),
        "statistics.pb": Path(artifact_utils.get_single_uri(input_dict["statistics"])) / "Split-train" / "FeatureStats.pb",
        "schema.pbtxt": Path(artifact_utils.get_single_uri(input_dict["schema"])) / "schema.pbtxt",
        DATASET: folder / DATASET,
    }


def _train(trainer: str, job: TrainingJob) -> TrainResult:
    hyper, accelerator = job.hyperparameters, job.accelerator
    run = tracking.current_run()
    dropped = replaced(tuple(job.hooks))
    code = job.settings.code
    # Known after the training, where the model may have one of its own.
    later = OF_OWN_TRAINING if may_train_itself(code.path if code else None) else ()
    configured = {**hyper.used(), "loss": job.loss.name, **{f"loss.{name}": value for name, value in job.loss.parameters.items()}}
    configured = {k: v for k, v in configured.items() if k not in dropped}
    used = {k: v for k, v in configured.items() if k.partition(".")[0] not in later}
    names = {hook.removeprefix("build_"): function for hook, function in job.hooks.items()}
    run.params({"framework": trainer, **used, **names})
    if dropped:
        say(f"{', '.join(names.values())}: in place of {', '.join(dropped)}")
    if job.settings.freeze:
        run.params({"freeze": ", ".join(job.settings.freeze)})
    if job.settings.initialize:
        run.params({"initialize": ", ".join(job.settings.initialize)})
    if job.settings.sample_weight:
        run.params({"sample_weight": job.settings.sample_weight})
    devices = {"accelerator": accelerator.kind, "workers": accelerator.workers}
    run.params({**devices, "precision": accelerator.precision, "deterministic": accelerator.deterministic})

    done = TrainingLedger.open(job.checkpoint_dir, hyper).epochs
    if done:
        warn(f"an earlier run was interrupted: training resumes after epoch {done}")
    with Beside() as writer:
        result = train(job, _Reporter(run, hyper.epochs, done, writer))
    run.tags({"device": result.device, "resumed_from_epoch": str(result.resumed_from_epoch)})
    waiting = {k: v for k, v in configured.items() if k not in used}
    run.params({"trainable_weights": result.parameters, **(result.used or waiting)})
    if result.used:
        say(f"the model has a training of its own: {', '.join(f'{name} {value}' for name, value in result.used.items())}")
    run.metrics({"best_epoch": float(result.best_epoch), "best_val_loss": result.metrics["val_loss"]}, step=result.epochs)
    return result


class _Reporter:
    """A per-epoch report of a trainer's metrics to the terminal, and beside the next epoch to MLflow."""

    def __init__(self, run: tracking.Run, epochs: int, done: int, writer: Beside) -> None:
        self._run, self._epochs, self._epoch, self._writer = run, epochs, done, writer

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        self._epoch += 1
        self._writer.submit(partial(self._run.metrics, {**metrics, "steps": float(step)}, step=self._epoch))
        shown = ", ".join(f"{k} {v:.4f}" for k, v in metrics.items() if k.startswith("val_"))
        say(f"epoch {self._epoch} of {self._epochs}, {shown}")


def raw_rows(examples_uri: str, split: str, features: list[RawFeature], count: int) -> pd.DataFrame:
    """Returns the first rows of a split as a DataFrame in the bundle's input format."""
    records = [r.numpy() for r in tf.data.TFRecordDataset(split_files(examples_uri, split)).take(count)]
    return to_frame(records, features)
