"""MLflow's UI as a person opens it: `switchyard ui` and headless Chromium."""

import os
import re
import shutil
import signal
import subprocess

import pytest

from tests.command import COMMAND, REPOSITORY, STAGES, environment, free_port, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


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
def test_the_ui_shows_runs_stages_curves_and_the_model(runs, server, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    results = {name: done.json for name, done in runs.items()}
    experiment = results["tensorflow"]["mlflow_experiment_id"]
    pictures = os.environ.get("SWITCHYARD_SCREENSHOTS", str(tmp_path))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        view = "workflowType=machine_learning"
        page.goto(f"{server}/#/experiments/{experiment}/runs?{view}")
        for trainer in results:
            expect(page.get_by_text(f"breast_cancer {trainer}").first).to_be_visible(timeout=60_000)
        page.screenshot(path=f"{pictures}/runs.png")
        page.goto(f"{server}/#/experiments/{experiment}/runs/{results['pytorch']['mlflow_run_id']}?{view}")
        expect(page.get_by_text("auc", exact=True).first).to_be_visible(timeout=60_000)
        page.screenshot(path=f"{pictures}/run.png")
        from mlflow import MlflowClient

        client = MlflowClient(server)
        parent = results["pytorch"]["mlflow_run_id"]
        children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'")
        stages = {c.info.run_name: c.info.run_id for c in children}
        assert sorted(stages) == sorted(STAGES)
        page.goto(f"{server}/#/experiments/{experiment}/runs/{stages['training']}/model-metrics?{view}")
        expect(page.get_by_text("val_loss").first).to_be_visible(timeout=60_000)
        page.wait_for_timeout(3000)
        page.screenshot(path=f"{pictures}/curves.png")
        page.goto(f"{server}/#/experiments/{experiment}/runs/{stages['evaluation']}/artifacts/evaluation/evaluation.html?{view}")
        expect(page.get_by_text("evaluation.html").first).to_be_visible(timeout=60_000)
        page.wait_for_timeout(3000)
        page.screenshot(path=f"{pictures}/evaluation.png")
        page.goto("about:blank")  # MLflow's page keeps the last run's list of artifacts
        page.goto(f"{server}/#/experiments/{experiment}/runs/{parent}/artifacts/report/report.html?{view}")
        expect(page.get_by_text("report/report.html").first).to_be_visible(timeout=60_000)
        expect(page.locator("iframe")).to_be_visible(timeout=60_000)
        page.wait_for_timeout(3000)
        page.screenshot(path=f"{pictures}/report.png")
        page.goto(f"{server}/#/models/breast_cancer")
        expect(page.get_by_text(re.compile("champion")).first).to_be_visible(timeout=60_000)
        page.screenshot(path=f"{pictures}/model.png")
        browser.close()


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), pytest.param(390, "dark", marks=pytest.mark.core)])
def test_no_page_scrolls_sideways(width, scheme, runs, workspace, tmp_path):
    from playwright.sync_api import sync_playwright

    pictures = os.environ.get("SWITCHYARD_SCREENSHOTS", str(tmp_path))
    [page_file, *_] = sorted(workspace.glob("artifacts/evaluation/evaluation/*/evaluation.html"))
    statistics = next((workspace / "mlflow").rglob("statistics.html"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        report = next(workspace.glob("artifacts/report/report/*/report.html"))
        gate = next((workspace / "mlflow").rglob("data_gate.html"))
        for name, file in (("evaluation", page_file), ("statistics", statistics), ("report", report), ("gate", gate)):
            page.goto(file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "an opened page scrolls sideways"
            page.screenshot(path=f"{pictures}/page-{name}-{width}-{scheme}.png")
        browser.close()
