"""Recurring runs of KFP, created from an uploaded pipeline: with an inline spec and plugins KFP 2.17 never starts a run."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from switchyard.components.errors import StageError, UserError
from switchyard.pipelines.runners.kubeflow.cluster.client import KubeflowClient
from switchyard.pipelines.runners.kubeflow.compiler.compile import CompiledForKubeflow


@dataclass(frozen=True)
class Schedule:
    """A recurring run to create.

    Attributes:
        name: name of the recurring run and prefix of its runs' names.
        experiment_id: id of the runs' experiment.
        cron: cron expression of six fields.
        catchup: start missed runs later; otherwise they are skipped.
        most: maximum number of concurrent runs.
        service_account: service account of the runs' pods.
        mlflow_experiment: experiment for KFP's MLflow plugin, if it is on.
    """

    name: str
    experiment_id: str
    cron: str
    catchup: bool
    most: int
    service_account: str | None
    mlflow_experiment: str


@dataclass(frozen=True)
class Recurring:
    """A recurring run that exists in KFP.

    Attributes:
        recurring_run_id: id of the recurring run.
        name, cron, catchup: see Schedule.
        state: ENABLED or DISABLED.
        most: maximum number of concurrent runs, as text.
        created: time of creation.
        version: id of the pipeline version that its runs use; None for an inline pipeline.
    """

    recurring_run_id: str
    name: str
    state: str
    cron: str | None
    catchup: bool
    most: str | None
    created: datetime | None
    version: str | None


class Schedules:
    """The recurring runs of one KFP."""

    def __init__(self, client: KubeflowClient) -> None:
        self._client, self._given = client, client.given
        self._recurring = client.service("RecurringRunServiceApi")
        self._pipelines = client.service("PipelineServiceApi")

    def make(self, compiled: CompiledForKubeflow, root: str | None, wanted: Schedule) -> Recurring:
        """Uploads the pipeline and creates a recurring run from it.

        Args:
            compiled: the pipeline; uploaded as a new version if KFP already has a pipeline of its name.
            root: root of the artifacts. It is written into the pipeline, as KFP ignores a root given with a version reference.
            wanted: see Schedule.

        Raises:
            StageError: KFP did not store the pipeline, so no run would ever start; the recurring run was deleted again.
        """
        if root:
            compiled = replace(compiled, spec={**compiled.spec, "defaultPipelineRoot": root})
        reference = self._upload(compiled)
        model = self._client.model
        recurring = model(
            "V2beta1RecurringRun",
            display_name=wanted.name,
            experiment_id=wanted.experiment_id,
            pipeline_version_reference=model("V2beta1PipelineVersionReference", **reference),
            mode="ENABLE",
            no_catchup=not wanted.catchup,
            max_concurrency=str(wanted.most),
            trigger=model("V2beta1Trigger", cron_schedule=model("V2beta1CronSchedule", cron=wanted.cron)),
            service_account=wanted.service_account,
            plugins_input={"mlflow": {"experiment_name": wanted.mlflow_experiment}},
        )
        with self._client.errors("make the recurring run"):
            made = self._recurring.recurring_run_service_create_recurring_run(recurring, **self._given)
        if not self._can_start(made.recurring_run_id):
            self.delete(made.recurring_run_id)
            raise StageError(
                f"KFP did not store the pipeline of the recurring run {made.recurring_run_id}, which would never start a "
                "run and was deleted again. Submit the pipeline once without --schedule to see whether this KFP runs it."
            )
        return _recurring(made)

    def all(self, experiment_id: str | None) -> list[Recurring]:
        """Returns the recurring runs, of one experiment or of all."""
        given = {**self._given, **({"experiment_id": experiment_id} if experiment_id else {})}
        if not experiment_id:
            given["namespace"] = self._client.connection.namespace or ""
        found: list[Recurring] = []
        token = ""
        with self._client.errors("list recurring runs"):
            while True:
                page = self._recurring.recurring_run_service_list_recurring_runs(page_token=token, page_size=50, **given)
                found += map(_recurring, page.recurring_runs or [])
                token = page.next_page_token
                if not token:
                    return found

    def pause(self, schedule: str) -> None:
        """Pauses a recurring run: it starts no runs until it is resumed."""
        with self._client.errors(f"pause recurring run {schedule}", missing=_missing(schedule)):
            self._recurring.recurring_run_service_disable_recurring_run(schedule, **self._given)

    def resume(self, schedule: str) -> None:
        """Resumes a recurring run."""
        with self._client.errors(f"resume recurring run {schedule}", missing=_missing(schedule)):
            self._recurring.recurring_run_service_enable_recurring_run(schedule, **self._given)

    def delete(self, schedule: str) -> None:
        """Deletes a recurring run, including the Workflows of its active runs."""
        with self._client.errors(f"delete recurring run {schedule}", missing=_missing(schedule)):
            self._recurring.recurring_run_service_delete_recurring_run(schedule, **self._given)

    def exists(self, schedule: str) -> None:
        """Raises UserError when the recurring run does not exist."""
        with self._client.errors(f"get recurring run {schedule}", missing=_missing(schedule)):
            self._recurring.recurring_run_service_get_recurring_run(schedule, **self._given)

    def _upload(self, compiled: CompiledForKubeflow) -> Mapping[str, str]:
        """Returns the ids of the pipeline and of its version; equal content gets the same version."""
        text, name = compiled.to_yaml(), str(compiled.spec["pipelineInfo"]["name"])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(text, encoding="utf-8")
            known = self._pipeline(name)
            if known is None:
                # KFP names the first version like the pipeline.
                return self._upload_first(name, path)
            return self._upload_version(known, f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}", path)

    def _upload_first(self, name: str, path: Path) -> Mapping[str, str]:
        with self._client.errors(f"upload pipeline {name!r}"):
            made = self._uploads().upload_pipeline(
                str(path), name=name, display_name=name, namespace=self._client.connection.namespace or "", **self._given
            )
        version = self._version(str(made.pipeline_id), name)
        if version is None:
            raise StageError(f"KFP did not store the version of pipeline {name!r}, which was just uploaded.")
        return {"pipeline_id": str(made.pipeline_id), "pipeline_version_id": version}

    def _upload_version(self, pipeline_id: str, version: str, path: Path) -> Mapping[str, str]:
        found = self._version(pipeline_id, version)
        if found is None:
            try:
                with self._client.errors(f"upload version {version!r}"):
                    made = self._uploads().upload_pipeline_version(
                        str(path), name=version, display_name=version, pipelineid=pipeline_id, **self._given
                    )
                found = str(made.pipeline_version_id)
            except UserError:
                # 409: the same version was uploaded concurrently.
                found = self._version(pipeline_id, version)
                if found is None:
                    raise
        return {"pipeline_id": pipeline_id, "pipeline_version_id": found}

    def _pipeline(self, name: str) -> str | None:
        with self._client.errors(f"find pipeline {name!r}"):
            found = self._pipelines.pipeline_service_list_pipelines(
                filter=self._client.filter("display_name", name), namespace=self._client.connection.namespace or "", **self._given
            ).pipelines
        return next((str(p.pipeline_id) for p in found or [] if name in (p.name, p.display_name)), None)

    def _version(self, pipeline_id: str, name: str) -> str | None:
        token = ""
        with self._client.errors(f"find version {name!r}"):
            while True:
                page = self._pipelines.pipeline_service_list_pipeline_versions(
                    pipeline_id, page_token=token, page_size=100, **self._given
                )
                for version in page.pipeline_versions or []:
                    if name in (version.name, version.display_name):
                        return str(version.pipeline_version_id)
                token = page.next_page_token
                if not token:
                    return None

    def _uploads(self) -> Any:
        return self._client.service("PipelineUploadServiceApi")

    def _can_start(self, schedule: str) -> bool:
        """Returns whether KFP stored a pipeline for it; a missing one is otherwise reported only in the controller's log."""
        with self._client.errors("read the recurring run"):
            kept = self._recurring.recurring_run_service_get_recurring_run(schedule, **self._given)
            if kept.pipeline_spec:
                return True
            reference = kept.pipeline_version_reference
            if not reference or not reference.pipeline_version_id:
                return False
            version = self._pipelines.pipeline_service_get_pipeline_version(
                reference.pipeline_id, reference.pipeline_version_id, **self._given
            )
        return bool(version.pipeline_spec)


def _recurring(answer: Any) -> Recurring:
    trigger, reference = answer.trigger, answer.pipeline_version_reference
    return Recurring(
        recurring_run_id=str(answer.recurring_run_id),
        name=str(answer.display_name),
        state=str(answer.status or ""),
        cron=trigger.cron_schedule.cron if trigger and trigger.cron_schedule else None,
        catchup=not answer.no_catchup,
        most=answer.max_concurrency,
        created=answer.created_at,
        version=reference.pipeline_version_id if reference else None,
    )


def _missing(schedule: str) -> str:
    return f"unknown recurring run {schedule}; list them with switchyard runs schedules list"


def schedule_workflow(name: str) -> str:
    """Returns the prefix of a recurring run's run names: Kubernetes allows lowercase letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", name.lower())[:25].strip("-")


def six_fields(cron: str) -> str:
    """Returns a cron expression with six fields: a standard one of five gets KFP's leading field for seconds.

    Raises:
        UserError: the expression has neither five nor six fields.
    """
    fields = cron.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise UserError(
            f'--schedule {cron!r}: must be a cron expression of five fields (minute hour day month weekday), e.g. "0 3 * * *"'
        )
    return " ".join(fields)
