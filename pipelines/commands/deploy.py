"""`switchyard deploy`: writes manifests for KServe, or the folder that TensorFlow Serving watches."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import yaml

from switchyard.components.errors import StageError, UserError
from switchyard.components.text.addresses import is_loopback
from switchyard.components.tracking import run as tracking
from switchyard.pipelines.api.output_path import check_output
from switchyard.pipelines.commands.options import (
    handle_errors,
    registry_option,
    trust_option,
    verify_option,
    workspace_option,
)
from switchyard.pipelines.kserve.cluster import KNATIVE, STANDARD, KServe, await_ready, look
from switchyard.pipelines.terminal.output import quiet

if TYPE_CHECKING:
    from switchyard.components.bundle.source import ModelRef
    from switchyard.pipelines.config.kubeflow import Secret, StageResources

# Concurrent requests per replica before Knative starts another one.
_CONCURRENCY = 32


@click.command("deploy")
@click.argument("model")
@click.option("--target", required=True, type=click.Choice(["kserve", "tf-serving"]), help="Platform that serves the model.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write to.")
@click.option("--apply", is_flag=True, help="kserve: apply the manifests with kubectl and wait until the version serves.")
@click.option(
    "--canary",
    type=click.IntRange(0, 100),
    metavar="PERCENT",
    help="kserve: share of requests for this version, in percent; the previous version gets the rest.",
)
@click.option("--name", metavar="NAME", help="kserve: name of the InferenceService.  [default: the model's]")
@click.option("--namespace", default="serving", show_default=True, help="kserve: namespace; infra/serving prepares one.")
@click.option("--image", metavar="IMAGE", help="kserve: container image, built by make image.  [default: switchyard:VERSION]")
@click.option(
    "--service-account",
    default="model-reader",
    show_default=True,
    help="kserve: service account with read access to the object store.",
)
@click.option(
    "--cluster-tracking-uri",
    metavar="URI",
    help="kserve: read the model from MLflow at this address inside the cluster.  [default: from the registry's object store]",
)
@click.option("--cpu", metavar="QUANTITY", help="kserve: CPUs per replica.  [default: 2]")
@click.option("--memory", metavar="QUANTITY", help="kserve: memory per replica.  [default: 4Gi]")
@click.option("--accelerator", metavar="NAME", help="kserve: accelerator per replica: gpu, gpu:2, amd-gpu, or vendor/name:count.")
@click.option(
    "--min-replicas", default=1, show_default=True, type=click.IntRange(0), help="kserve: fewest replicas; 0 needs Knative."
)
@click.option("--max-replicas", default=3, show_default=True, type=click.IntRange(1), help="kserve: most replicas.")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    help="kserve: concurrent requests per replica before another one starts; needs Knative.  [default: 32 with Knative]",
)
@click.option(
    "--mode",
    type=click.Choice(["standard", "knative"]),
    help="kserve: KServe's deployment mode.  [default: detected by kubectl if needed]",
)
@click.option("--token-secret", metavar="NAME/KEY", help="kserve: secret with the token that clients must send.")
@click.option("--secret-env", multiple=True, metavar="VARIABLE=NAME/KEY", help="kserve: variable from a secret; may be repeated.")
@trust_option
@verify_option
@registry_option
@workspace_option
@handle_errors
def command(model: str, target: str, output: Path, tracking_uri: str | None, workspace: Path | None, **options: Any) -> None:
    """Deploy MODEL: write the manifests for KServe, or a SavedModel for TensorFlow Serving.

    kserve writes an InferenceService that runs switchyard serve with MODEL's current version. tf-serving writes
    OUTPUT/NAME/VERSION, a SavedModel that takes raw features (TensorFlow models only).

    \b
    switchyard deploy breast_cancer@champion --target kserve -o manifests/
    switchyard deploy breast_cancer@challenger --target kserve -o manifests/ --canary 10 --apply
    switchyard deploy breast_cancer@champion --target tf-serving -o models/
    """  # noqa: D301 (click requires the character)
    if target == "kserve":
        deploy_kserve(model, tracking_uri, workspace, output, options)
        return
    with quiet():  # hides TensorFlow's device messages
        deploy_tensorflow_serving(model, tracking_uri, workspace, output, trust=options["trust"], verify=options["verify"])


def deploy_kserve(model: str, tracking_uri: str | None, workspace: Path | None, output: Path, options: Mapping[str, Any]) -> None:
    """Writes the manifests and, with `apply`, applies them.

    Raises:
        UserError: the model is not in the registry, its signature does not verify, or an option is invalid or has no effect in
            KServe's mode.
        StageError: kubectl cannot apply them, or the new version does not start.
    """
    from switchyard.components.tracking.references import name_and_selector
    from switchyard.pipelines.api.model_argument import model_ref
    from switchyard.pipelines.kserve.manifests import Deployment, in_store, inference_service, service_name, signer_map

    if name_and_selector(model) is None:
        raise UserError(f"--target kserve: {model} is not a registered model; give one, for example breast_cancer@champion.")
    check_output(output, is_folder=True)
    if options["apply"]:
        _check_kubectl()
    source = model_ref(model, tracking_uri, workspace, trust=options["trust"], verify=options["verify"])
    assert source is not None
    version = source.version()
    client = tracking.client(source.uri)
    digest = source.digest(version)
    if options["verify"]:
        with quiet(), source.open(version) as opened:
            digest = opened.digest
    if digest is None and not options["trust"]:
        raise UserError(
            f"{source.name} version {version} was registered without a digest, so the server cannot verify its files. "
            "Train and register it again; or, if it is signed, add --verify KEY; or, if you trust everyone who can write to it, "
            "add --trust."
        )
    name = options["name"] or service_name(source.name)
    kserve = kserve_for(name, options)
    location, given = str(client.get_model_version_download_uri(source.name, version)), options["cluster_tracking_uri"]
    wanted = Deployment(
        model=source.name,
        version=version,
        location=location,
        tracking_uri=_cluster_uri(source, given) if given or not in_store(location) else None,
        name=name,
        namespace=options["namespace"],
        image=options["image"] or f"switchyard:{metadata.version('switchyard')}",
        service_account=options["service_account"],
        resources=_resources(options),
        replicas=_replicas(options["min_replicas"], options["max_replicas"]),
        concurrency=options["concurrency"] or (_CONCURRENCY if kserve.mode == KNATIVE else None),
        canary=options["canary"],
        before=predictor_before(name, kserve, options),
        token=_secret("--token-secret", options["token_secret"]),
        digest=digest,
        signer=options["verify"].read_text(encoding="utf-8") if options["verify"] else None,
    )
    manifest = inference_service(wanted)
    output.mkdir(parents=True, exist_ok=True)
    files = {"inference-service.yaml": manifest}
    if signer := signer_map(wanted):
        files["signer.yaml"] = signer
    files["kustomization.yaml"] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(files),
    }
    for file, content in files.items():
        (output / file).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    share = f", {wanted.canary} % of the requests" if wanted.canary is not None else ""
    click.echo(f"{output}: {source.name} version {version}{share}")
    if options["apply"]:
        _apply(output)
        await_ready(name, options["namespace"])
        click.echo(f"{name}: version {version} serves{share}")
    else:
        click.echo(f"kubectl apply -k {shlex.quote(str(output))}")


def kserve_for(name: str, options: Mapping[str, Any]) -> KServe:
    """Returns the cluster's KServe if the options depend on its mode, else only the mode given.

    Raises:
        UserError: the mode is unknown, or an option has no effect in it.
    """
    needs = {
        "--canary": options["canary"] is not None,
        "--concurrency": options["concurrency"] is not None,
        "--min-replicas 0": options["min_replicas"] == 0,
    }
    dependent = [option for option, given in needs.items() if given]
    if not dependent and not options["apply"]:
        return KServe(options["mode"])
    kserve = look(name, options["namespace"], options["mode"])
    if dependent and kserve.mode is None:
        raise UserError(
            f"{dependent[0]}: its effect depends on KServe's deployment mode, which kubectl cannot read here; give --mode "
            "standard or --mode knative (kubectl get inferenceservice NAME -o jsonpath={.status.deploymentMode})."
        )
    if kserve.mode == STANDARD:
        for option in dependent:
            if option != "--canary":
                raise UserError(
                    f"{option}: KServe's standard mode ignores it: it scales by CPU load, down to one replica; remove it, "
                    "or deploy with Knative (--mode knative)."
                )
    return kserve


def predictor_before(name: str, kserve: KServe, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the previous predictor for a canary in standard mode; None without a canary, or with Knative, which keeps it."""
    if options["canary"] is None or kserve.mode != STANDARD:
        return None
    if not kserve.splits_standard:
        version = ".".join(map(str, kserve.version)) if kserve.version else "(version unknown: kubectl cannot read it)"
        raise UserError(
            f"--canary: KServe {version} sends every request to the new version in standard mode; it splits requests from "
            f"0.20 on. Alternatives: switchyard serve NAME@champion --canary {options['canary']} (one server for both "
            "versions), KServe with Knative (--mode knative), or KServe 0.20."
        )
    predictor = ((kserve.service or {}).get("spec") or {}).get("predictor")
    if not predictor:
        raise UserError(
            f"--canary: there is no InferenceService {name} in namespace {options['namespace']} whose requests could be "
            "split; first deploy the version that receives the other requests, without --canary."
        )
    return dict(predictor)


