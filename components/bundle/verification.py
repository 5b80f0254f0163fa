"""Checks a registered version again: files against the registered digest, data, commit and software against those recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from switchyard.components.bundle.model import training_data
from switchyard.components.data import source
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import SwitchyardError, UserError, first_line
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.images import fingerprint_with_images, image_files
from switchyard.components.ingest.sources import find_files, fingerprint, format_of
from switchyard.components.process.full_disk import full_disk
from switchyard.components.process.temporary import temporary_folder
from switchyard.components.signing.signatures import SIGNATURE, verify_signature
from switchyard.components.text.redaction import mask
from switchyard.components.tracking import environment, model_registry
from switchyard.components.tracking.manifest import MANIFEST, compared, own_digest
from switchyard.components.tracking.mlflow_errors import is_refusal
from switchyard.components.tracking.version_download import check_source, local_folder

Outcome = Literal["same", "changed", "unknown", "unreachable"]


@dataclass(frozen=True)
class Check:
    """One check: `what` it is about, its `outcome`, and the digests or the reason.

    Outcomes: `unknown`: not recorded, or no longer at hand; `unreachable`: the store of the files does not answer, so that
    nothing is known about them.
    """

    what: str
    outcome: Outcome
    found: str


def check_version(client: Any, uri: str, name: str, version: str, key: Path | None = None) -> list[Check]:
    """Returns the checks of a version. No file of it is loaded.

    Args:
        client: an MlflowClient.
        uri: address of MLflow's server or database.
        name: name of the registered model.
        version: number of an existing version.
        key: file with the public key or certificate to check the signature with; None: the signature is not checked.
    """
    tags = client.get_model_version(name, version).tags
    with temporary_folder() as work:
        found = _downloaded(client, uri, name, version, work)
        if isinstance(found, Path):
            of_files = [*_files(found, tags.get(model_registry.DIGEST)), *_signature(found, key)]
        else:
            of_files = [found]
        of_data = _data(tags, _summary(found) if isinstance(found, Path) else None)
    return [
        *of_files,
        of_data,
        _run(client, client.get_model_version(name, version).run_id, tags.get(environment.COMMIT)),
        _software(tags.get(environment.LOCK)),
        _image(tags.get(environment.IMAGE)),
        _promotion(model_registry.moves(client, name), version),
    ]


def _downloaded(client: Any, uri: str, name: str, version: str, work: Path) -> Path | Check:
    from mlflow.artifacts import download_artifacts

    place = client.get_model_version_download_uri(name, version)
    folder = local_folder(place)
    if folder and not folder.exists():
        return Check("files", "unreachable", f"{folder} is not there: it was removed, or is on another machine or disk")
    try:
        check_source(place)
        return Path(download_artifacts(artifact_uri=place, dst_path=str(work), tracking_uri=uri))
    except Exception as error:  # clients of stores raise many types of errors
        if full_disk(error):
            raise
        reason = f"cannot be downloaded: {mask(first_line(error))}"
        if is_refusal(error):  # such as a file that is gone, or no regular one
            return Check("files", "changed", reason)
        return Check("files", "unreachable", f"{reason}. Check that {mask(place)} can be read from here, and try again.")


def _files(folder: Path, digest: str | None) -> Iterator[Check]:
    own = own_digest(folder)
    if digest is None:
        yield Check(MANIFEST, "unknown", "registered without a digest: train and register it again")
    else:
        yield Check(MANIFEST, "same" if own == digest else "changed", own or f"missing; registered as {digest}")
    try:
        for file, wrong in compared(folder):
            yield Check(file, "changed" if wrong else "same", wrong or "digest of the manifest")
    except UserError as error:
        yield Check("files", "changed", first_line(error))


def _signature(folder: Path, key: Path | None) -> Iterator[Check]:
    if key is None:
        if (folder / SIGNATURE).is_file():
            yield Check("signature", "unknown", "give its signer's public key with --key")
        return
    try:
        verify_signature(folder, key)
    except UserError as error:
        yield Check("signature", "changed", first_line(error))
    else:
        yield Check("signature", "same", f"verifies with {key}")


def _summary(folder: Path) -> DatasetSummary | None:
    """Returns what the bundle records about its data; None if that is missing or broken, which the check of the files reports."""
    try:
        return DatasetSummary.load(str(training_data(folder)))
    except (OSError, ValueError, TypeError):
        return None


def _data(tags: Any, summary: DatasetSummary | None) -> Check:
    """Checks the training data where its files are still on this machine, or in a store that it reaches."""
    registered = tags.get(model_registry.DATA, "")
    try:
        patterns = json.loads(tags.get(source.TAG, "[]"))
    except ValueError:
        patterns = []
    if not registered or not isinstance(patterns, list) or not patterns:
        return Check("data", "unknown", "its files are not recorded")
    listed = ", ".join(map(str, patterns))
    try:
        together = _fingerprint(find_files([str(p) for p in patterns]), summary)
        # Files of splits with paths of their own were read split by split.
        each = _fingerprint([f for p in patterns for f in find_files([str(p)])], summary)
    except (SwitchyardError, OSError, TypeError, ValueError, AttributeError) as error:  # the bundle's record may be damaged
        return Check("data", "unknown", f"not at hand: {first_line(error)}")
    if registered in (together, each):
        return Check("data", "same", f"{registered} of {listed}")
    return Check("data", "changed", f"{listed}: {together}, was {registered}")


def _fingerprint(files: Sequence[str], summary: DatasetSummary | None) -> str:
    """Returns the fingerprint of data that ingest would record, see `data_fingerprint`."""
    if not summary or not summary.images:
        return fingerprint(files)
    kinds = {f: format_of(f, "auto") for f in files}
    images = image_files(summary.images, kinds, CsvOptions.of(summary.csv), summary.missing_values)
    return fingerprint_with_images(files, images)


def _run(client: Any, run_id: str | None, registered: str | None) -> Check:
    from mlflow.exceptions import MlflowException

    if not run_id:
        return Check("run", "unknown", "not recorded")
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if not is_refusal(error):
            raise
        return Check("run", "unknown", f"{run_id} was deleted")
    commit = environment.commit_of(run.data.tags)
    if registered is not None and commit != registered:
        return Check("run", "changed", f"{run_id}, code commit {commit or 'none'}, was {registered}")
    return Check("run", "same", f"{run_id}{f', code commit {commit}' if commit else ''}")


def _software(registered: str | None) -> Check:
    """Compares the packages that trained a version with those of this process; others are no change of the version."""
    if registered is None:
        return Check("packages", "unknown", "not recorded")
    here = environment.lock()
    if here == registered:
        return Check("packages", "same", here)
    return Check("packages", "unknown", f"trained with {registered}; here are {here}")


def _image(registered: str | None) -> Check:
    if registered is None:
        return Check("image", "unknown", "not recorded")
    if registered == environment.NO_IMAGE:
        return Check("image", "unknown", "none: trained outside of a cluster")
    return Check("image", "same" if environment.image() == registered else "unknown", registered)


def _promotion(moves: Sequence[model_registry.Move], version: str) -> Check:
    found = [m for m in moves if m.version == version]
    if not found:
        return Check("promotion", "unknown", "never champion")
    return Check("promotion", "same", "; ".join(f"{m.action} by {m.who}: {m.why}" for m in found))
