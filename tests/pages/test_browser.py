"""What people find in a browser: MLflow's pages on a real session of work, and the reports.

Screenshots are kept in the folder that HARNESS_TEST_SCREENSHOTS names, to be looked at.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from conftest import Checkout, Recorded
from packaging.version import Version

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium")

of_mlflow = pytest.mark.skipif(
    Version(mlflow.__version__) < Version("3.17"), reason="its pages were different before 3.17"
)

PATIENCE = 30_000
"""Milliseconds to wait for a page on a machine that is busy with other things."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        # In a container whose user is root, Chromium's own sandbox cannot be had.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(worked: Recorded) -> Iterator[str]:
    """MLflow's pages, as `python -m harness.ui` serves them: the link that it prints."""
    checkout, _ = worked
    with checkout.serving() as link:
        yield link


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of somebody who was never here before."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Takes a screenshot of a page and keeps it under a name."""
    kept = os.environ.get("HARNESS_TEST_SCREENSHOTS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str, **options: Any) -> None:
        page.screenshot(path=folder / f"{name}.png", **options)

    return take


def list_of_runs(address: str, checkout: Checkout, experiment: str) -> str:
    """The address of an experiment's run list, as the link has it for the latest one."""
    with checkout.opened() as client:
        found = client.get_experiment_by_name(experiment)
    assert found
    return re.sub(r"experiments/\d+/", f"experiments/{found.experiment_id}/", address)


@of_mlflow
def test_the_link_opens_the_list_of_the_latest_runs(
    page: Page, address: str, picture: Callable[..., None]
) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    expect(page.get_by_text("A perceptron with one hidden layer, 784-256-10")).to_be_visible()
    for name in ("lr=0.5 hidden_width=64", "lr=0.05", "dataset=digits num_epochs=2"):
        expect(page.get_by_role("link", name=re.compile(f"^{name}"))).to_be_visible()
    picture(page, "first-visit")
    assert "token" not in page.url
    expect(page.get_by_text("3 matching runs")).to_be_visible()
    expect(page.get_by_role("button", name="Close")).to_have_count(0)  # of MLflow's assistant
    expect(page.get_by_text("not served")).to_have_count(0)
    page.reload()
    expect(page.get_by_text("3 matching runs")).to_be_visible()


@of_mlflow
def test_three_runs_are_compared_side_by_side(
    page: Page, address: str, picture: Callable[..., None]
) -> None:
    page.goto(address)
    boxes = page.get_by_role("checkbox", name="Press Space to toggle row selection")
    expect(boxes).to_have_count(3)
    for number in range(3):
        boxes.nth(number).check()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("heading", name="Comparing 3 Runs")).to_be_visible()
    for name, values in (
        ("lr", ["0.1", "0.05", "0.5"]),
        ("hidden_width", ["256", "256", "64"]),
        ("dataset", ["digits"] * 3),
    ):
        row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))
        expect(row.get_by_role("cell")).to_have_text(values)
    picture(page, "compare")
    row.scroll_into_view_if_needed()
    picture(page, "compare-parameters")


@of_mlflow
def test_the_charts_show_the_curves_of_all_runs_together(
    page: Page, address: str, picture: Callable[..., None]
) -> None:
    page.goto(address)
    page.goto(f"{address}&compareRunsMode=CHART")
    title = page.get_by_text("test/accuracy", exact=True).first
    chart = title.locator("xpath=ancestor::*[.//*[contains(@class, 'js-plotly-plot')]][1]")
    # Charts are drawn when they come into view.
    page.get_by_placeholder("Search metric charts").fill("test/accuracy")
    expect(chart.locator(".scatterlayer .trace")).not_to_have_count(0)
    for name in ("lr=0.5 hidden_width=64", "lr=0.05", "dataset=digits num_epochs=2"):
        expect(chart.get_by_text(re.compile(f"^{name}"))).to_be_visible()
    chart.scroll_into_view_if_needed()
    picture(page, "charts")


@of_mlflow
def test_a_study_opens_to_its_trials(
    page: Page, address: str, worked: Recorded, picture: Callable[..., None]
) -> None:
    page.goto(list_of_runs(address, worked[0], "joint_search"))
    expect(page.get_by_text("What can the baseline reach with learning rate")).to_be_visible()
    trials = page.get_by_role("link", name=re.compile(r"^trial \d lr="))
    parent = page.get_by_role("row").filter(has=page.get_by_role("link", name="joint_search"))
    expect(parent).to_be_visible()
    expect(trials).to_have_count(0)
    parent.get_by_role("button").first.click()
    expect(trials).to_have_count(6)
    expect(page.get_by_role("link", name=re.compile(r"^(best|defaults) seed="))).to_have_count(4)
    picture(page, "study")


@of_mlflow
def test_a_run_shows_what_it_is_and_its_figures(
    page: Page, address: str, picture: Callable[..., None]
) -> None:
    page.goto(address)
    page.get_by_role("link", name=re.compile("^dataset=digits num_epochs=2")).click()
    expect(page.get_by_text("after 2 of 2 epochs")).to_be_visible()
    for metric in ("train/loss", "test/accuracy", "time/train_seconds"):
        expect(page.get_by_role("link", name=metric, exact=True)).to_be_visible()
    picture(page, "run")
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("figures", exact=True).click()
    page.get_by_text("confusion_matrix.png").click()
    figure = page.get_by_alt_text("figures/confusion_matrix.png")
    expect(figure).to_be_visible()
    expect(figure).to_have_js_property("naturalWidth", 800)
    picture(page, "figure")


@of_mlflow
def test_the_page_of_a_model_shows_its_signature(
    page: Page, address: str, picture: Callable[..., None]
) -> None:
    page.goto(address)
    link = page.get_by_role("link", name="model", exact=True).first
    page.goto(link.evaluate("link => link.href"))  # a click opens another window
    expect(page.get_by_text("float32 (batch, 1, 28, 28) in [0, 1]")).to_be_visible()
    expect(page.get_by_text("test/accuracy").first).to_be_visible()
    picture(page, "model")
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("MLmodel", exact=True).click()
    expect(page.get_by_text("signature:")).to_be_visible()
    expect(page.get_by_text('"dtype": "float32"').first).to_be_visible()
    picture(page, "model-signature")


@pytest.mark.parametrize("name", ["joint_search", "baseline"])
@pytest.mark.parametrize("width", [1400, 400])
def test_a_report_reads_well_on_every_window(
    page: Page, reports: dict[str, Path], picture: Callable[..., None], name: str, width: int
) -> None:
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(reports[name].as_uri())
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    images = "[...document.images].map(image => [image.complete, image.naturalWidth > 0])"
    assert {tuple(image) for image in page.evaluate(images)} == {(True, True)}
    letters = (
        "[...document.querySelectorAll('p, td, dd, li')].map(e => getComputedStyle(e).fontSize)"
    )
    assert min(float(size.removesuffix("px")) for size in page.evaluate(letters)) >= 12

    table = page.locator("table.sortable").last
    column = {"joint_search": "lr", "baseline": "seconds"}[name]
    head = table.get_by_role("columnheader", name=column, exact=True)
    place = table.get_by_role("columnheader").all_inner_texts().index(column)
    for order in ("descending", "ascending"):
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", order)
        cells = table.locator(f"tbody td:nth-child({place + 1})")
        values = cells.evaluate_all("cells => cells.map(cell => Number(cell.dataset.value))")
        assert values == sorted(values, reverse=order == "descending")
        assert len(set(values)) > 2
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    picture(page, f"report-{name}-{width}", full_page=True)
