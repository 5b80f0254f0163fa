"""`switchyard deploy`: manifests whose command starts, and a SavedModel loaded the way TensorFlow Serving does."""

import json
import os
import subprocess
from functools import partial

import numpy as np
import pytest
import yaml

from switchyard.components.bundle.model import bundle_info, load_bundle
from switchyard.pipelines.commands import deploy as deploying
from tests.bad_input import command_in_this_process
from tests.registries import registry, small_bundle
from tests.serving.server import serving

# Answers for one InferenceService, the one of the service's name.
KUBECTL = """#!/bin/sh
case "$*" in
  "apply -k "*) echo "inferenceservice.serving.kserve.io/$NAME created" ;;
  *"get inferenceservice.serving.kserve.io $NAME "*) cat "$(dirname "$0")/service.json" ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture(scope="module")
def registered(bundles, tmp_path_factory):
    """The URI of a registry: version 1 is TensorFlow's, 2, the champion, is PyTorch's."""
    uri, _ = registry(tmp_path_factory.mktemp("registry"), "a_model", [(f, bundles[f]) for f in ("tensorflow", "pytorch")])
    return uri


def test_the_manifest_is_applied_unchanged_and_its_command_starts_a_server(registered, bundles, warm, tmp_path):
    out = tmp_path / "manifests"
    options = ["--tracking-uri", registered, "--cluster-tracking-uri", "http://mlflow.mlflow:5000", "--canary", 10]
    options += ["--mode", "knative"]
    done = warm("deploy", "a_model@champion", "--target", "kserve", "-o", out, *options)
    assert done.code == 0, done.stderr
    assert "a_model version 2, 10 % of the requests" in done.stdout
    rendered = subprocess.run(["kubectl", "kustomize", out], capture_output=True, text=True, check=True).stdout
    [manifest] = yaml.safe_load_all(rendered)
    assert manifest["spec"]["predictor"]["canaryTrafficPercent"] == 10
    [container] = manifest["spec"]["predictor"]["containers"]
    assert container["command"] == ["switchyard", "serve"]
    model, *arguments = container["args"]
    assert model == "a_model@2"
    kept = [a for i, a in enumerate(arguments) if "--host" not in arguments[max(0, i - 1) : i + 1]]
    kept = [a for i, a in enumerate(kept) if "--port" not in kept[max(0, i - 1) : i + 1]]
    with serving(model, tmp_path / "log", *kept, "--tracking-uri", registered) as server:
        assert server.request(container["readinessProbe"]["httpGet"]["path"])[0] == 200
        assert server.request("/v2/models/a_model")[2]["versions"] == ["2"]


@pytest.mark.core
@pytest.mark.parametrize(("more", "name"), [([], "small-model"), (["--name", "other"], "other")])
def test_apply_waits_for_the_service_that_it_applied(more, name, tmp_path, monkeypatch):
    uri, _ = registry(tmp_path, "small_model", [("pytorch", small_bundle(tmp_path, 1))])
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    status = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}
    (tmp_path / "service.json").write_text(json.dumps({"metadata": {"generation": 1}, "status": status}))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("NAME", name)
    monkeypatch.setattr(deploying, "await_ready", partial(deploying.await_ready, seconds=0.5, poll=0.1))
    options = ["--tracking-uri", uri, "--cluster-tracking-uri", "http://mlflow.mlflow:5000", "--trust", "--apply", *more]
    with command_in_this_process() as command:
        done = command("deploy", "small_model@1", "--target", "kserve", "-o", tmp_path / "manifests", *options)
    assert done.exit_code == 0, done.output
    assert f"{name}: version 1 serves" in done.output


@pytest.mark.parametrize(
    ("more", "read"), [([], "STORAGE_URI"), (["--cluster-tracking-uri", "http://mlflow:5000"], "MLFLOW_TRACKING_URI")]
)
def test_a_model_in_an_object_store_is_read_from_there_unless_an_address_of_mlflow_is_given(more, read, tmp_path):
    uri, client = registry(tmp_path, "small_model", [("pytorch", small_bundle(tmp_path, 1))])
    client.create_model_version("small_model", "s3://models/2")
    options = ["--tracking-uri", uri, "--trust", *more]
    with command_in_this_process() as command:
        done = command("deploy", "small_model@2", "--target", "kserve", "-o", tmp_path / "manifests", *options)
    assert done.exit_code == 0, done.output
    manifest = yaml.safe_load((tmp_path / "manifests" / "inference-service.yaml").read_text())
    [container] = manifest["spec"]["predictor"]["containers"]
    assert read in [e["name"] for e in container["env"]]
    assert ("small_model@2" in container["args"]) is (read == "MLFLOW_TRACKING_URI")


def test_deploy_refuses_invalid_arguments(registered, bundles, warm, tmp_path):
    def deploy(model, *options):
        done = warm("deploy", model, "--tracking-uri", registered, "-o", tmp_path / "out", *options)
        assert "Traceback" not in done.stderr
        return done.code, done.stderr

    code, said = deploy("a_model@champion", "--target", "kserve")
    assert (code, "which a cluster cannot read" in said) == (2, True)
    code, said = deploy(bundles["pytorch"], "--target", "kserve")
    assert (code, "is not a registered model" in said) == (2, True)
    code, said = deploy("a_model@2", "--target", "tf-serving")
    assert (code, "does not run pytorch models" in said) == (2, True)
    somewhere = ["--target", "kserve", "--cluster-tracking-uri", "http://mlflow:5000"]
    code, said = deploy("a_model@2", *somewhere, "--accelerator", "gup")
    assert (code, "'gup' is not an accelerator" in said) == (2, True)
    code, said = deploy("a_model@2", *somewhere, "--mode", "standard", "--canary", 10)
    assert (code, "switchyard serve NAME@champion --canary 10" in said) == (2, True)
    code, said = deploy("a_model@2", *somewhere, "--mode", "standard", "--concurrency", 10)
    assert (code, "ignores it" in said) == (2, True)
    code, said = deploy("a_model@2", *somewhere, "--secret-env", "KEY=value")
    assert (code, "NAME/KEY" in said) == (2, True)
    code, said = deploy("a_model@2", "--target", "kserve", "--cluster-tracking-uri", "http://me:pw@mlflow:5000")
    assert (code, "contains a password" in said) == (2, True)
    code, said = deploy("a_model@2", "--target", "kserve", "--cluster-tracking-uri", "http://127.0.0.1:5000")
    assert (code, "give MLflow's address inside the cluster" in said) == (2, True)
    assert not (tmp_path / "out").exists()


def test_tensorflow_serving_loads_it(registered, bundles, workspace, eval_rows, warm, tmp_path):
    """By the session loader with the tag `serve`, which is what TensorFlow Serving's servable is made of."""
    done = warm("deploy", "a_model@1", "--target", "tf-serving", "-o", tmp_path, "--tracking-uri", registered)
    assert done.code == 0, done.stderr
    info = bundle_info(bundles["tensorflow"])
    frame = eval_rows(workspace, info.features)
    expected = load_bundle(bundles["tensorflow"]).predict(frame)
    found = session_answers(tmp_path / "a_model" / "1", {f.name: frame[f.name].to_numpy() for f in info.features})
    np.testing.assert_allclose(found["probability"], expected["probability"], atol=1e-5)
    assert [v.decode() for v in found["prediction"]] == list(expected["prediction"])
    again = warm("deploy", "a_model@1", "--target", "tf-serving", "-o", tmp_path, "--tracking-uri", registered)
    assert again.code == 2
    assert "already exists" in again.stderr


