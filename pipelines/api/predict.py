"""Predicts rows in memory or in files; an interrupted run over files is resumed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pandas as pd
from rich.console import Console

from switchyard.components import progress as progress_texts
from switchyard.components.bundle.model import BundleInfo, BundleModel, bundle_info, training_data
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import ArgumentError, StageError
from switchyard.components.failure import expected
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.images import fingerprint_with_images, image_files
from switchyard.components.ingest.sources import format_of, list_files, listed
from switchyard.components.process.full_disk import full_disk
from switchyard.pipelines.api.model_argument import load_model, open_model
from switchyard.pipelines.api.number_argument import Range, number
from switchyard.pipelines.api.output_path import check_output, removed_when_refused
from switchyard.pipelines.api.texts_argument import as_texts
from switchyard.pipelines.config.beam import FLINK, BeamConfig
from switchyard.pipelines.runners.local.flink import find_jar
from switchyard.pipelines.terminal.output import progress_console, quiet

if TYPE_CHECKING:
    from switchyard.components.prediction.files import BatchJob

# Suffix of the file beside the output with the reasons why rows have no prediction.
BAD = ".bad.jsonl"
_FORMATS = ("auto", "csv", "parquet", "jsonl", "tfrecord")


@dataclass(frozen=True)
class PredictedFile:
    """The output of `predict` for files.

    Attributes:
        output: file with the input's rows, in order, and their predictions.
        rows: number of rows.
        bad_rows: number of rows without a prediction.
        reasons: file with the reasons, one JSON object per line; None when all rows have a prediction.
        skipped: input files without rows.
        version: the model's version in its registry; None for a model from elsewhere.
    """

    output: Path
    rows: int
    bad_rows: int
    reasons: Path | None
    skipped: tuple[str, ...]
    version: str | None


@overload
def predict(
    model: str | os.PathLike[str] | BundleModel,
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    tracking_uri: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    trust: bool = False,
    verify: str | os.PathLike[str] | None = None,
) -> pd.DataFrame: ...


@overload
def predict(
    model: str | os.PathLike[str],
    rows: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    output: str | os.PathLike[str],
    input_format: str = "auto",
    missing_values: Sequence[str] = (),
    max_bad_rows: int | None = None,
    beam_arguments: Sequence[str] = (),
    fresh: bool = False,
    tracking_uri: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    trust: bool = False,
    verify: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> PredictedFile: ...


def predict(
    model: str | os.PathLike[str] | BundleModel,
    rows: Any,
    *,
    output: str | os.PathLike[str] | None = None,
    input_format: str = "auto",
    missing_values: Sequence[str] = (),
    max_bad_rows: int | None = None,
    beam_arguments: Sequence[str] = (),
    fresh: bool = False,
    tracking_uri: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    trust: bool = False,
    verify: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> pd.DataFrame | PredictedFile:
    """Predicts raw rows: those of a DataFrame or of mappings in memory, or those of files, whose predictions become a file.

    Args:
        model: see `load_model`; for rows in memory also its return value, which avoids loading the model again.
        rows: a DataFrame or a sequence of mappings with one column per raw feature, missing values as None or NaN; or paths,
            globs or URIs of files: CSV, Parquet, JSON Lines, TFRecord.
        output: file to write: `.csv`, `.tsv`, `.parquet`, `.jsonl` or `.tfrecord`. Required for files.
        input_format: format of the files: `csv`, `parquet`, `jsonl`, `tfrecord`; `auto` infers it from their names.
        missing_values: texts in the files that mean missing, in addition to those of the training data.
        max_bad_rows: raise if more rows of the files cannot be predicted; default: no limit.
        beam_arguments: arguments for Beam, which reads the files, such as `--runner=FlinkRunner`.
        fresh: start over instead of resuming an earlier run with the same output.
        tracking_uri: see `load_model`.
        workspace: see `load_model`.
        trust: see `load_model`.
        verify: see `load_model`.
        progress: show progress on standard error.

    Returns:
        For rows in memory a DataFrame with their index: `prediction`, and `probability` (binary: of the positive class) or
        `probability_<class>`, float64. For files, a `PredictedFile`.

    Raises:
        UserError: the model, a row, a file or an argument is invalid.
        StageError: the registry is unreachable.
    """
    if isinstance(rows, pd.DataFrame) or (not isinstance(rows, str) and _are_mappings(rows)):
        given = {
            "output": output is not None,
            "input_format": input_format != "auto",
            "missing_values": bool(missing_values),
            "max_bad_rows": max_bad_rows is not None,
            "beam_arguments": bool(beam_arguments),
            "fresh": fresh,
        }
        if wrong := [name for name, is_given in given.items() if is_given]:
            raise ArgumentError(wrong[0], "applies to files only, and the input is rows in memory; remove it.")
        if isinstance(model, BundleModel) and verify is not None:
            raise ArgumentError("verify", "the model is loaded already; give the key to load_model.")
        if not isinstance(model, BundleModel):
            model = load_model(model, tracking_uri=tracking_uri, workspace=workspace, trust=trust, verify=verify)
        return model.predict(rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_records(list(rows)))
    if isinstance(model, BundleModel):
        raise ArgumentError(
            "model", "a loaded model cannot be passed to the processes that predict files; give its name, URI or path."
        )
    if output is None:
        raise ArgumentError("output", "is missing; predictions for files are written to a file. Give its path.")
    if input_format not in _FORMATS:
        raise ArgumentError("input_format", f"{input_format!r} is none of {', '.join(_FORMATS)}.")
    if max_bad_rows is not None:
        max_bad_rows = number("max_bad_rows", max_bad_rows, Range(0, whole=True))
    inputs = [rows] if isinstance(rows, str | os.PathLike) else list(rows)
    wanted = _Files(
        tuple(os.fspath(i) for i in inputs),
        Path(output),
        input_format,
        as_texts(missing_values),
        max_bad_rows,
        as_texts(beam_arguments),
        fresh,
    )
    with progress_console(progress) as console:
        return _predict_files(model, tracking_uri, workspace, wanted, console, trust=trust, verify=verify)


@contextmanager
def _named_when_full(parts: Path) -> Iterator[None]:
    """Names the file without space on a full disk, which Arrow's and Beam's errors do not."""
    try:
        yield
    except Exception as error:
        if full := full_disk(error, parts):
            raise StageError(full) from error
        raise


def _are_mappings(rows: Any) -> bool:
    return isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows)


@dataclass(frozen=True)
class _Files:
    inputs: tuple[str, ...]
    output: Path
    input_format: str
    missing_values: tuple[str, ...]
    max_bad_rows: int | None
    beam_arguments: tuple[str, ...]
    fresh: bool


def _predict_files(
    model: str | os.PathLike[str],
    tracking_uri: str | None,
    workspace: str | os.PathLike[str] | None,
    wanted: _Files,
    console: Console,
    *,
    trust: bool,
    verify: str | os.PathLike[str] | None,
) -> PredictedFile:
    with quiet():  # hides TensorFlow's device messages
        from switchyard.components.prediction.files import BatchJob, predict_files
        from switchyard.components.prediction.output import assemble

    output = wanted.output
    kind = format_of(str(output), "auto")
    if output.name.endswith((".gz", ".bz2")):
        raise ArgumentError("output", f"{output}: compressed output is not supported; remove the last ending.")
    check_output(output)
    beam = _with_job_server(wanted.beam_arguments)
    found = list_files(wanted.inputs, "INPUT")
    if found.skipped:
        console.print(
            f"{len(found.skipped)} files without rows are skipped: {listed(found.skipped)}", markup=False, soft_wrap=True
        )
    kinds = {f: format_of(f, wanted.input_format) for f in found.files}
    parts = output.with_name(f"{output.name}.parts")
    with open_model(model, tracking_uri, workspace, trust=trust, verify=verify) as opened, _shown_progress(console):
        _check_kind(bundle_info(opened.folder), kind, output)
        summary = DatasetSummary.load(str(training_data(opened.folder)))
        _prepare(parts, _plan(opened.folder, summary, kinds, kind, wanted), fresh=wanted.fresh)
        job = BatchJob(
            str(opened.folder), opened.digest, kinds, str(parts), wanted.missing_values, wanted.max_bad_rows, typed=kind != "csv"
        )
        with removed_when_refused(parts), _named_when_full(parts), quiet(parts / "log"):
            try:
                if summary.windows is not None:
                    job = _of_windows(job, summary)
                predict_files(job, beam)
            except Exception as error:
                if mistake := expected(error):  # Beam wraps a worker's error
                    raise mistake.error() from error
                raise
            rows = assemble(sorted(parts.glob("[0-9]*.parquet")), output, kind)
        reasons = output.with_name(output.name + BAD)
        bad = _bad_rows(parts, reasons)
    shutil.rmtree(parts)
    version = opened.version if opened.ref else None
    return PredictedFile(output, rows, bad, reasons if bad else None, tuple(found.skipped), version)


def _check_kind(info: BundleInfo, kind: str, output: Path) -> None:
    """Refuses a format that cannot hold a custom task's predictions, before they are made."""
    lists = len(info.output_shape) if info.outputs > 1 else 0
    if (kind == "csv" and lists) or (kind == "tfrecord" and lists > 1):
        raise ArgumentError(
            "output",
            f"{output}: a prediction of this model is a list of shape {info.output_shape}, which {kind} does not hold; write "
            ".parquet or .jsonl",
        )


