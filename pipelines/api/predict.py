"""`switchyard predict`: predictions for files, resumed where an earlier try ended."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from switchyard.components import progress
from switchyard.components.errors import UserError
from switchyard.components.failure import expected
from switchyard.components.ingest.sources import fingerprint, format_of, list_files, listed
from switchyard.components.prediction.files import BAD, BatchJob, predict_files
from switchyard.components.prediction.output import assemble
from switchyard.pipelines.api.model_argument import open_model
from switchyard.pipelines.api.output_path import check_output, removed_when_refused
from switchyard.pipelines.config.beam import FLINK, BeamConfig
from switchyard.pipelines.runners.local.flink import find_jar
from switchyard.pipelines.terminal.output import quiet, stderr_console


@dataclass(frozen=True)
class PredictOptions:
    """What the command was asked for; see `switchyard predict --help`."""

    inputs: tuple[str, ...]
    output: Path
    input_format: str
    missing_values: tuple[str, ...]
    max_bad_rows: int | None
    beam_arguments: tuple[str, ...]
    fresh: bool
    trust: bool = False


def predict(model: str, tracking_uri: str | None, workspace: Path | None, options: PredictOptions) -> None:
    """Writes the input's rows with predictions beside them.

    Raises:
        UserError: the model, the input or an option does not fit.
    """
    kind = format_of(str(options.output), "auto")
    if options.output.name.endswith((".gz", ".bz2")):
        raise UserError(f"--output: {options.output} cannot be compressed; leave out the last ending.")
    check_output(options.output)
    beam = _with_job_server(options.beam_arguments)
    found = list_files(options.inputs, "INPUT")
    if found.skipped:
        click.echo(f"{len(found.skipped)} files without rows are skipped: {listed(found.skipped)}", err=True)
    kinds = {f: format_of(f, options.input_format) for f in found.files}
    parts = options.output.with_name(f"{options.output.name}.parts")
    with open_model(model, tracking_uri, workspace, trust=options.trust) as opened, _shown_progress():
        _prepare(parts, _plan(opened.folder, kinds, kind, options), fresh=options.fresh)
        missing, bad_rows = tuple(options.missing_values), options.max_bad_rows
        job = BatchJob(str(opened.folder), opened.digest, kinds, str(parts), missing, bad_rows, typed=kind != "csv")
        with removed_when_refused(parts), quiet(parts / "log"):
            try:
                predict_files(job, beam)
            except Exception as error:
                if mistake := expected(error):  # Beam wraps what a worker raised
                    raise mistake.error() from error
                raise
            rows = assemble(sorted(parts.glob("[0-9]*.parquet")), options.output, kind)
        bad = _bad_rows(parts, options.output.with_name(options.output.name + BAD))
    shutil.rmtree(parts)
    version = f" (version {opened.version})" if opened.ref else ""
    click.echo(f"{rows:,} rows in {options.output}, predicted by {model}{version}")
    if bad:
        click.echo(f"{bad:,} rows have no prediction; {options.output}{BAD} says why", err=True)


@contextmanager
def _shown_progress() -> Iterator[None]:
    console = stderr_console()
    progress.set_sink(lambda text: console.print(text, highlight=False, markup=False))
    try:
        yield
    finally:
        progress.set_sink(None)


def _with_job_server(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Beam would download Flink's job server now where none is named."""
    named = ("--job_endpoint", "--flink_job_server_jar", "--flink_submit_uber_jar")
    if f"--runner={FLINK}" not in arguments or any(a.startswith(named) for a in arguments):
        return arguments
    return (*arguments, f"--flink_job_server_jar={find_jar(BeamConfig(runner=FLINK))}")


def _plan(folder: Path, kinds: dict[str, str], kind: str, options: PredictOptions) -> str:
    """What the parts depend on: parts of another plan are not gone on with."""
    bundle = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        bundle.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    plan = {"model": bundle.hexdigest(), "input": fingerprint(kinds), "kinds": list(kinds.values())}
    return json.dumps({**plan, "missing_values": options.missing_values, "output": kind})


def _prepare(parts: Path, plan: str, *, fresh: bool) -> None:
    if fresh:
        shutil.rmtree(parts, ignore_errors=True)
    known = parts / "plan.json"
    if known.exists() and known.read_text(encoding="utf-8") != plan:
        raise UserError(f"{parts} holds parts of another model or input. Add --fresh to begin anew, or give another --output.")
    done = len(list(parts.glob("[0-9]*.parquet")))
    if done:
        progress.say(f"going on behind {done} parts of an earlier try")
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
