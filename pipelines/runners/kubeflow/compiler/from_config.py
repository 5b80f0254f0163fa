"""A config -> its pipeline, compiled for Kubeflow Pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from switchyard.components.errors import UserError
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.config.kubeflow import StageResources
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.stage_settings import VERSION
from switchyard.pipelines.definition import UNCACHED, create_pipeline, training_stages, tuning_stage
from switchyard.pipelines.runners.kubeflow.compiler.compile import CompiledForKubeflow, compile_tfx_pipeline
from switchyard.pipelines.runners.kubeflow.compiler.resources import PipelineResources
from switchyard.pipelines.runners.kubeflow.compiler.train_job import on_several_nodes
from switchyard.pipelines.runners.kubeflow.local_inputs import local_inputs

# On a cluster. Every stage is safe to repeat: its outputs are written anew, the registry knows a model by its artifact. Where
# Kubernetes' or KFP's API is away for seconds, the tasks that end just then fail.
_OF_EVERY_STAGE = StageResources.model_validate({"retries": 1})
# What a task can carry is about 90 kB, code and compressed data together.
_MOST_DATA = 400_000


def default_image() -> str:
    """Returns the name that `make image` gives."""
    return f"switchyard:{VERSION}"


def compile_config(
    config: PipelineConfig, store: Path, root: str, environment: Mapping[str, str], *, carry_data: bool, joined: bool = True
) -> CompiledForKubeflow:
    """Compiles a config's pipeline.

    Args:
        config: with `task` decided.
        store: where the user's code is snapshotted; the snapshots travel with the pipeline.
        root: TFX's pipeline root. Nothing is written there.
        environment: variables of every task.
        carry_data: local data travels too, when it is small: it is compiled for another machine.
        joined: stages that belong together are one task; else each is one.

    Raises:
        UserError: something cannot be compiled, or the data cannot be reached from a cluster.
    """
    kubeflow = config.kubeflow
    beam = kubeflow.beam or config.beam
    # The pipeline's own `beam` may name a jar on this machine.
    if beam.needs_job_server and (kubeflow.beam is None or "flink_job_server_jar" not in beam.options):
        raise UserError(
            "kubeflow.beam: a pod has no Flink job server of its own; set kubeflow.beam.options.job_endpoint (host:port of one "
            "on the cluster) or flink_job_server_jar (its path in the image), or kubeflow.beam={runner: direct}"
        )
    pipeline = create_pipeline(config, pipeline_root=root, code_store=store, beam_pipeline_args=beam.arguments())
    snapshots = {p: [p] if p.is_file() else [f for f in p.rglob("*") if f.is_file()] for p in sorted(store.glob("*"))}
    data, readers = _data(config) if carry_data else ({}, {})
    nodes = [c.id for c in pipeline.components]
    stages = _stages(config, nodes, _OF_EVERY_STAGE if carry_data else StageResources())
    driven = _all_carried(config, data)
    if driven:
        # The cluster keeps its data once more for every try that it may have.
        stages = _tried_once(stages, config, "ingest")
    return compile_tfx_pipeline(
        pipeline,
        image=kubeflow.image or default_image(),
        stages=stages,
        resources=PipelineResources(
            image_pull_policy=kubeflow.image_pull_policy,
            image_pull_secrets=kubeflow.image_pull_secrets,
            workspace=kubeflow.workspace,
        ),
        environment={**environment, **RunContext(data_root=kubeflow.data_root or "").variables()},
        local_files={**snapshots, **data},
        readers=readers,
        driven=("ingest",) if driven else (),
        joined=joined,
        # What is trained resumes from its last checkpoint: what comes before it is not to be done again with it.
        alone=[*training_stages(config), *map(tuning_stage, training_stages(config))],
    )


def _stages(config: PipelineConfig, nodes: Sequence[str], of_every: StageResources) -> dict[str, StageResources]:
    kubeflow, trainings = config.kubeflow, training_stages(config)
    defaults = kubeflow.defaults.over(of_every)
    given = {k: v for k, v in kubeflow.stages.items() if k != "training" or k in nodes}
    if "training" in kubeflow.stages and "training" not in nodes:
        # Of all trainers; one of them may say more.
        for stage in trainings:
            given[stage] = given.get(stage, StageResources()).over(kubeflow.stages["training"])
    found = {name: given.get(name, StageResources()).over(defaults) for name in {*nodes, *given}}
    kind, count = config.trainer.accelerator.kind, config.trainer.accelerator.count
    for stage in trainings:
        if kind == "tpu" and not found[stage].accelerator:
            raise UserError(
                "trainer.accelerator: on a cluster a TPU has a type; set kubeflow.stages.training.accelerator, e.g. tpu:v5e:2x2"
            )
        if kind == "gpu" and not found[stage].accelerator:
            found[stage] = StageResources(accelerator=f"gpu:{count}" if count > 1 else "gpu").over(found[stage])
    if config.trainer.accelerator.nodes > 1:
        for stage in trainings:
            found[stage] = on_several_nodes(config, stage, found[stage], default_image())
    for stage in trainings:
        if (tuning := tuning_stage(stage)) in nodes:
            # Its trials are trained on what the training is trained on.
            found[tuning] = given.get(tuning, StageResources()).over(found[stage])
    for stage in UNCACHED:
        if stage in found:
            found[stage] = StageResources(cache=False).over(found[stage])
    return found


def _tried_once(stages: Mapping[str, StageResources], config: PipelineConfig, stage: str) -> dict[str, StageResources]:
    """Returns the resources with one try of a stage, unless the config says more: with its data, a second one costs the most."""
    given = config.kubeflow.stages.get(stage, StageResources()).over(config.kubeflow.defaults)
    found = dict(stages)
    if given.retries is None and stage in found:
        found[stage] = found[stage].model_copy(update={"retries": None})
    return found


def _data(config: PipelineConfig) -> tuple[dict[Path, list[Path]], dict[Path, tuple[str, ...]]]:
    """Returns the local files that travel with the pipeline: folder or file -> files, and the stages that read them."""
    found: dict[Path, list[Path]] = {}
    readers: dict[Path, tuple[str, ...]] = {}
    total = 0
    for where, folder, files in local_inputs(config):
        total += sum(f.stat().st_size for f in files)
        if total > _MOST_DATA:
            raise UserError(
                f"{where} holds {total:,} bytes on this machine; a pipeline carries {_MOST_DATA:,}. Put the data where "
                "the cluster reads it, and name it by s3://, gs:// or the path of a claim (kubeflow.stages.ingest.volumes)."
            )
        # A sample is one file, as a rule, and the training data that lies beside it does not travel to the gate.
        sample = where.startswith("validation.serving_sample")
        reader = "data_gate" if sample else "ingest"
        for file in files:
            place = file if sample and len(files) == 1 else folder
            if file not in found.setdefault(place, []):
                found[place].append(file)
            if reader not in readers.setdefault(place, ()):
                readers[place] = (*readers[place], reader)
    return found, readers


def _all_carried(config: PipelineConfig, data: Mapping[Path, Sequence[Path]]) -> bool:
    """Whether ingest reads nothing but files that travel: what its driver says of them is known when the pipeline is compiled."""
    patterns = [*config.data.path, *(p for paths in (config.data.split_paths or {}).values() for p in paths)]
    carried = [where.partition(": ")[2] for where, _, _ in local_inputs(config)] if data else []
    return bool(patterns) and all(p in carried for p in patterns)
