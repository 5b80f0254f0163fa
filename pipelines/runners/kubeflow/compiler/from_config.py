"""Compiles a config's pipeline for Kubeflow Pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from switchyard.components.errors import UserError
from switchyard.components.text.redaction import holds_credentials, names_a_secret
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.config.kubeflow import StageResources
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.stage_settings import VERSION, training_stages, tuning_stage
from switchyard.pipelines.definition import create_pipeline, uncached
from switchyard.pipelines.runners.kubeflow.compiler.compile import CompiledForKubeflow, compile_tfx_pipeline
from switchyard.pipelines.runners.kubeflow.compiler.resources import PipelineResources
from switchyard.pipelines.runners.kubeflow.compiler.train_job import on_several_nodes
from switchyard.pipelines.runners.kubeflow.local_inputs import local_inputs
from switchyard.pipelines.runners.kubeflow.uploaded_files import FileStore

# Cluster defaults. Every stage can be retried safely: its outputs are rewritten, and the registry identifies a model by its
# artifact. Tasks fail if they end while Kubernetes' or KFP's API is unreachable for some seconds.
_OF_EVERY_STAGE = StageResources.model_validate({"retries": 1})
# Uncompressed bytes; a task can carry about 90 kB, code and compressed data together.
_MOST_DATA = 400_000
# Uncompressed bytes that are uploaded instead, and the size above which a file (the data: all files together) is.
_MOST_UPLOADED, _UPLOADED = 50_000_000, 10_000
# Bytes of data that are transformed in less time than a pod takes to start.
_QUICKLY_TRANSFORMED = 10_000_000


def default_image() -> str:
    """Returns the image name that `make image` builds."""
    return f"switchyard:{VERSION}"


def compile_config(
    config: PipelineConfig,
    store: Path,
    root: str,
    environment: Mapping[str, str],
    *,
    carry_data: bool,
    joined: bool = True,
    uploads: FileStore | None = None,
    remote_bytes: int | None = None,
) -> CompiledForKubeflow:
    """Compiles a config's pipeline.

    Args:
        config: config with `task` inferred.
        store: folder for snapshots of the user's code; they are embedded in the pipeline.
        root: TFX's pipeline root. Nothing is written there.
        environment: environment variables of every task.
        carry_data: compile for another machine: small local data is embedded too.
        joined: join compatible stages into one task; otherwise every stage is a task.
        uploads: stores files that take more room in the pipeline than their names; default: all files are embedded.
        remote_bytes: bytes of the data in object stores, if ingest's driver can read it here and the pipeline runs at once;
            default: the driver is a task.

    Raises:
        UserError: a node cannot be compiled, the data is not accessible from a cluster, or a value holds a secret.
    """
    kubeflow = config.kubeflow
    _check_secrets(config)
    beam = kubeflow.beam or config.beam
    # A jar in the pipeline's own `beam` section may exist only on this machine.
    if beam.needs_job_server and (kubeflow.beam is None or "flink_job_server_jar" not in beam.options):
        raise UserError(
            "kubeflow.beam: a pod does not start a Flink job server; set kubeflow.beam.options.job_endpoint (host:port of one "
            "on the cluster) or flink_job_server_jar (its path in the image), or kubeflow.beam={runner: direct}"
        )
    pipeline = create_pipeline(config, pipeline_root=root, code_store=store, beam_pipeline_args=beam.arguments())
    # The store also has the snapshots of earlier versions and of other pipelines, which must not leave this machine.
    named = "\n".join(str(v) for c in pipeline.components for v in c.exec_properties.values())
    used = [p for p in sorted(store.glob("*")) if str(p) in named]
    snapshots = {p: [p] if p.is_file() else [f for f in p.rglob("*") if f.is_file()] for p in used}
    _check_code(snapshots)
    data, readers = _data(config, _MOST_UPLOADED if uploads else _MOST_DATA) if carry_data else ({}, {})
    stored = uploads.upload([*_large(snapshots, each=True), *_large(data, each=False)]) if uploads else {}
    if uploads and not stored:
        _data(config, _MOST_DATA)  # refuses what cannot be embedded
    nodes = [c.id for c in pipeline.components]
    stages = _stages(config, nodes, _OF_EVERY_STAGE if carry_data else StageResources())
    if carry_data:
        _check_signing(config, stages["registry"])
    carried = _all_carried(config, data)
    driven = carried or (carry_data and remote_bytes is not None)
    trainings = training_stages(config)
    # Training and tuning resume from their last checkpoint; joined stages before them would run again on a retry.
    size = _size(data) + (remote_bytes or 0)
    alone = [] if driven and _joins_training(config, stages, size) else [*trainings, *map(tuning_stage, trainings)]
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
        stored=stored,
        driven=("ingest",) if driven else (),
        verified=("ingest",) if driven and not carried else (),
        joined=joined,
        alone=alone,
        costly=trainings,
    )


def _check_secrets(config: PipelineConfig) -> None:
    """Refuses secrets that would be part of the pipeline, which the cluster stores and shows."""
    section, beam = ("kubeflow.beam", config.kubeflow.beam) if config.kubeflow.beam else ("beam", config.beam)
    options = {f"{section}.options.{name}": str(value) for name, value in beam.options.items()}
    texts = {**options, "data.path": " ".join(config.data.path), "kubeflow.pipeline_root": config.kubeflow.pipeline_root or ""}
    texts |= {f"data.splits.{split}": " ".join(paths) for split, paths in (config.data.split_paths or {}).items()}
    for key, text in texts.items():
        if holds_credentials(text) or (key in options and names_a_secret(key)):
            raise UserError(
                f"{key}: holds a secret, which would be stored in the cluster's database; remove it and give it to the tasks as "
                "a variable or file: kubeflow.defaults.secrets, kubeflow.defaults.secret_files, or by their service account"
            )


def _check_signing(config: PipelineConfig, registry: StageResources) -> None:
    """Refuses a key that is not mounted in the registry's pod: it never leaves this machine with the pipeline."""
    given = config.signing
    mounted = [*registry.secret_files, *(v.path for v in registry.volumes)]
    for name, file in (
        (("key", given.key), ("certificate", given.certificate), *(("chain", c) for c in given.chain)) if given else ()
    ):
        if file is not None and not any(Path(file).is_relative_to(folder) for folder in mounted):
            raise UserError(
                f"signing.{name}: {file} is no file of the registry's pod; make a secret of it (kubectl create secret generic "
                "signing --from-file=key.pem), mount that with kubeflow.stages.registry.secret_files={/etc/signing: signing}, "
                f"and set signing.{name}=/etc/signing/key.pem; or set signing=null"
            )


