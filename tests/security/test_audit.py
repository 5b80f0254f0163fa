"""`make audit`: what the locks pin against known flaws; never "none" where nothing was looked up. And what the locks refuse."""

import datetime
import importlib.util
import json
import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.command import REPOSITORY

LOCKS = [*sorted(REPOSITORY.glob("requirements*.lock")), *sorted((REPOSITORY / "infra").glob("*/requirements*.lock"))]
TODAY = datetime.date(2026, 12, 1)


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("switchyard_audit", REPOSITORY / "infra" / "audit" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["switchyard_audit"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["switchyard_audit"]


@pytest.fixture
def lock(tmp_path):
    file = tmp_path / "requirements.lock"
    file.write_text("Torch==2.10.0 \\\n    --hash=sha256:00\nuvicorn[standard]==0.54.0 \\\n    --hash=sha256:00\n")
    return file


def report(audit, *, known=(), flaws=(), why_not=""):
    return audit.Answers(frozenset(known), tuple(flaws), why_not)


TORCH, UVICORN = ("torch", "2.10.0"), ("uvicorn", "0.54.0")


@pytest.mark.core
def test_the_pins_of_a_lock_are_read(audit, lock):
    assert audit.pins([lock]) == {TORCH, UVICORN}


@pytest.mark.core
def test_every_lock_is_read(audit):
    assert [(lock.name, len(audit.pins([lock])) > 10) for lock in LOCKS] == [(lock.name, True) for lock in LOCKS]
    for lock in LOCKS:
        assert len(audit.pins([lock])) == len(re.findall(r"^\S+==", lock.read_text(), re.MULTILINE)), lock


@pytest.mark.core
def test_an_unreachable_database_is_no_clean_result_with_the_databases_mocked(audit, lock, capsys):
    code = audit.audit([lock], ask=lambda wanted, service: report(audit, why_not=f"{service}.example: no such host"))

    assert code == audit.NOT_RUN == 3
    out = capsys.readouterr().out
    assert "0 of 2 pinned packages looked up" in out
    assert "NOT RUN for 2 packages" in out
    assert "osv: osv.example: no such host" in out
    assert "pypi: pypi.example: no such host" in out


@pytest.mark.core
def test_a_package_unknown_to_every_database_is_no_clean_result_with_the_databases_mocked(audit, lock):
    assert audit.audit([lock], ask=lambda wanted, service: report(audit, known=[TORCH])) == audit.NOT_RUN


@pytest.mark.core
def test_a_package_unknown_to_one_database_is_looked_up_in_the_next_with_the_databases_mocked(audit, lock):
    asked = []

    def ask(wanted, service):
        asked.append((service, set(wanted)))
        return report(audit, known=[TORCH] if service == "osv" else wanted)

    assert audit.audit([lock], ask=ask) == audit.CLEAN
    assert asked == [("osv", {TORCH, UVICORN}), ("pypi", {UVICORN})]


@pytest.mark.core
def test_a_vulnerability_fails_even_if_other_lookups_failed_with_the_databases_mocked(audit, lock, capsys):
    flaw = audit.Flaw("uvicorn", "0.54.0", ("PYSEC-1", "CVE-1"), ("0.55",))

    code = audit.audit([lock], ask=lambda wanted, service: report(audit, known=[UVICORN], flaws=[flaw]))

    assert code == audit.FLAWED == 1
    assert "FLAW: uvicorn 0.54.0: PYSEC-1 = CVE-1, fixed in 0.55" in capsys.readouterr().out


@pytest.mark.core
def test_packages_that_pip_audit_skips_count_as_not_looked_up(audit):
    found = audit.answers(
        {"dependencies": [{"name": "A_b", "version": "1", "vulns": []}, {"name": "c", "skip_reason": "not found: c (1)"}]}
    )

    assert found.known == {("a-b", "1")}
    assert found.why_not == "1 packages: not found: c (1)"


@pytest.mark.core
def test_a_vulnerability_is_accepted_by_any_of_its_ids_for_its_version_until_its_date(audit, tmp_path):
    file = tmp_path / "accepted.toml"
    file.write_text('[[accepted]]\nid = "CVE-1"\npackage = "Torch"\nversions = ["2.10.0"]\nreason = "r"\nuntil = 2026-12-31\n')
    here = audit.Flaw("torch", "2.10.0", ("PYSEC-1", "CVE-1"), ())
    elsewhere = audit.Flaw("torch", "2.9.1", ("PYSEC-1", "CVE-1"), ())

    assert audit.split([here, elsewhere], audit.accepted(file, TODAY)) == ([elsewhere], [(here, "r")])
    assert audit.split([here], audit.accepted(file, datetime.date(2027, 1, 1))) == ([here], [])


@pytest.mark.core
def test_the_list_of_accepted_vulnerabilities_names_pinned_packages(audit):
    pinned = audit.pins(LOCKS)
    known = audit.accepted(audit.ACCEPTED, TODAY)

    assert known
    for (identifier, package, version), reason in known.items():
        assert re.fullmatch(r"(CVE|GHSA|PYSEC)-[\w-]+", identifier)
        assert (package, version) in pinned, f"{identifier} speaks of {package} {version}, which no lock pins any more"
        assert len(reason) > 80


@pytest.mark.core
@pytest.mark.parametrize("name", ["lightning", "pytorch-lightning"])
@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_the_malicious_releases_of_lightning_are_excluded_by_name(audit, name, version):
    declared = re.findall(rf'^ +"({name}[^-"\w].*)",$', (REPOSITORY / "setup.py").read_text(), re.MULTILINE)

    [requirement] = map(Requirement, declared)

    assert Version(version) not in requirement.specifier
    assert (name, version) not in audit.pins(LOCKS)


@pytest.mark.core
@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(REPOSITORY)))
def test_a_lock_names_no_package_index(lock):
    assert "://" not in lock.read_text()


@pytest.mark.core
def test_a_missing_pip_audit_is_reported(audit, lock, monkeypatch, capsys):
    monkeypatch.setattr(audit.sys, "executable", "/usr/bin/env")

    assert audit.audit([lock]) == audit.NOT_RUN
    assert json.dumps(capsys.readouterr().out).count("NOT RUN") == 1
