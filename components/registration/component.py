"""Defines the registry stage as a TFX component. Run it uncached: it is cheap, and its effects are outside the workspace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from switchyard.components.artifacts import MEMBERS
from switchyard.components.bundle.model import bundle_path
from switchyard.components.data import source as data_source
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.evaluation.results import CHAMPION, Evaluation, ModelResult
from switchyard.components.evaluation.servability import verdicts
from switchyard.components.pages.artifacts import dataset_of, track_data
from switchyard.components.progress import say, warn
from switchyard.components.registration.descriptions import model_card, next_step, run_description
from switchyard.components.signing.config import SigningConfig
from switchyard.components.signing.signatures import sign
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext
from switchyard.components.tracking.environment import environment_of
from switchyard.components.tracking.manifest import digest_of, verify
from switchyard.components.tracking.model_registry import CHALLENGER, DEFERRED, POSITIVE_CLASS, REFUSED, Registration
from switchyard.components.tracking.model_registry import CHAMPION as REGISTERED_CHAMPION
from switchyard.components.training.start import STARTED_FROM, STARTED_FROM_DIGEST

FILE = "registration.json"


class Executor(base_executor.BaseExecutor):
    """The executor from `examples` (for the fingerprint), `model`s, `evaluation`, optional `infra_blessing` to `registration`."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """Registers all candidates and writes the registrations.

        Raises:
            UserError: the registry refused the best candidate, and no journal of a local run records it; or a candidate cannot
                be signed.
        """
        name = exec_properties["model_name"]
        given = exec_properties.get("signing")
        signing = SigningConfig.model_validate_json(given) if given else None
        summary = DatasetSummary.load(artifact_utils.get_single_uri(input_dict["examples"]))
        infra = input_dict.get("infra_blessing")
        evaluation = verdicts(
            artifact_utils.get_single_uri(input_dict["evaluation"]), artifact_utils.get_single_uri(infra) if infra else None
        )
        run = tracking.current_run(parent=True)
        track_data(run, summary)
        _track_verdict(run, evaluation)
        registrations = {}
        models = {m.get_string_custom_property("framework"): m for m in input_dict["model"]}
        # Register the best one last, so that it is the challenger if it does not become champion.
        for framework in sorted(models, key=lambda n: (n == evaluation.best, -list(evaluation.models).index(n))):
            model = models[framework]
            described = _described(model, evaluation.models[framework], evaluation, name, summary)
            if signing and described["passed"]:
                described["signature"] = _signature(described, signing)
            registrations[framework] = run.register(described)
        best = registrations[evaluation.best]
        _report(name, best)
        outcome, step = _outcome(name, best, evaluation).strip(), next_step(name, best, evaluation)
        run.tags({"mlflow.note.content": run_description(outcome, name, evaluation, summary, _ids(run), step)})
        if evaluation.blessed and best.status == CHALLENGER:
            _track_overtaken(run, best)
        tracking.current_run().tags({"registration": best.status, "model_version": best.version or "", "why": best.why})
        folder = Path(artifact_utils.get_single_uri(output_dict["registration"]))
        folder.mkdir(parents=True, exist_ok=True)
        content = {"name": name, **asdict(best), "models": {n: asdict(r) for n, r in registrations.items()}}
        content |= {"outcome": outcome, "next_step": step}
        (folder / FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        if best.status == REFUSED and not RunContext.current().journal:
            # On a cluster there is no journal to keep the registration, and no runner reports it after the stages.
            raise UserError(f"{name} is not registered. {best.why}")


def _described(model: Any, result: ModelResult, evaluation: Evaluation, name: str, summary: DatasetSummary) -> dict[str, Any]:
    against = next((c for c in evaluation.comparisons if (c.model, c.other) == (result.name, CHAMPION)), None)
    notes = "; ".join(n for n in evaluation.notes if n)
    alone = f"without a comparison: {evaluation.not_compared}" if evaluation.not_compared else notes
    why = against.sentence() if against else alone
    digest = digest_of(model)
    members = model.get_string_custom_property(MEMBERS)
    environment = environment_of(model)
    started = {k: v for k in (STARTED_FROM, STARTED_FROM_DIGEST) if (v := model.get_string_custom_property(k))}
    return {
        "name": name,
        "bundle": str(bundle_path(model.uri)),
        "uri": model.uri,
        "passed": result.passed,
        "blessed": result.blessed,
        "compared_with": evaluation.standing_champion,
        "why": why,
        "metrics": result.metrics,
        "data": summary.fingerprint,
        "digest": digest,
        "tags": {
            "framework": result.framework,
            "task": evaluation.task,
            **_positive_tag(evaluation),
            **data_source.tags_of(summary.source),
            **started,
            **environment,
            **({MEMBERS: members} if members else {}),
        },
        "description": model_card(result, evaluation, summary, why, digest or "", started, members, environment),
        "measured_in": tracking.current_run().run_id,
        "dataset": dataset_of(summary, evaluation.split),
    }


def _signature(described: Mapping[str, Any], config: SigningConfig) -> str:
    """Returns the signature of a candidate's files, after comparing them with the digest that training recorded."""
    folder = Path(described["bundle"])
    verify(folder, described["digest"])
    say(f"signing the {described['tags']['framework']} model")
    return sign(folder, config)