def test_tensorflow_serving_loads_a_model_of_several_classes(digits, eval_rows, warm, tmp_path):
    workspace, _ = digits
    [folder] = (workspace / "artifacts" / "training_tensorflow" / "model").iterdir()
    done = warm("deploy", folder, "--target", "tf-serving", "-o", tmp_path, "--trust")
    assert done.code == 0, done.stderr
    info = bundle_info(folder / "Format-Serving")
    frame = eval_rows(workspace, info.features)
    expected = load_bundle(folder / "Format-Serving").predict(frame)
    inputs = {f.name: np.stack(frame[f.name]) if f.width > 1 else frame[f.name].to_numpy() for f in info.features}
    found = session_answers(tmp_path / "model" / "1", inputs)
    wanted = expected[[c for c in expected.columns if c.startswith("probability_")]]
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-5)
    assert list(found["prediction"]) == list(expected["prediction"])


def session_answers(folder, inputs):
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder))
        signature = loaded.signature_def["serving_default"]
        assert set(signature.inputs) == set(inputs)
        feeds = {}
        for name, values in inputs.items():
            info = signature.inputs[name]
            feeds[info.name] = values.astype(tf.dtypes.as_dtype(info.dtype).as_numpy_dtype)
        return session.run({k: v.name for k, v in signature.outputs.items()}, feeds)
