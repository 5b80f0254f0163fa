"""Unit tests are quick because they import no framework: a module or a test that brings one in fails, by name."""

import sys

import pytest

FRAMEWORKS = ("tensorflow", "torch", "keras", "lightning", "tfx", "apache_beam", "tensorflow_data_validation", "mlflow", "kfp")


def loaded():
    return {name for name in FRAMEWORKS if name in sys.modules}


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    before = loaded()
    report = yield
    if new := loaded() - before:
        report.outcome, report.result = "failed", []
        report.longrepr = f"{collector.nodeid} imports {', '.join(sorted(new))}; what needs a framework goes into tests/stages"
    return report


@pytest.fixture(autouse=True)
def _no_framework():
    before = loaded()
    yield
    new = loaded() - before
    assert not new, f"the test imports {', '.join(sorted(new))}; what needs a framework goes into tests/stages"
