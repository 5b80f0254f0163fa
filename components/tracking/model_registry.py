"""A registered model's versions and its aliases `champion`, `previous` and `challenger`.

Every move of an alias is recorded, and made under the lock of `promotion_lock.py`.
"""

from __future__ import annotations

import getpass
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from switchyard.components.errors import UserError
from switchyard.components.metrics import base
from switchyard.components.process.temporary import temporary_folder
from switchyard.components.signing.signatures import SIGNATURE
from switchyard.components.text.escaping import equals
from switchyard.components.tracking.environment import COMMIT, commit_of
from switchyard.components.tracking.keys import metric_key
from switchyard.components.tracking.manifest import own_digest, verify
from switchyard.components.tracking.promotion_lock import locked

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
# Statuses of a candidate that is not in MLflow.
DEFERRED, REFUSED = "deferred", "refused"
MODEL_URI, BLESSED, METRICS, DATA = "switchyard.model_uri", "switchyard.blessed", "switchyard.metrics", "switchyard.data"
# Digest of the bundle's manifest; downloads are compared with it.
DIGEST = "switchyard.digest"
POSITIVE_CLASS = "switchyard.positive_class"
_MOVE = "switchyard.move."
# Of MLflow's limits, the length of a tag and the metrics of one request.
_METRICS_LENGTH, _MOST_METRICS = 4900, 1000
# Tags that are also parameters of the logged model: MLflow's table of models shows and compares parameters.
_SHOWN = ("framework", "members", "task", POSITIVE_CLASS)


class ForeignModelError(UserError):
    """A registered model with versions that Switchyard did not make; its aliases must not be moved."""


@dataclass(frozen=True)
class Move:
    """One move of the alias `champion`.

    Attributes:
        action: `promote` or `rollback`; `outside`: a move of the alias not made by Switchyard, detected later.
        version: the new champion.
        before: the previous champion; None without one.
        who, why: the user or run that decided, and its reason.
        at: time of the move, in seconds since 1970.
        run_id: MLflow run with the evaluation.
        metrics: metrics of that evaluation.
    """

    action: str
    version: str
    before: str | None
    who: str
    why: str
    at: float
    run_id: str | None
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Version:
    """A version of a registered model, as `switchyard models list` shows it."""

    version: str
    framework: str
    created: float
    aliases: tuple[str, ...]
    blessed: bool
    metrics: Mapping[str, float]
    run_id: str | None
    data: str


@dataclass(frozen=True)
class Registration:
    """The outcome of a candidate's registration: `status` is champion, challenger, not blessed, deferred or refused."""

    status: str
    version: str | None
    champion: str | None
    why: str = ""


