"""`switchyard doctor` without a cluster: what this machine lacks for a run, and what to do about it."""

import json
from types import SimpleNamespace

import psutil
import pytest
from click.testing import CliRunner

from switchyard.pipelines import machine_checks
from switchyard.pipelines.commands.doctor import command
from switchyard.pipelines.finding import FAILED, OK, UNKNOWN


def package(folder, name, version, *needs):
    """Writes what the metadata of an installed package say."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir()
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", *(f"Requires-Dist: {n}\n" for n in needs)]
    (place / "METADATA").write_text("".join(lines))


def of(findings, check):
    return {(f.outcome, f.message) for f in findings if f.check == check}


def test_this_machine_is_described_by_the_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command, ["--json"])
    rows = json.loads(done.stdout)
    assert done.exit_code == int(any(row["outcome"] == FAILED for row in rows))
    assert {"python", "memory", "disk", "packages", "gpu", "java", "kubectl", "mlflow"} <= {row["check"] for row in rows}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [["--namespace", "team"], ["--insecure"], ["--timeout", "5"]])
def test_options_of_a_connection_are_refused_without_one(given, monkeypatch):
    monkeypatch.delenv("SWITCHYARD_KFP_HOST", raising=False)
    done = CliRunner().invoke(command, given)
    assert done.exit_code == 2
    assert done.stderr == f"error: {given[0]}: without --host there is no connection; give --host URL, or remove it\n"


def test_too_little_memory_and_a_folder_that_cannot_be_written_are_refused(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2 * 2**30, available=2**30))
    assert machine_checks._memory().outcome == FAILED
    assert "use a machine with 4 or more" in machine_checks._memory().message
    monkeypatch.setattr(machine_checks.os, "access", lambda place, mode: False)
    assert "give another folder with --workspace" in machine_checks._disk(machine_checks.Path("/no/such/folder")).message


def test_a_package_in_a_version_that_another_one_excludes_is_named_with_the_fix(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, "of-a-user", "1.0", "numpy<1", "packaging", "no-such-package; extra == 'more'")
    [(outcome, said)] = of(machine_checks._packages(), "packages")
    assert outcome == FAILED
    assert said.startswith("of-a-user 1.0 needs numpy<1, and ")
    assert said.endswith(" is installed: pip install 'numpy<1'")


def test_what_the_overrides_of_older_systems_install_is_no_clash():
    assert {outcome for outcome, _ in of(machine_checks._packages(), "packages")} == {OK}


def test_libraries_of_two_cuda_generations_are_named(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, "nvidia-cudnn-cu12", "9.0")
    package(tmp_path, "nvidia-cudnn-cu13", "9.0")
    said = {message for outcome, message in of(machine_checks._packages(), "packages") if outcome == FAILED}
    assert any(s.startswith("nvidia-cudnn-cu12 and nvidia-cudnn-cu13 write the same files") for s in said)


@pytest.mark.parametrize(
    ("version", "outcome"), [('openjdk version "17.0.15"', OK), ('java version "1.8.0_1"', UNKNOWN), ("", UNKNOWN)]
)
def test_a_java_that_flink_does_not_run_on_is_named(version, outcome, monkeypatch, tmp_path):
    (tmp_path / "java").write_text(f"#!/bin/sh\necho '{version}' >&2\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    [(found, _)] = of(machine_checks._programs(), "java")
    assert found == outcome
