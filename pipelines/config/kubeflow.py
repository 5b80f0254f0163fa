"""The config's `kubeflow` section: settings of runs on Kubeflow Pipelines; ignored by local runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, StrictInt, model_validator

from switchyard.components.config import Names, Number, Positive, Section
from switchyard.components.text.redaction import holds_credentials, names_a_secret
from switchyard.pipelines.config.beam import BeamConfig

_QUANTITY = r"(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?"
_DURATION = r"[1-9][0-9]{0,8}(s|m|h)"
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
# https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus: accelerator label, most chips of one machine.
TPUS: Mapping[str, tuple[str, int]] = {
    "v4": ("tpu-v4-podslice", 4),
    "v5e": ("tpu-v5-lite-podslice", 8),
    "v5p": ("tpu-v5p-slice", 4),
    "v6e": ("tpu-v6e-slice", 8),
}
GPUS: Mapping[str, str] = {"gpu": "nvidia.com/gpu", "amd-gpu": "amd.com/gpu"}
_ACCELERATORS = "gpu, gpu:2, amd-gpu, tpu:v5e:2x2, or a resource of the cluster as vendor/name:count"


def _text(value: Any) -> Any:
    # `cpu: 4` and `cpu: 0.5` are numbers in YAML, quantities in Kubernetes.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _quantity(value: Any) -> Any:
    value = _text(value)
    if isinstance(value, str) and not re.fullmatch(_QUANTITY, value):
        raise ValueError(f"{value!r} is not a Kubernetes quantity; allowed: 4, 500m, 16Gi and the like")
    return value


def seconds(duration: str) -> int:
    """Returns the seconds of `90s`, `15m` or `2h`."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def is_duration(value: Any) -> bool:
    """Returns whether a value is a text such as `90s`, `15m` or `2h`."""
    return isinstance(value, str) and bool(re.fullmatch(_DURATION, value))


def _duration(value: Any) -> Any:
    if not is_duration(value):
        raise ValueError(f"must be a duration such as 90s, 15m or 2h, received {value!r}")
    return value


Quantity = Annotated[str, BeforeValidator(_quantity)]
Duration = Annotated[str, BeforeValidator(_duration)]


class Toleration(Section):
    """A Kubernetes toleration, with Kubernetes' own keys (camel case is accepted too).

    Attributes:
        key: taint key.
        operator: comparison of the value.
        value: taint value.
        effect: taint effect.
        toleration_seconds: seconds for which a NoExecute taint is tolerated.
    """

    key: str | None = None
    operator: Literal["Equal", "Exists"] | None = None
    value: str | None = None
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None
    toleration_seconds: Annotated[StrictInt | None, Field(alias="tolerationSeconds")] = None


class Retries(Section):
    """How often a failed task is tried again. Short form in YAML: the count.

    Attributes:
        count: retries after the first try.
        backoff: wait before the first retry.
        factor: growth of the wait from one retry to the next.
    """

    count: Annotated[StrictInt, Field(ge=0, le=100)]
    backoff: Duration = "30s"
    factor: Annotated[Number, Field(ge=1)] = 2.0

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, dict) and "longest" in value:
            raise ValueError(
                "longest: was removed, because Kubeflow Pipelines measures it from the start of the first try and never "
                "retried a longer task; remove it, all `count` retries happen."
            )
        return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Secret(Section):
    """A key of a Kubernetes secret, never its value. Short form in YAML: `NAME/KEY`.

    Attributes:
        name: name of the secret.
        key: key in the secret.
    """

    name: str
    key: str

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            name, slash, key = value.partition("/")
            if not slash or not re.fullmatch(_NAME, name) or not re.fullmatch(r"[-._a-zA-Z0-9]+", key):
                raise ValueError("must name a Kubernetes secret and its key as NAME/KEY (never the value itself)")
            return {"name": name, "key": key}
        return value


class Volume(Section):
    """A PersistentVolumeClaim to mount.

    Attributes:
        claim: name of the claim.
        path: absolute mount path.
    """

    claim: str
    path: Annotated[str, Field(pattern=r"^/.+")]