def deploy_tensorflow_serving(
    model: str, tracking_uri: str | None, workspace: Path | None, output: Path, *, trust: bool, verify: Path | None
) -> None:
    """Writes a SavedModel to `OUTPUT/NAME/VERSION`.

    Raises:
        UserError: the model does not fit TensorFlow Serving, its signature does not verify, or the version already exists.
    """
    from switchyard.components.serving.tensorflow_serving import export_for_tensorflow_serving
    from switchyard.pipelines.api.model_argument import open_model

    check_output(output, is_folder=True)
    with open_model(model, tracking_uri, workspace, trust=trust, verify=verify) as opened:
        name, version = (opened.name, opened.version) if opened.ref else ("model", "1")
        target = output / name / version
        if target.exists():
            raise UserError(f"--output: {target} already exists; choose another version, or remove the folder.")
        export_for_tensorflow_serving(opened.folder, target, verified=opened.digest is not None)
    options = (f"--model_name={name}", f"--model_base_path={(output / name).resolve()}")
    click.echo(shlex.join(("tensorflow_model_server", "--rest_api_port=8501", *options)))


def _cluster_uri(source: ModelRef, given: str | None) -> str | None:
    """Returns the registry's address for pods, or None if the known address is valid on this machine only."""
    uri = given or source.uri
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        if given:
            raise UserError(f"--cluster-tracking-uri: {given!r} must be http(s)://HOST[:PORT].")
        return None
    if parts.username or parts.password:
        raise UserError(
            "--cluster-tracking-uri: contains a password, which manifests must not hold; remove it and give "
            "MLFLOW_TRACKING_PASSWORD by --secret-env."
        )
    if is_loopback(uri):
        if given:
            raise UserError(
                f"--cluster-tracking-uri: {given!r} is an address of this machine; give MLflow's address inside the cluster."
            )
        return None
    return uri