@contextmanager
def _shown_progress(console: Console) -> Iterator[None]:
    progress_texts.set_sink(lambda text: console.print(text, highlight=False, markup=False))
    try:
        yield
    finally:
        progress_texts.set_sink(None)


def _with_job_server(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Adds Flink's job server if none is named; Beam would download it otherwise."""
    named = ("--job_endpoint", "--flink_job_server_jar", "--flink_submit_uber_jar")
    if f"--runner={FLINK}" not in arguments or any(a.startswith(named) for a in arguments):
        return arguments
    return (*arguments, f"--flink_job_server_jar={find_jar(BeamConfig(runner=FLINK))}")


def _of_windows(job: BatchJob, summary: DatasetSummary) -> BatchJob:
    """Returns the job for the last window of each series of the files, which are written beside the parts."""
    from switchyard.components.prediction.windows import write_last_windows

    parts = Path(job.parts)
    file = parts / "windows.parquet"
    found = write_last_windows(summary, job.kinds, job.missing_values, file)
    if job.max_bad_rows is not None and found.refusals > job.max_bad_rows:
        raise ArgumentError(
            "max_bad_rows",
            f"{found.refusals} rows and series cannot be predicted, {job.max_bad_rows} are allowed. The first of them: "
            f"{found.refused[0]['reason']}",
        )
    lines = "".join(f"{json.dumps(line)}\n" for line in found.refused)
    (parts / f"windows{BAD}").write_text(lines, encoding="utf-8")
    return replace(job, kinds={str(file): "parquet"}, written=found.written)


def _plan(folder: Path, summary: DatasetSummary, kinds: dict[str, str], kind: str, wanted: _Files) -> str:
    """Returns the inputs of the parts as JSON: parts with another plan are not resumed."""
    bundle = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        bundle.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    missing = (*summary.missing_values, *wanted.missing_values)
    images = image_files(summary.images, kinds, CsvOptions.of(summary.csv), missing)
    plan = {"model": bundle.hexdigest(), "input": fingerprint_with_images(list(kinds), images), "kinds": list(kinds.values())}
    return json.dumps({**plan, "missing_values": wanted.missing_values, "output": kind})


def _prepare(parts: Path, plan: str, *, fresh: bool) -> None:
    if fresh:
        shutil.rmtree(parts, ignore_errors=True)
    known = parts / "plan.json"
    if known.exists() and known.read_text(encoding="utf-8") != plan:
        raise ArgumentError(
            "output",
            f"{parts} holds parts of another model or input; start over with --fresh (in Python: fresh=True), or choose another "
            "output file.",
        )
    done = len(list(parts.glob("[0-9]*.parquet")))
    if done:
        progress_texts.say(f"resuming after {done} parts of an earlier run")
    parts.mkdir(exist_ok=True)
    known.write_text(plan, encoding="utf-8")


def _bad_rows(parts: Path, target: Path) -> int:
    found: Sequence[Path] = sorted(parts.glob(f"*{BAD}"))
    target.unlink(missing_ok=True)
    if not found:
        return 0
    count = 0
    with open(target, "w", encoding="utf-8") as out:
        for path in found:
            for line in path.read_text(encoding="utf-8").splitlines():
                count += json.loads(line).get("number", 1)
                out.write(line + "\n")
    return count