def _outcome(name: str, best: Registration, evaluation: Evaluation) -> str:
    if best.status == REFUSED or (best.status == CHALLENGER and evaluation.blessed):
        return f"{name} is not promoted. {best.why}"
    if not evaluation.blessed:
        kept = f"{evaluation.best} is kept as challenger: {name} version {best.version}. " if best.status == CHALLENGER else ""
        return f"{kept}{'; '.join(evaluation.failures)}."
    if best.status == DEFERRED:
        return f"{evaluation.best} is registered as {name} when MLflow is reachable. {best.why}"
    return f"{evaluation.best} is {best.status}: {name} version {best.version}{f'; {best.why}' if best.why else ''}."


def _ids(run: tracking.Run) -> tuple[str, str] | None:
    experiment = RunContext.current().experiment_id
    return (experiment, run.run_id) if experiment and run.run_id else None


def _positive_tag(evaluation: Evaluation) -> dict[str, str]:
    return {} if evaluation.positive_class is None else {POSITIVE_CLASS: evaluation.positive_class}


def _track_verdict(run: tracking.Run, evaluation: Evaluation) -> None:
    """Records the best candidate's verdict on the run; on a cluster no runner does so after the stages."""
    run.metrics(evaluation.metrics)
    if evaluation.blessed:
        run.tags({"blessed": "true", "switchyard.status": "blessed"})
    else:
        why = "not blessed: " + "; ".join(evaluation.failures)
        run.tags({"blessed": "false", "switchyard.status": "not_blessed", "switchyard.why": why})


def _track_overtaken(run: tracking.Run, found: Registration) -> None:
    run.tags({"blessed": "false", "switchyard.status": "not_blessed", "switchyard.why": f"not promoted: {found.why}"})


def _report(name: str, found: Registration) -> None:
    if found.status == DEFERRED:
        warn(f"{name} could not be registered now; `switchyard upload` registers it later")
    elif found.status == REFUSED:
        warn(f"{name} is not registered. {found.why}")
    elif found.status == REGISTERED_CHAMPION:
        say(f"{name} version {found.version} is champion")
    elif found.version:
        standing = f"champion stays version {found.champion}" if found.champion else "there is no champion"
        say(f"{name} version {found.version} is kept as challenger, {standing}")
        if found.why:
            warn(found.why)
    else:
        say("recorded, not registered")


class RegistrySpec(types.ComponentSpec):
    """The component's interface: the model's name in the registry, and the config's `signing` as JSON, if it has one."""

    PARAMETERS = {"model_name": ExecutionParameter(type=str), "signing": ExecutionParameter(type=str, optional=True)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing, optional=True),
    }
    OUTPUTS = {"registration": ChannelParameter(type=standard_artifacts.PushedModel)}


class Register(base_component.BaseComponent):
    """A stage that records every candidate in MLflow, registers those that passed and promotes the blessed one.

    Outputs:
        registration: `registration.json`, the `Registration` of the best candidate and of all candidates.
    """

    SPEC_CLASS = RegistrySpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, inputs: Mapping[str, types.BaseChannel], model_name: str, signing: SigningConfig | None = None) -> None:
        registration = types.Channel(standard_artifacts.PushedModel)
        given = {"signing": signing.model_dump_json()} if signing else {}
        super().__init__(RegistrySpec(**inputs, model_name=model_name, registration=registration, **given))
