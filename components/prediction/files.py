"""Predicts files on Beam with ingest's readers and conversions and the bundle; writes one part per batch of rows.

Parts are renamed when complete, so that an interrupted job resumes after the existing parts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from apache_beam.utils import shared

from switchyard.components.bundle.model import BundleInfo, BundleModel, format_predictions, load_bundle, training_data
from switchyard.components.data.added_columns import may_be_added
from switchyard.components.data.class_order import KEY as POSITIVE_CLASS
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.declared import plain_numbers
from switchyard.components.ingest.images import in_parts, with_images
from switchyard.components.ingest.layout import folder_columns, with_folders
from switchyard.components.ingest.readers import reader
from switchyard.components.progress import say
from switchyard.components.tasks import TASKS
from switchyard.components.text.visible import in_a_line
from switchyard.components.user_code.tokenizer import RefusedRowsError
from switchyard.components.values.conversion import MISSING, Fitted, fit_rows, single
from switchyard.components.values.raw_features import RawFeature
from switchyard.components.values.spelling import FLOAT, INTEGER

BAD = ".bad.jsonl"
_NO_LIMIT = 2**62
_PLAIN = ("", INTEGER, FLOAT)


@dataclass(frozen=True)
class BatchJob:
    """Settings of a batch prediction, sent to every worker.

    Attributes:
        model: folder of the MLflow Model.
        digest: digest of the model's manifest; None trusts the folder.
        kinds: file -> csv, parquet, jsonl or tfrecord, in the order of the output.
        parts: folder for the parts.
        missing_values: texts that mean "missing", in addition to those of the training data.
        max_bad_rows: maximum bad rows of a file before the job fails; None disables the limit.
        typed: whether numeric columns of a CSV are written as numbers instead of texts.
        written: columns of the input that are written; None: all.
    """

    model: str
    digest: str | None
    kinds: Mapping[str, str]
    parts: str
    missing_values: tuple[str, ...]
    max_bad_rows: int | None
    typed: bool = False
    written: tuple[str, ...] | None = None


def predict_files(job: BatchJob, beam_arguments: Sequence[str]) -> None:
    """Writes all missing parts.

    Raises:
        UserError: a file cannot be read, does not fit the model, or has too many bad rows.
    """
    options = beam.options.pipeline_options.PipelineOptions(list(beam_arguments))
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "Files" >> beam.Create(list(enumerate(job.kinds)))
            | "Spread" >> beam.Reshuffle()
            | "Predict" >> beam.ParDo(_PredictFile(job))
        )


class _Loaded:
    """A bundle with its reading options; a class because `beam.utils.shared` needs weakly referenceable objects."""

    def __init__(self, folder: str, digest: str | None, missing_values: Sequence[str]) -> None:
        from switchyard.components.import_order import import_torch_first

        import_torch_first()
        self.bundle: BundleModel = load_bundle(folder, digest)
        self.features = [replace(f, missing=[*f.missing, *missing_values]) for f in self.bundle.info.features]
        self.images = [f.name for f in self.features if f.image]
        self.numbers = {f.name for f in self.features if f.dtype != "string"}
        summary = DatasetSummary.load(str(training_data(folder)))
        self.csv, self.missing = CsvOptions.of(summary.csv), (*summary.missing_values, *missing_values)


class _PredictFile(beam.DoFn):
    def __init__(self, job: BatchJob) -> None:
        self._job = job
        self._shared = shared.Shared()

    def setup(self) -> None:
        self._loaded: _Loaded = self._shared.acquire(lambda: _Loaded(self._job.model, self._job.digest, self._job.missing_values))

    def process(self, item: tuple[int, str]) -> Iterator[int]:
        index, path = item
        job, rows, bad_rows = self._job, 0, 0
        unread = BadRows(_NO_LIMIT)
        known = {f.name for f in self._loaded.bundle.info.features}
        folders = {n: text for n, text in folder_columns(path).items() if n in known}
        read_file = reader(job.kinds[path], self._loaded.csv, lambda name: name in known, keep=True)
        with closing(read_file(path, unread, self._loaded.missing)) as batches:
            for number, read in enumerate(in_parts(batches, self._loaded.images)):
                batch = with_folders(read, folders)
                if not number and (unused := [n for n in batch.schema.names if n not in known and may_be_added(n)]):
                    say(f"{os.path.basename(path)}: the model does not know {', '.join(map(repr, unused))}, an index: not used")
                part = Path(job.parts) / f"{index:05d}-{number:07d}.parquet"
                if not part.exists():
                    self._write(part, batch, path, rows)
                rows += batch.num_rows
                bad_rows += _lines(part)
                found = bad_rows + unread.count
                say(f"{os.path.basename(path)}: {rows:,} rows{f', {found:,} bad' if found else ''}")
                if job.max_bad_rows is not None and found > job.max_bad_rows:
                    raise UserError(f"{path}: {found} bad rows, --max-bad-rows allows {job.max_bad_rows}. {_first(part, unread)}")
        _write_text(Path(job.parts) / f"{index:05d}-unread{BAD}", unread.samples, unread.count)
        yield rows

    def _write(self, part: Path, batch: pa.RecordBatch, path: str, before: int) -> None:
        loaded = self._loaded
        if self._job.kinds[path] == "csv":
            batch = plain_numbers(batch, loaded.numbers, loaded.csv)
        typed = self._job.typed and self._job.kinds[path] == "csv"
        table, bad = predict_batch(loaded.bundle, loaded.features, batch, with_images(batch, loaded.images, path), typed=typed)
        if (written := self._job.written) is not None:
            table = table.drop_columns([n for n in batch.schema.names if n not in written])
        samples = [{"file": path, "row": before + i, "reason": why} for i, why in sorted(bad.items())]
        _write_text(part.with_name(part.name + BAD), samples, len(samples))
        draft = part.with_suffix(f".{os.getpid()}.tmp")
        pa.parquet.write_table(table, draft)
        os.replace(draft, part)


def predict_batch(
    bundle: BundleModel,
    features: Sequence[RawFeature],
    batch: pa.RecordBatch,
    read: pa.RecordBatch | None = None,
    *,
    typed: bool = False,
) -> tuple[pa.Table, dict[int, str]]:
    """Returns the batch with prediction columns appended, and the bad rows (row index -> reason).

    Args:
        bundle: the model.
        features: raw features of the model.
        batch: rows as in the file.
        read: the same rows with images in place of their paths; default: `batch`.
        typed: whether to convert a CSV's numeric columns from texts to numbers.

    Raises:
        UserError: a required column is missing, or a column has the name of a prediction column.
    """
    info = bundle.info
    _check_columns(info, batch.schema.names)
    read = batch if read is None else read
    fitted = fit_rows(read, features)
    good, bad = fitted.fits, dict(fitted.misfits)
    table = pa.table(batch.columns, names=batch.schema.names)
    table = _numbers(table, features, fitted.fitted) if typed else table
    scores = np.full((batch.num_rows, info.outputs), np.nan, dtype=np.float32)
    if good.any():
        try:
            scores[good] = bundle.score_columns(fitted.columns)
        except RefusedRowsError as error:
            refused = np.flatnonzero(good)[list(error.rows)]
            good[refused] = False
            bad |= {int(i): str(error) for i in refused}
            if good.any():
                scores[good] = bundle.score_columns(fit_rows(read.filter(pa.array(good)), features).columns)
    for i in np.flatnonzero(good & ~np.isfinite(scores).all(axis=1)):
        bad[int(i)] = "the model's output is not finite: the values are too far from the training data"
    missing = np.asarray([i in bad for i in range(batch.num_rows)], dtype=bool)
    for name, values in format_predictions(info, np.nan_to_num(scores)).items():
        cells: Any = values.tolist() if values.ndim > 1 else values
        table = table.append_column(name, pa.array(cells, mask=missing, type=_type_of(info, name)))
    if info.positive_class is not None:
        # Names the class that `probability` refers to.
        table = table.append_column(POSITIVE_CLASS, pa.array([str(info.positive_class)] * batch.num_rows, pa.string()))
    return table, bad


def _numbers(table: pa.Table, features: Sequence[RawFeature], fitted: Mapping[str, Fitted]) -> pa.Table:
    """Returns the table with the model's numeric columns as numbers; a column with other texts in it stays text."""
    for name in (f.name for f in features if f.name in table.column_names and f.meaning in _PLAIN and f.dtype != "string"):
        found = fitted[name]
        if not found.words and all(m.reason == MISSING for m in found.misfits) and pa.types.is_string(table[name].type):
            table = table.set_column(table.column_names.index(name), name, single(found.values))
    return table


