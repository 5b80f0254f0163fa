"""The walk of a reviewer through MLflow's UI, in headless Chromium: the browser test's, and that of the pictures in the docs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
_VIEW = "workflowType=machine_learning"
_PATIENCE = 120_000
# The tables of a page load one after the other.
_SETTLED = 2_000
WIDTHS = (1400, 390)


@dataclass(frozen=True)
class Reviewed:
    """What is looked at: ids of an experiment, of a run, one to compare it with and a stage of each kind, a registered version.

    Attributes:
        names: names of both runs in the list.
        differs: a parameter in which both runs differ, and its two values.
        stages: ids of the nested runs of a training and of the evaluation.
        report: the run's report as a file.
    """

    experiment: str
    run: str
    other: str
    names: tuple[str, str]
    differs: tuple[str, str, str]
    stages: tuple[str, str]
    model: str
    version: str
    report: Path


def browser(playwright: Playwright) -> Browser:
    """Starts Chromium."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS])


def walk(chromium: Browser, server: str, at: Reviewed, pictures: Path) -> None:
    """Looks at list, run, dataset, comparison, curves, model, version and report, and leaves a picture of each page.

    Raises:
        AssertionError: a page lacks what it is to show.
    """
    from playwright.sync_api import expect

    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(_PATIENCE)
    expect.set_options(timeout=_PATIENCE)
    runs = f"{server}/#/experiments/{at.experiment}/runs"

    page.goto(f"{runs}?{_VIEW}")
    for name in at.names:
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.get_by_role("button", name="Close").first.click()  # MLflow's assistant
    _picture(page, pictures / "runs.png")

    page.goto(f"{runs}/{at.run}?{_VIEW}")
    expect(page.get_by_text("auc", exact=True).first).to_be_visible()
    for shown in ("lessed.", "Run it again with the config", "of the split 'test'"):
        expect(page.get_by_text(shown).first).to_be_visible()
    _picture(page, pictures / "run.png")

    page.get_by_text("eval (").first.click()
    expect(page.get_by_text("mean_radius").first).to_be_visible()
    _picture(page, pictures / "dataset.png")

    page.goto(f'{server}/#/compare-runs?runs=["{at.run}","{at.other}"]&experiments=["{at.experiment}"]&{_VIEW}')
    for shown in at.differs:
        expect(page.get_by_text(shown, exact=True).first).to_be_visible()
    _picture(page, pictures / "compare.png")

    training, evaluation = at.stages
    page.goto(f"{runs}/{training}/model-metrics?{_VIEW}")
    expect(page.get_by_text("val_loss").first).to_be_visible()
    _picture(page, pictures / "curves.png")
    page.goto(f"{runs}/{evaluation}/artifacts/evaluation/evaluation.html?{_VIEW}")
    expect(page.get_by_text("evaluation.html").first).to_be_visible()
    _picture(page, pictures / "evaluation.png")

    page.goto("about:blank")  # MLflow's page keeps the last run's list of artifacts
    page.goto(f"{runs}/{at.run}/artifacts/report/report.html?{_VIEW}")
    expect(page.frame_locator("iframe").get_by_text("Decision").first).to_be_visible()
    _picture(page, pictures / "artifacts.png")

    page.goto(f"{server}/#/models/{at.model}")
    expect(page.get_by_text("champion").first).to_be_visible()
    _picture(page, pictures / "model.png")
    page.goto(f"{server}/#/models/{at.model}/versions/{at.version}")
    for shown in ("Metrics", "Limits", "Digest of the bundle"):
        expect(page.get_by_text(shown).first).to_be_visible()
    _picture(page, pictures / "version.png")
    page.close()

    for width in WIDTHS:
        page = chromium.new_page(viewport={"width": width, "height": 1000})
        page.goto(at.report.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the report scrolls sideways"
        page.screenshot(path=pictures / f"report-{width}.png")
        page.close()


def _picture(page: Page, file: Path) -> None:
    page.wait_for_timeout(_SETTLED)
    page.screenshot(path=file)
