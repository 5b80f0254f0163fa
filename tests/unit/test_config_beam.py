"""The engine of the Beam stages: what a config makes of it, and what it refuses."""

import pytest

from switchyard.components.errors import UserError
from switchyard.pipelines.config.beam import BeamConfig
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.local.flink import find_jar

BASE = {"name": "x", "data": {"path": "a.csv"}, "label": "y"}
DIRECT = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
AT_HAND = "--sdk_container_image=at-hand"
IN_MEMORY = "--in_memory_limit=256"
PROCESS = {"flink_master": "jobs:8081", "environment_type": "PROCESS", "environment_config": '{"command": "w"}'}


@pytest.mark.parametrize(
    ("beam", "arguments", "needs_job_server"),
    [
        ({}, [DIRECT, AT_HAND, IN_MEMORY], False),
        ({"in_memory_limit": 0}, [DIRECT, AT_HAND], False),
        (
            {"runner": "DirectRunner", "options": {"direct_num_workers": 1}},
            [DIRECT, AT_HAND, IN_MEMORY, "--direct_num_workers=1"],
            False,
        ),
        ({"runner": "flink", "in_memory_limit": 1}, ["--runner=FlinkRunner", AT_HAND], True),
        (
            {"runner": "FlinkRunner", "options": PROCESS},
            ["--runner=FlinkRunner", AT_HAND, *(f"--{k}={v}" for k, v in PROCESS.items())],
            True,
        ),
        (
            {"runner": "FlinkRunner", "options": {"flink_master": "jobs:8081", "sdk_container_image": "i"}},
            ["--runner=FlinkRunner", "--flink_master=jobs:8081", "--sdk_container_image=i"],
            True,
        ),
        (
            {"runner": "FlinkRunner", "options": {"job_endpoint": "jobs:8099"}},
            ["--runner=FlinkRunner", AT_HAND, "--job_endpoint=jobs:8099"],
            False,
        ),
        (
            {"runner": "SparkRunner", "options": {"job_endpoint": "jobs:8099", "experiments": ["a", "b"], "streaming": False}},
            ["--runner=SparkRunner", "--job_endpoint=jobs:8099", "--experiments=a", "--experiments=b"],
            False,
        ),
        (
            {"runner": "DataflowRunner", "options": {"no_use_public_ips": True}},
            ["--runner=DataflowRunner", "--no_use_public_ips"],
            False,
        ),
    ],
)
def test_beams_arguments_follow_from_the_config(beam, arguments, needs_job_server):
    config = BeamConfig.model_validate(beam)
    assert list(config.arguments()) == arguments
    assert config.needs_job_server == needs_job_server


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("beam={runner: spark}", "SparkRunner needs job_endpoint .* would download one during the run"),
        ("beam={runner: PortableRunner}", "PortableRunner needs job_endpoint"),
        ("beam.options={--parallelism: 2}", "'--parallelism': names have no leading dashes; write 'parallelism'"),
        ("beam={engine: flink}", "unknown key"),
    ],
)
def test_options_that_cannot_work_are_refused(override, message):
    with pytest.raises(UserError, match=message):
        load_config(None, document=BASE, overrides=[override])


def test_a_jar_is_relative_to_the_yaml_and_must_be_there(tmp_path):
    overrides = ["beam={runner: FlinkRunner, options: {flink_job_server_jar: jars/f.jar}}"]
    beam = load_config(None, document=BASE, overrides=overrides, base=tmp_path).beam
    assert beam.options["flink_job_server_jar"] == str(tmp_path / "jars" / "f.jar")
    with pytest.raises(UserError, match=r"f\.jar: no such file; remove this option"):
        find_jar(beam)
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "f.jar").touch()
    without_java = beam.model_copy(update={"options": {**beam.options, "job_server_java_launcher": "no-such-java"}})
    with pytest.raises(UserError, match=r"Flink needs Java 11 or 17, and 'no-such-java' is not on the PATH"):
        find_jar(without_java)


def test_a_cluster_gets_an_engine_of_its_own():
    config = load_config(None, document=BASE, overrides=["beam.runner=FlinkRunner", "kubeflow.beam={runner: direct}"])
    assert config.beam.needs_job_server
    assert not config.kubeflow.beam.needs_job_server