def _type_of(info: BundleInfo, name: str) -> pa.DataType:
    if name in TASKS[info.task].choices(info.targets):
        return pa.int64()
    if name != "prediction" or not info.classes:
        kind = pa.float64()
        for _ in info.output_shape if info.outputs > 1 else ():
            kind = pa.list_(kind)
        return kind
    return pa.string() if isinstance(info.classes[0], str) else pa.int64()


def _check_columns(info: BundleInfo, names: Sequence[str]) -> None:
    missing = [f.name for f in info.features if f.width is not None and f.name not in names]
    if missing:
        raise UserError(
            f"column {missing[0]!r} is missing{f' ({len(missing)} are)' if len(missing) > 1 else ''}. "
            f"Columns: {in_a_line(names)}. Needed: {in_a_line(f.name for f in info.features if f.width is not None)}."
        )
    added = {
        *TASKS[info.task].prediction_names(info.classes, info.targets),
        *([POSITIVE_CLASS] if info.positive_class is not None else []),
    }
    taken = sorted(added & set(names))
    if taken:
        raise UserError(f"the input has a column {taken[0]!r}, the name of a column of predictions. Rename it.")


def _write_text(path: Path, samples: Sequence[Mapping[str, Any]], count: int) -> None:
    if not count:
        return
    lines = [json.dumps(s) for s in samples]
    if count > len(samples):
        lines.append(
            json.dumps({"reason": f"and {count - len(samples)} more that could not be read", "number": count - len(samples)})
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(part: Path) -> int:
    bad = part.with_name(part.name + BAD)
    return len(bad.read_text(encoding="utf-8").splitlines()) if bad.exists() else 0


def _first(part: Path, unread: BadRows) -> str:
    bad = part.with_name(part.name + BAD)
    found = json.loads(bad.read_text(encoding="utf-8").splitlines()[0]) if bad.exists() else unread.samples[0]
    return f"The first of them: {found['reason']} (row {found['row']})."