def _joins_training(config: PipelineConfig, stages: Mapping[str, StageResources], size: int) -> bool:
    """Returns whether training may share the task of transform, which then runs again with every new setting of the trainer.

    Only where repeating transform costs less than a pod, and no try of the training can resume from an earlier one.
    """
    accelerator, (training, *others) = config.trainer.accelerator, training_stages(config)
    resumes = config.kubeflow.workspace is not None or accelerator.nodes > 1
    # TensorFlow's devices cannot be configured any more once transform has used it.
    on_devices = accelerator.kind != "auto" or accelerator.count > 1 or stages[training].accelerator is not None
    return not (resumes or on_devices or others or tuning_stage(training) in stages or size > _QUICKLY_TRANSFORMED)


def _stages(config: PipelineConfig, nodes: Sequence[str], of_every: StageResources) -> dict[str, StageResources]:
    kubeflow, trainings = config.kubeflow, training_stages(config)
    defaults = kubeflow.defaults.over(of_every)
    given = {k: v for k, v in kubeflow.stages.items() if k != "training" or k in nodes}
    if "training" in kubeflow.stages and "training" not in nodes:
        # Applies to all trainers; a trainer's own stage overrides it.
        for stage in trainings:
            given[stage] = given.get(stage, StageResources()).over(kubeflow.stages["training"])
    found = {name: given.get(name, StageResources()).over(defaults) for name in {*nodes, *given}}
    kind, count = config.trainer.accelerator.kind, config.trainer.accelerator.count
    for stage in trainings:
        if kind == "tpu" and not found[stage].accelerator:
            raise UserError(
                "trainer.accelerator: on a cluster a TPU needs a type; set kubeflow.stages.training.accelerator, e.g. tpu:v5e:2x2"
            )
        if kind == "gpu" and not found[stage].accelerator:
            found[stage] = StageResources(accelerator=f"gpu:{count}" if count > 1 else "gpu").over(found[stage])
    if config.trainer.accelerator.nodes > 1:
        for stage in trainings:
            found[stage] = on_several_nodes(config, stage, found[stage], default_image())
    for stage in trainings:
        if (tuning := tuning_stage(stage)) in nodes:
            # Trials train on the same resources as the training stage.
            found[tuning] = given.get(tuning, StageResources()).over(found[stage])
    for stage in uncached(found):
        found[stage] = StageResources(cache=False).over(found[stage])
    return found


