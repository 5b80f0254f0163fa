"""Predicts the held-out rows with all bundles and measures every slice: in a Beam pipeline, or in this process.

Both write the same files: the predictions as Parquet, and TFMA's metrics, plots and configuration.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet
import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf import json_format
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.writers import eval_config_writer
from tensorflow_model_analysis.writers import metrics_plots_and_validations_writer as tfma_writer

from switchyard.components.beam.in_memory import fit_in_memory
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data.tfrecords import ReadExamples, read_batches, with_numbers
from switchyard.components.evaluation.batched_metrics import Batch, MeasureBatches, measure
from switchyard.components.evaluation.predictions import ROWS, ChampionError, Predict, champion_failure, rows_schema
from switchyard.components.evaluation.tfma_config import eval_config
from switchyard.components.tasks import TASKS

PREDICTIONS = "predictions"
_ONE = "-00000-of-00001"


@dataclass(frozen=True)
class Measuring:
    """The measuring of bundles on the rows of a split.

    Attributes:
        files: TFRecord files of the split.
        bundles: model -> folder and digest.
        slices: lists of columns to slice by.
        summary: summary of the examples.
        measured: names to measure: the models, and `beside(name)` of candidates if the champion can judge only some rows.
        output: folder for all files.
    """

    files: Sequence[str]
    bundles: Mapping[str, tuple[str, str | None]]
    slices: Sequence[Sequence[str]]
    summary: DatasetSummary
    measured: Sequence[str]
    output: str

    def run(self, pipeline: Any) -> None:
        """Measures in this process if the rows fit into its memory, else in the Beam pipeline.

        Raises:
            ChampionError: the champion fails; `output` is empty then.
        """
        try:
            if fit_in_memory(self.files, pipeline.options):
                self.in_memory()
            else:
                self.in_pipeline(pipeline)
        except Exception as error:
            if (failure := champion_failure(error)) is None:
                raise
            shutil.rmtree(self.output)
            os.makedirs(self.output)
            raise ChampionError(failure) from error

    def in_pipeline(self, pipeline: Any) -> None:
        """Runs a Beam pipeline, which may distribute the rows."""
        config = self._config
        shared = [
            tfma.types.EvalSharedModel(model_name=name, model_path=path, model_type="switchyard_bundle")
            for name, (path, _) in self.bundles.items()
        ]
        with pipeline:
            predicted = (
                pipeline
                | "Examples" >> ReadExamples(self.files, numbered=self.summary.draws_clusters)
                | "Predict" >> beam.ParDo(self._predict).with_outputs(ROWS, main="batches")
            )
            _ = predicted[ROWS] | "Keep" >> beam.io.parquetio.WriteToParquetBatched(
                os.path.join(self.output, PREDICTIONS, "rows"),
                rows_schema(
                    list(self.bundles),
                    self._features,
                    several=TASKS[self.summary.task].wide_labels,
                    weighted=bool(self.summary.sample_weight),
                    windows=self.summary.windows is not None,
                    numbered=self.summary.draws_clusters,
                ),
                file_name_suffix=".parquet",
            )
            measured = predicted["batches"] | "Measure" >> MeasureBatches(self.summary.task, config, self.summary.targets)
            writers = tfma.default_writers(output_path=self.output, eval_shared_model=shared, eval_config=config)
            _ = measured | "Write" >> tfma.WriteResults(writers=writers)

    def in_memory(self) -> None:
        """Predicts batch by batch and measures all rows at once, without a Beam pipeline."""
        predict, config = self._predict, self._config
        predict.setup()
        tables, batches = [], []
        for place, file in enumerate(sorted(self.files)):
            read = read_batches(file)
            for batch in with_numbers(read, place) if self.summary.draws_clusters else read:
                rows, predicted = predict.process(batch)
                tables.append(rows.value)
                batches.append(predicted)
        folder = Path(self.output, PREDICTIONS)
        folder.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pa.concat_tables(tables), folder / f"rows{_ONE}.parquet")
        found = list(measure(Batch.joined(batches), self.summary.task, config, self.summary.targets))
        metrics = (tfma_writer.convert_slice_metrics_to_proto((key, values), []) for key, values, _ in found)
        plots = (tfma_writer.convert_slice_plots_to_proto((key, values), []) for key, _, values in found)
        self._write(tfma.METRICS_KEY, metrics)
        self._write(tfma.PLOTS_KEY, plots)
        self._write_config(config)

    def _write(self, key: str, messages: Iterable[Any]) -> None:
        with tf.io.TFRecordWriter(os.path.join(self.output, f"{key}{_ONE}.tfrecord")) as writer:
            for message in messages:
                writer.write(message.SerializeToString())

    def _write_config(self, config: config_pb2.EvalConfig) -> None:
        # The texts of TFMA's writer for rows that it did not read itself.
        run = config_pb2.EvalRun(
            eval_config=config,
            version=tfma.__version__,
            data_location="<user provided PCollection>",
            file_format="<unknown>",
            model_locations={name if len(self.bundles) > 1 else "": path for name, (path, _) in self.bundles.items()},
        )
        name = f"{eval_config_writer.EVAL_CONFIG_FILE}.{eval_config_writer.EVAL_CONFIG_FILE_FORMAT}"
        Path(self.output, name).write_text(f"{json_format.MessageToJson(run)}\n", encoding="utf-8")

    @property
    def _features(self) -> list[str]:
        return sorted({f for group in self.slices for f in group})

    @property
    def _config(self) -> config_pb2.EvalConfig:
        summary = self.summary
        return eval_config(summary.task, self.slices, self.measured, summary.targets, weighted=bool(summary.sample_weight))

    @property
    def _predict(self) -> Predict:
        return Predict(self.bundles, self._features, self.summary, partly=len(self.measured) > len(self.bundles))
