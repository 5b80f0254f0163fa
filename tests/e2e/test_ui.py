"""MLflow's UI as a person opens it: `switchyard ui` and headless Chromium."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.command import COMMAND, REPOSITORY, STAGES, environment, free_port, wait_for
from tests.reviewer import CHROMIUM, WIDTHS, Reviewed, browser, walk


def test_ci_has_chromium():
    if os.environ.get("CI"):
        assert CHROMIUM, "CI installs Chromium in .ci/run"


@pytest.fixture(scope="module")
def server(runs, workspace):
    port = free_port()
    process = subprocess.Popen(
        [*COMMAND, "ui", "--workspace", str(workspace), "--port", str(port)],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine: apt-get install chromium")
def test_a_reviewer_finds_runs_differences_curves_datasets_versions_and_the_report(runs, workspace, server, tmp_path):
    from playwright.sync_api import sync_playwright

    client, results = MlflowClient(server), {name: done.json for name, done in runs.items()}
    experiment, run, other = (
        results["pytorch"]["mlflow_experiment_id"],
        *(results[n]["mlflow_run_id"] for n in ("pytorch", "tensorflow")),
    )
    stages = {c.info.run_name: c.info.run_id for c in client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run}'")}
    assert sorted(stages) == sorted(STAGES)
    at = Reviewed(
        experiment,
        run,
        other,
        tuple(client.get_run(r).info.run_name for r in (run, other)),
        ("trainer", "pytorch", "tensorflow"),
        (stages["training"], stages["evaluation"]),
        "breast_cancer",
        results["pytorch"]["model_version"],
        next(workspace.glob("artifacts/report/report/*/report.html")),
    )
    with sync_playwright() as playwright:
        chromium = browser(playwright)
        walk(chromium, server, at, Path(os.environ.get("SWITCHYARD_SCREENSHOTS", tmp_path)))
        chromium.close()


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize(("width", "scheme"), [(WIDTHS[0], "light"), pytest.param(WIDTHS[1], "dark", marks=pytest.mark.core)])
def test_no_page_scrolls_sideways(width, scheme, runs, workspace, tmp_path):
    from playwright.sync_api import sync_playwright

    pictures = os.environ.get("SWITCHYARD_SCREENSHOTS", str(tmp_path))
    [page_file, *_] = sorted(workspace.glob("artifacts/evaluation/evaluation/*/evaluation.html"))
    statistics = next((workspace / "mlflow").rglob("statistics.html"))
    with sync_playwright() as playwright:
        chromium = browser(playwright)
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        report = next(workspace.glob("artifacts/report/report/*/report.html"))
        gate = next((workspace / "mlflow").rglob("data_gate.html"))
        for name, file in (("evaluation", page_file), ("statistics", statistics), ("report", report), ("gate", gate)):
            page.goto(file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "an opened page scrolls sideways"
            page.screenshot(path=f"{pictures}/page-{name}-{width}-{scheme}.png")
        chromium.close()
