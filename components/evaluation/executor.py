"""The evaluation stage's executor: predictions in Beam, TFMA, blessing, one readable `metrics.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components import tracking
from components.dataset import DatasetSummary
from components.errors import UserError, did_you_mean
from components.evaluation.metric_names import METRICS, check_names
from components.evaluation.metrics import default_thresholds, eval_config
from components.evaluation.predictions import Predict, column_values, encode_labels
from components.evaluation.results import Evaluation, read_evaluation
from components.progress import say, warn
from components.reports.evaluation import evaluation_html

BATCH = 1024


class Executor(base_beam_executor.BaseBeamExecutor):
    """`examples` (raw) and `model` in; `evaluation` (TFMA's files and `metrics.json`) and `blessing` out."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class."""
        settings = json.loads(exec_properties["settings"])
        examples_uri = artifact_utils.get_single_uri(input_dict["examples"])
        model = artifact_utils.get_single_instance(input_dict["model"])
        output = artifact_utils.get_single_uri(output_dict["evaluation"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        summary = DatasetSummary.load(examples_uri)
        check_names(list(settings["thresholds"]), summary.task)
        check_slices(settings["slices"], summary)
        files = sorted(tf.io.gfile.glob(os.path.join(examples_uri, "Split-eval", "*")))
        thresholds = settings["thresholds"] or default_thresholds(summary.task, read_labels(files, summary))
        config = eval_config(summary.task, settings["slices"], thresholds)
        say(f"{summary.rows['eval']:,} rows, {len(settings['slices'])} slicings")
        self._evaluate(files, os.path.join(model.uri, "Format-Serving"), settings["slices"], config, output)
        result = read_evaluation(output, list(METRICS[summary.task]), thresholds)
        result.save(output)
        _bless(blessing, model, result)
        _track(result, output, summary)

    def _evaluate(
        self, files: list[str], bundle: str, slices: Sequence[Sequence[str]], config: config_pb2.EvalConfig, output: str
    ) -> None:
        features = sorted({f for group in slices for f in group})
        model = tfma.types.EvalSharedModel(model_name="candidate", model_path=bundle, model_type="switchyard_bundle")
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Files" >> beam.Create(files)
                | "Read" >> beam.io.ReadAllFromTFRecord()
                | "Batch" >> beam.BatchElements(min_batch_size=BATCH, max_batch_size=BATCH)
                | "Predict" >> beam.ParDo(Predict(bundle, features))
                | "Evaluate"
                >> tfma.ExtractEvaluateAndWriteResults(
                    eval_shared_model=model,
                    eval_config=config,
                    extractors=[tfma.extractors.SliceKeyExtractor(eval_config=config)],
                    output_path=output,
                )
            )


def read_labels(files: list[str], summary: DatasetSummary) -> np.ndarray:
    """Returns the encoded labels of TFRecord files, float64 (n,)."""
    decoder = ExamplesToRecordBatchDecoder()
    parts = []
    for batch in tf.data.TFRecordDataset(files).batch(BATCH).as_numpy_iterator():
        values = column_values(decoder.DecodeBatch(list(batch)), summary.label, wide=False)
        parts.append(encode_labels(values, summary.classes))
    return np.concatenate(parts)


def check_slices(slices: Sequence[Sequence[str]], summary: DatasetSummary) -> None:
    """Raises UserError for a slice by a column that is not there."""
    for name in {f for group in slices for f in group}:
        if name not in summary.columns:
            raise UserError(
                f"evaluation.slices: there is no column {name!r}.{did_you_mean(name, summary.columns)} "
                f"Columns: {', '.join(summary.columns)}."
            )


def _bless(blessing: Any, model: Any, result: Evaluation) -> None:
    # The same files and properties as TFX's Evaluator leaves, so that TFX's Pusher and resolvers understand them.
    os.makedirs(blessing.uri, exist_ok=True)
    name = "BLESSED" if result.blessed else "NOT_BLESSED"
    with open(os.path.join(blessing.uri, name), "w", encoding="utf-8"):
        pass
    blessing.set_int_custom_property("blessed", int(result.blessed))
    blessing.set_string_custom_property("current_model", model.uri)
    blessing.set_int_custom_property("current_model_id", model.id)
    for failure in result.failures:
        warn(failure)


def _track(result: Evaluation, output: str, summary: DatasetSummary) -> None:
    run = tracking.ambient()
    run.metrics(result.metrics)
    run.tags({"blessed": str(result.blessed).lower()})
    page = os.path.join(output, "evaluation.html")
    with open(page, "w", encoding="utf-8") as file:
        file.write(evaluation_html(result, summary))
    run.file(page, "evaluation")
    run.file(os.path.join(output, "metrics.json"), "evaluation")