def _replicas(fewest: int, most: int) -> tuple[int, int]:
    if most < fewest:
        raise UserError(f"--max-replicas: {most} is less than --min-replicas {fewest}.")
    return fewest, most


def _resources(options: Mapping[str, Any]) -> StageResources:
    from pydantic import ValidationError

    from switchyard.pipelines.config.kubeflow import StageResources

    given = {k: options[k] for k in ("cpu", "memory", "accelerator") if options[k]}
    secrets = {}
    for text in options["secret_env"]:
        variable, _, reference = text.partition("=")
        secrets[variable] = reference
    try:
        return StageResources.model_validate({**given, "secrets": secrets})
    except ValidationError as error:
        first = error.errors()[0]
        where = "--secret-env" if first["loc"][:1] == ("secrets",) else f"--{'.'.join(map(str, first['loc'])) or 'accelerator'}"
        raise UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}.") from None


def _secret(option: str, text: str | None) -> Secret | None:
    from pydantic import ValidationError

    from switchyard.pipelines.config.kubeflow import Secret

    if text is None:
        return None
    try:
        return Secret.model_validate(text)
    except ValidationError as error:
        raise UserError(f"{option}: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from None


def _check_kubectl() -> None:
    if not shutil.which("kubectl"):
        raise UserError("--apply: kubectl is not on the PATH. Install it, or apply the manifests elsewhere.")


def _apply(folder: Path) -> None:
    done = subprocess.run(["kubectl", "apply", "-k", str(folder)], capture_output=True, text=True, check=False)
    click.echo(done.stdout, nl=False)
    if done.returncode:
        raise StageError(f"kubectl apply: {done.stderr.strip() or f'exit code {done.returncode}'}")
