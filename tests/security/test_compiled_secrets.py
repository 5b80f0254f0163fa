"""A secret in the config is not compiled: the cluster stores a pipeline and shows it to all who may see its runs."""

from urllib.parse import quote

import pytest

from switchyard.components.errors import UserError
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.kubeflow.compiler.from_config import compile_config

CANARY = "cAn4ry-pass/w#rd"
IN_URI = quote(CANARY, safe="")


@pytest.mark.core
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beam.options", f"{{s3_secret_access_key: {IN_URI}}}"),
        ("beam.options", f"{{azure_connection_string: {IN_URI}}}"),
        ("kubeflow.beam", f"{{options: {{s3_session_token: {IN_URI}}}}}"),
        ("data.path", f"https://host/d.csv?X-Amz-Signature={IN_URI}"),
        ("data.splits", f"{{train: 's3://key:{IN_URI}@bucket/d.csv', eval: s3://bucket/e.csv}}"),
        ("kubeflow.pipeline_root", f"minio://key:{IN_URI}@host/x"),
        ("kubeflow.defaults.environment", f"{{MLFLOW_TRACKING_URI: 'http://user:{IN_URI}@mlflow:5000'}}"),
        ("kubeflow.defaults.environment", f"{{OPENAI_API_KEY: {IN_URI}}}"),
        ("kubeflow.stages.training.environment", f"{{DB_PASSWD: {IN_URI}}}"),
        ("kubeflow.stages.training.environment", f"{{SESSION_COOKIE: {IN_URI}}}"),
    ],
)
def test_a_secret_that_would_be_part_of_a_compiled_pipeline_is_refused_and_not_repeated(tmp_path, key, value):
    document = {"name": "x", "data": {"path": "s3://bucket/d.csv"}, "label": "y", "task": "binary"}
    if key == "data.splits":
        document["data"] = {}

    with pytest.raises(UserError, match=f"{key}.* secret.*secrets") as refused:
        compile_config(
            load_config(None, document=document, overrides=[f"{key}={value}"]), tmp_path, str(tmp_path), {}, carry_data=True
        )

    assert CANARY not in str(refused.value)
    assert IN_URI not in str(refused.value)


def signed(tmp_path, *overrides):
    document = {"name": "x", "data": {"path": "s3://bucket/d.csv"}, "label": "y", "task": "binary"}
    config = load_config(None, document=document, overrides=["signing=/etc/signing/key.pem", *overrides])
    return compile_config(config, tmp_path, str(tmp_path), {}, carry_data=True)


def test_a_private_key_is_read_from_a_secret_of_the_registrys_pod(tmp_path):
    compiled = signed(tmp_path, "kubeflow.stages.registry.secret_files={/etc/signing: signing}")
    mounts = compiled.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    [mounted] = [name for name, executor in mounts.items() if executor.get("secretAsVolume")]
    assert mounted == "exec-registry"
    assert mounts[mounted]["secretAsVolume"][0]["mountPath"] == "/etc/signing"


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("key", []),
        ("key", ["kubeflow.stages.registry.secret_files={/etc/sign: signing}"]),
        ("key", ["kubeflow.stages.training.secret_files={/etc/signing: signing}"]),
        ("certificate", ["kubeflow.stages.registry.secret_files={/etc/signing: signing}", "signing.certificate=/here/c.pem"]),
    ],
)
def test_a_private_key_that_no_secret_of_the_registrys_pod_holds_is_refused(key, overrides, tmp_path):
    if key == "certificate":
        overrides = ["signing={key: /etc/signing/key.pem}", *overrides]
    with pytest.raises(UserError, match=rf"signing\.{key}: .* is no file of the registry's pod; .*secret_files"):
        signed(tmp_path, *overrides)