def _size(places: Mapping[Path, Sequence[Path]]) -> int:
    return sum(f.stat().st_size for files in places.values() for f in files)


def _large(places: Mapping[Path, Sequence[Path]], *, each: bool) -> list[Path]:
    """Returns the files that are worth an upload: each large one, or all if they are large together."""
    sizes = {f: f.stat().st_size for files in places.values() for f in files}
    return [f for f in sizes if (sizes[f] if each else sum(sizes.values())) > _UPLOADED]


def _check_code(snapshots: Mapping[Path, Sequence[Path]]) -> None:
    """Raises UserError if the user's code has more bytes than are uploaded."""
    sizes = {f: f.stat().st_size for files in snapshots.values() for f in files}
    if sum(sizes.values()) > _MOST_UPLOADED:
        largest = ", ".join(f"{f.name} ({sizes[f]:,})" for f in sorted(sizes, key=sizes.__getitem__, reverse=True)[:3])
        raise UserError(
            f"files: the user's code and the files that it opens hold {sum(sizes.values()):,} bytes; the limit for a compiled "
            f"pipeline is {_MOST_UPLOADED:,}. Largest: {largest}. Put them into the image (kubeflow.image), or into an object "
            "store that the code reads."
        )


def _data(config: PipelineConfig, most: int) -> tuple[dict[Path, list[Path]], dict[Path, tuple[str, ...]]]:
    """Returns the local files to embed or upload: folder or file -> files, and folder or file -> stages that read them.

    Raises:
        UserError: they have more than `most` bytes.
    """
    found: dict[Path, dict[Path, None]] = {}
    readers: dict[Path, tuple[str, ...]] = {}
    total = 0
    for where, folder, files in local_inputs(config):
        total += sum(f.stat().st_size for f in files)
        if total > most:
            more = "" if most > _MOST_DATA else f" (submit uploads {_MOST_UPLOADED:,} to MLflow, if tracking.uri names a server)"
            raise UserError(
                f"{where} holds {total:,} bytes on this machine; the limit for a compiled pipeline is {most:,}{more}. Put "
                "the data where the cluster can read it, and give its s3:// or gs:// URI or its path on a claim "
                "(kubeflow.stages.ingest.volumes)."
            )
        # A sample is usually one file; training data in the same folder is not embedded in the gate's task.
        sample = where.startswith("validation.serving_sample")
        reader = "data_gate" if sample else "ingest"
        for file in files:
            place = file if sample and len(files) == 1 else folder
            found.setdefault(place, {})[file] = None
            if reader not in readers.setdefault(place, ()):
                readers[place] = (*readers[place], reader)
    return {place: list(files) for place, files in found.items()}, readers


def _all_carried(config: PipelineConfig, data: Mapping[Path, Sequence[Path]]) -> bool:
    """Returns whether ingest reads only embedded files; then its driver's output is known at compile time."""
    patterns = [*config.data.path, *(p for paths in (config.data.split_paths or {}).values() for p in paths)]
    carried = [where.partition(": ")[2] for where, _, _ in local_inputs(config)] if data else []
    return bool(patterns) and all(p in carried for p in patterns)