class Workspace(Section):
    """The volume that lives as long as a run. Short form in YAML: its size.

    Attributes:
        size: size of the PersistentVolumeClaim.
        access_modes: access modes of the claim (`accessModes` too). With ReadWriteOnce all pods of a run that mount it share a
            node.
        storage_class_name: storage class of the claim (`storageClassName` too); `null`: the cluster's default.
    """

    size: Quantity
    access_modes: Annotated[
        tuple[Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"], ...],
        BeforeValidator(lambda v: (v,) if isinstance(v, str) else v),
        Field(min_length=1, validation_alias=AliasChoices("access_modes", "accessModes")),
    ] = ("ReadWriteOnce",)
    storage_class_name: Annotated[
        str | None,
        Field(pattern=f"^{_NAME}$", validation_alias=AliasChoices("storage_class_name", "storageClassName")),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return value if isinstance(value, dict | Workspace) else {"size": value}


class Device(Section):
    """A pod's device: `count` of `resource` in its limits, and the nodes with it."""

    resource: str
    count: Positive
    node_selector: dict[str, str]


def device(accelerator: str) -> Device:
    """Returns the device for `gpu:2`, `tpu:v5e:2x2` or any `vendor/name:count`.

    Raises:
        ValueError: there is no such accelerator.
    """
    kind, _, rest = accelerator.partition(":")
    if kind == "tpu":
        version, _, topology = rest.partition(":")
        if version not in TPUS or not re.fullmatch(r"[0-9]{1,4}(x[0-9]{1,4}){1,2}", topology):
            raise ValueError(
                f"{accelerator!r} is not a TPU; allowed: tpu:TYPE:TOPOLOGY, types {', '.join(TPUS)}, e.g. tpu:v5e:2x2"
            )
        chips = 1
        for side in topology.split("x"):
            chips *= int(side)
        label, most = TPUS[version]
        if not 1 <= chips <= most:
            raise ValueError(
                f"{accelerator!r} has {chips} chips, one machine of {version} at most {most}; slices of several machines "
                "are not supported"
            )
        selector = {"cloud.google.com/gke-tpu-accelerator": label, "cloud.google.com/gke-tpu-topology": topology}
        return Device(resource="google.com/tpu", count=chips, node_selector=selector)
    resource = GPUS.get(kind, kind)
    if "/" not in resource or not re.fullmatch(r"[1-9][0-9]{0,8}|", rest):
        raise ValueError(f"{accelerator!r} is not an accelerator; allowed: {_ACCELERATORS}")
    return Device(resource=resource, count=int(rest or 1), node_selector={})


class StageResources(Section):
    """Resources of one stage's pod.

    Attributes:
        cpu: CPU request and limit as a Kubernetes quantity (`4`, `500m`).
        memory: memory request and limit as a Kubernetes quantity (`16Gi`).
        accelerator: `gpu`, `gpu:2`, `amd-gpu`, `tpu:v5e:2x2`, or any resource as `vendor/name:count`; `null`: none.
        node_selector: node labels that the pod requires, in addition to those of the accelerator.
        tolerations: tolerations of the pod, in addition to those of the accelerator.
        shared_memory: size of `/dev/shm`; with a GPU the default is limited by the pod's memory only.
        retries: retries of a failed task. Default: one.
        timeout: time after which the task fails, for example `90s`, `15m` or `2h`.
        environment: environment variables in plain text.
        secrets: environment variable to `NAME/KEY` of a Kubernetes secret.
        secret_files: folder to the name of a Kubernetes secret, whose keys are mounted there as files.
        volumes: claims to mount.
        cache: `false` never reuses the outputs of an earlier run.
        image: image of this stage instead of the pipeline's.
    """

    cpu: Quantity | None = None
    memory: Quantity | None = None
    accelerator: str | None = None
    node_selector: dict[str, Annotated[str, BeforeValidator(_text)]] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    shared_memory: Quantity | None = None
    retries: Retries | None = None
    timeout: Duration | None = None
    environment: dict[str, Annotated[str, BeforeValidator(_text)]] = Field(default_factory=dict)
    secrets: dict[str, Secret] = Field(default_factory=dict)
    secret_files: dict[str, str] = Field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    cache: bool | None = None
    image: str | None = None

    def over(self, defaults: StageResources) -> StageResources:
        """Returns these resources, with `defaults` for values that are not set."""
        given = self.model_dump(exclude_unset=True)
        merged = defaults.model_dump(exclude_unset=True)
        for key, value in given.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "retries"
            merged[key] = {**merged[key], **value} if both else value
        return StageResources.model_validate(merged)

    @model_validator(mode="after")
    def _check(self) -> StageResources:
        if self.accelerator is not None:
            try:
                device(self.accelerator)
            except ValueError as error:
                raise ValueError(f"accelerator: {error}") from None
        for name in (*self.environment, *self.secrets):
            if not re.fullmatch(_VARIABLE, name):
                raise ValueError(f"{name!r} is not the name of an environment variable")
        for name, value in self.environment.items():
            if names_a_secret(name) or holds_credentials(value):
                what = "looks like" if names_a_secret(name) else "holds"
                raise ValueError(f"environment: {name} {what} a secret; put it under secrets as NAME/KEY of a Kubernetes secret")
        return self


class TrainJobConfig(Section):
    """Training on several nodes by a TrainJob of Kubeflow Trainer (infra/kubeflow-trainer).

    Attributes:
        path: mount path of the shared claim, in the nodes and in the training stage (`kubeflow.stages.training.volumes`).
        runtime: name of the runtime that the nodes use; it mounts the claim.
        kind: kind of the runtime.
    """

    path: Annotated[str, Field(pattern=r"^/.+")]
    runtime: Annotated[str, Field(pattern=f"^{_NAME}$")] = "switchyard"
    kind: Literal["TrainingRuntime", "ClusterTrainingRuntime"] = "TrainingRuntime"


class KubeflowConfig(Section):
    """Settings for runs on Kubeflow Pipelines.

    Attributes:
        image: image of every stage (`make image`). Use immutable tags: the cache identifies the image by its name.
        pipeline_root: object store for artifacts (`s3://`, `gs://`, `minio://`). Default: the cluster's.
        service_account: service account of all pods of a run.
        image_pull_policy: image pull policy. Default: Kubernetes' own.
        image_pull_secrets: names of the image pull secrets.
        data_root: where stages write and read examples directly, bypassing KFP's launcher, which copies every artifact to a
            pod's disk and back: `gs://`, `hdfs://`, or a folder of a claim that all stages mount.
        workspace: volume that lives as long as the run, so that checkpoints survive their pod. A size, or the keys below.
        train_job: TrainJob for training on several nodes (`trainer.accelerator.nodes`); each node gets the resources of
            `kubeflow.stages.training`.
        beam: engine of the Beam stages on the cluster instead of the pipeline's `beam`.
        defaults: resources of every stage.
        stages: stage to resources that override the defaults.
    """

    image: str | None = None
    pipeline_root: str | None = None
    service_account: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: Names = ()
    data_root: str | None = None
    workspace: Workspace | None = None
    train_job: TrainJobConfig | None = None
    beam: BeamConfig | None = None
    defaults: StageResources = StageResources()
    stages: dict[str, StageResources] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> KubeflowConfig:
        if self.pipeline_root is not None and not re.match(r"[a-z0-9]+://", self.pipeline_root):
            raise ValueError(
                f"pipeline_root: must be the URI of an object store (s3://, gs://, minio://), received {self.pipeline_root!r}"
            )
        if self.data_root is not None and not re.match(r"(gs|hdfs)://.|/.", self.data_root):
            # TensorFlow 2.21 cannot read s3://: tensorflow-io, which adds it, has no release for that version.
            raise ValueError(
                f"data_root: must be gs://..., hdfs://... or a folder of a mounted claim, received {self.data_root!r} "
                "(TensorFlow reads no s3://; data.path may be s3://)"
            )
        return self