def user_name() -> str:
    """Returns the name of the current user, or the user id in a container without one."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.getuid())


def alias_version(client: Any, name: str, alias: str) -> str | None:
    """Returns the version with an alias, or None without such a model or alias.

    Raises:
        MlflowException: the store is unreachable.
    """
    return aliases(client, name).get(alias)


def champions_positive_class(client: Any, name: str) -> str | None:
    """Returns the champion's positive class; None without a champion, or for a task other than binary.

    Raises:
        MlflowException: the store is unreachable.
    """
    version = alias_version(client, name, CHAMPION)
    found: str | None = client.get_model_version(name, version).tags.get(POSITIVE_CLASS) if version else None
    return found


def aliases(client: Any, name: str) -> dict[str, str]:
    """Returns a model's aliases and their versions; empty if the model does not exist.

    Raises:
        MlflowException: the store is unreachable.
    """
    from mlflow.exceptions import MlflowException

    try:
        # Not `get_model_version_by_alias`: it raises the same error for a missing alias and for some server errors.
        found = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: str(version) for alias, version in found.items()}


def check_own(client: Any, name: str) -> None:
    """Refuses a registered model with versions that Switchyard did not make, whose aliases must not be moved.

    Raises:
        ForeignModelError: there are such versions.
        MlflowException: the store is unreachable.
    """
    foreign = sorted((str(v.version) for v in _model_versions(client, name) if MODEL_URI not in v.tags), key=int)
    if foreign:
        raise ForeignModelError(
            f"serving.model_name: the registered model {name!r} was not created by Switchyard: it did not register "
            f"version{'s' * (len(foreign) > 1)} {', '.join(foreign[:5])}{', …' * (len(foreign) > 5)} and does not move its "
            f"aliases. Set serving.model_name to another name, for example {name}_switchyard."
        )


def register_model(client: Any, run_id: str, model: Mapping[str, Any]) -> Registration:
    """Records a bundle as a model of the run; registers a version if it passed and promotes it to champion if it is blessed.

    A bundle is identified by its artifact's URI and recorded once. A blessing is valid only against the champion that the
    model was compared with: if the champion has changed since, the version becomes challenger.

    Args:
        client: an MlflowClient.
        run_id: MLflow run of the pipeline.
        model: `name`, `bundle` (folder), `uri` (of the model artifact), `passed`, `blessed`, `compared_with` (version or
            None), `why`, `metrics`, `data` (fingerprint), `digest` (of the manifest; may be left out), `signature` (of the files,
            see `components.signing`; may be left out), `tags`, `description`, `measured_in` (MLflow run that logs the model's
            metrics; may be left out) and `dataset` (name and digest of the rows that they were measured on).

    Raises:
        UserError: the bundle does not match its digest, or the registered model is not Switchyard's.
    """
    check_own(client, model["name"])
    logged, tags = _log_model(client, run_id, model)
    if not model["passed"]:
        return Registration("not blessed", None, alias_version(client, model["name"], CHAMPION))
    version = _version(client, run_id, model, logged, tags)
    name = model["name"]
    with locked(client, name) as check:
        current = alias_version(client, name, CHAMPION)
        if current == version:
            return Registration(CHAMPION, version, version, "it is already the champion")
        if model["blessed"] and current == model["compared_with"]:
            _move(client, name, _new_move("promote", version, current, model["why"], run_id, model["metrics"]), check)
            return Registration(CHAMPION, version, version, model["why"])
        client.set_registered_model_alias(name, CHALLENGER, version)
    why = overtaken(name, version, model["compared_with"], current) if model["blessed"] else ""
    return Registration(CHALLENGER, version, current, why)


def overtaken(name: str, version: str, before: str | None, now: str | None) -> str:
    """Returns why a blessed version is not champion: the champion changed after its evaluation."""
    then = f"version {before}" if before else "not known (there was none, or the registry was unreachable)"
    return (
        f"{name}: the champion was {then} when version {version} was evaluated and is {f'version {now}' if now else 'none'} now "
        f"(switchyard models list {name} shows who moved it); run again to compare them"
    )


def promote(client: Any, name: str, version: str, *, why: str, force: bool = False) -> Move:
    """Makes a version the champion; the current champion becomes `previous`.

    Raises:
        UserError: the version does not exist, is already the champion, or is not blessed and `force` is not set; or the
            registered model is not Switchyard's.
    """
    check_own(client, name)
    known = {v.version: v for v in versions(client, name)}
    if version not in known:
        raise UserError(f"{name} has no version {version}. Versions: {', '.join(known)}.")
    if not known[version].blessed and not force:
        raise UserError(
            f"{name} version {version} was not blessed: it was not significantly better than the champion at that time. "
            "Compare them (switchyard models compare), then give --force to promote it anyway."
        )
    with locked(client, name) as check:
        current = alias_version(client, name, CHAMPION)
        if current == version:
            raise UserError(f"{name} version {version} is already the champion.")
        chosen = known[version]
        move = _new_move("promote", version, current, why, chosen.run_id, chosen.metrics)
        _move(client, name, move, check)
    return move


def rollback(client: Any, name: str, *, why: str) -> Move:
    """Makes `previous` the champion again; the champion becomes `previous`.

    Raises:
        UserError: there is no previous version, or the registered model is not Switchyard's.
    """
    check_own(client, name)
    known = {v.version: v for v in versions(client, name)}
    with locked(client, name) as check:
        current, before = (alias_version(client, name, a) for a in (CHAMPION, PREVIOUS))
        if before is None or before not in known:
            raise UserError(f"{name} has no version with the alias {PREVIOUS!r}; there is nothing to roll back to.")
        move = _new_move("rollback", before, current, why, known[before].run_id, known[before].metrics)
        _move(client, name, move, check)
    return move


def versions(client: Any, name: str) -> list[Version]:
    """Returns a registered model's versions, oldest first.

    Raises:
        UserError: the model does not exist.
    """
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = [m.name for m in client.search_registered_models()]
        raise UserError(f"unknown registered model {name!r}. Known: {', '.join(known) or 'none'}.") from None
    by_version: dict[str, list[str]] = {}
    for alias, version in aliases.items():
        by_version.setdefault(str(version), []).append(alias)
    found = [
        Version(
            version=str(v.version),
            framework=v.tags.get("framework", ""),
            created=v.creation_timestamp / 1000,
            aliases=tuple(sorted(by_version.get(str(v.version), ()))),
            blessed=v.tags.get(BLESSED) == "true",
            metrics=json.loads(v.tags.get(METRICS, "{}")),
            run_id=v.run_id or None,
            data=v.tags.get(DATA, ""),
        )
        for v in _model_versions(client, name)
    ]
    return sorted(found, key=lambda v: int(v.version))


def _model_versions(client: Any, name: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(equals("name", name), max_results=1000, page_token=token)
        found += [v for v in page if v.name == name]
        token = page.token
        if not token:
            return found


def moves(client: Any, name: str) -> list[Move]:
    """Returns all moves of the alias `champion`, oldest first."""
    tags = client.get_registered_model(name).tags
    return [Move(**json.loads(v)) for k, v in sorted(tags.items()) if k.startswith(_MOVE)]


def _new_move(action: str, version: str, before: str | None, why: str, run_id: str | None, metrics: Mapping[str, float]) -> Move:
    return Move(action, version, before, user_name(), why[:1000], time.time(), run_id, _in_a_tag(metrics))


def _move(client: Any, name: str, move: Move, check: Callable[[], None]) -> None:
    """Records the move before making it: a crash leaves an extra record, never an unexplained promotion."""
    known = moves(client, name)
    recorded = known[-1].version if known else None
    made = [move]
    if move.before is not None and move.before != recorded:
        made.insert(
            0, Move("outside", move.before, recorded, "unknown", "the alias was set without Switchyard", move.at, None, {})
        )
    number = 1 + max((int(k[len(_MOVE) :]) for k in client.get_registered_model(name).tags if k.startswith(_MOVE)), default=0)
    check()
    for i, each in enumerate(made):
        client.set_registered_model_tag(name, f"{_MOVE}{number + i:06d}", json.dumps(asdict(each)))
    if move.before is not None:
        client.set_registered_model_alias(name, PREVIOUS, move.before)
    # A single statement in the store, so that there is a champion at any time.
    client.set_registered_model_alias(name, CHAMPION, move.version)
    if alias_version(client, name, CHALLENGER) == move.version:
        client.delete_registered_model_alias(name, CHALLENGER)


def _log_model(client: Any, run_id: str, model: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    # Without a digest from the run that made the bundle, the digest of the current files is registered.
    digest = model.get("digest") or own_digest(Path(model["bundle"]))
    tags = {
        **({DIGEST: digest} if digest else {}),
        **({COMMIT: commit} if (commit := commit_of(run.data.tags)) else {}),
        **model["tags"],
        MODEL_URI: model["uri"],
        BLESSED: str(model["blessed"]).lower(),
        METRICS: json.dumps(_in_a_tag({k: round(v, 6) for k, v in model["metrics"].items()})),
        DATA: model["data"],
    }
    uri = str(model["uri"])
    known = [
        m
        for m in client.search_logged_models([experiment], filter_string=equals(f"tags.`{MODEL_URI}`", uri))
        # One that is not ready lacks files: its upload was killed, or the disk was full.
        if m.tags.get(MODEL_URI) == uri and m.status == LoggedModelStatus.READY
    ]
    if known:
        logged = known[0]
    else:
        if digest:
            verify(Path(model["bundle"]), digest)
        # Candidates of one run differ by framework; MLflow's list of models shows the name and `params`.
        framework = model["tags"].get("framework", "")
        logged = client.create_logged_model(
            experiment,
            f"{model['name']}-{framework}" if framework else model["name"],
            source_run_id=run_id,
            tags=tags,
            params={k: v for k, v in model["tags"].items() if k in _SHOWN} | {"data": model["data"][:16]},
            model_type="bundle",
        )
        client.log_model_artifacts(logged.model_id, model["bundle"])
        logged = client.finalize_logged_model(logged.model_id, "READY")
    if signature := model.get("signature"):
        # Also for a known model: the key may be a new one.
        with temporary_folder() as folder:
            (folder / SIGNATURE).write_text(signature, encoding="utf-8")
            client.log_model_artifact(logged.model_id, str(folder / SIGNATURE))
    _log_metrics(client, model, logged.model_id)
    if logged.model_id not in {o.model_id for o in (run.outputs.model_outputs if run.outputs else [])}:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
    return logged, tags


def _log_metrics(client: Any, model: Mapping[str, Any], model_id: str) -> None:
    """Logs the metrics to the model, for MLflow's table of models and its charts.

    They go to the stage's run: MLflow keeps a model's metrics also as those of the run, where candidates would mix.
    """
    from mlflow.entities import Metric

    run_id = model.get("measured_in")
    if not run_id:
        return
    name, digest = model["dataset"]
    now = int(time.time() * 1000)
    found = model["metrics"].items()
    metrics = [Metric(metric_key(k), float(v), now, 0, model_id, name, digest, run_id) for k, v in found]
    for start in range(0, len(metrics), _MOST_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _MOST_METRICS])


def _in_a_tag(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics that fit into a tag as JSON: without those of single label columns if there are many."""
    if len(json.dumps(metrics)) <= _METRICS_LENGTH:
        return dict(metrics)
    return {name: value for name, value in metrics.items() if base(name) == name}


def _version(client: Any, run_id: str, model: Mapping[str, Any], logged: Any, tags: dict[str, str]) -> str:
    from mlflow.exceptions import MlflowException

    name = model["name"]
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = [v for v in _model_versions(client, name) if v.tags.get(MODEL_URI) == model["uri"]]
    if found:
        version = str(found[0].version)
        for key in (BLESSED, METRICS, DATA):
            client.set_model_version_tag(name, version, key, tags[key])
        client.update_model_version(name, version, description=model["description"])
        return version
    made = client.create_model_version(
        name,
        logged.artifact_location,
        run_id=run_id,
        tags=tags,
        description=model["description"],
        model_id=logged.model_id,
    )
    return str(made.version)
