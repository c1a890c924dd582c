"""A synthetic run, its report, and a headless browser to open it with."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sfumato.report import write_report
from sfumato.runs import Run
from tests.report.synthetic import make_run

PROMPTS = ["fruit", "a bird", 'heart </script><script>document.title = "broken"</script>']
SEEDS = [1000, 1001, 1002, 1003, 1004]
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --force-prefers-reduced-motion "
    "--window-size=1300,1000"
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with two trainings and 13 points on 3 prompts, with its report; tests only read it."""
    run = make_run(tmp_path_factory.mktemp("run"), PROMPTS, SEEDS)
    write_report(run)
    return run


def find_browser(environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Paths of Chromium and its driver; without them the test fails in CI and is skipped elsewhere."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium and driver:
        return chromium, driver
    message = "the browser tests need chromium and chromedriver: run .ci/install-packages"
    if environment.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def start_browser(profile: Path):
    """A headless Chromium with the profile in that folder."""
    from selenium import webdriver

    chromium, driver = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    started = start_browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.quit()


def built(browser) -> None:
    """Wait until every part of the page is there."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30).until(lambda b: not b.execute_script("return document.querySelector('main').ariaBusy"))


@pytest.fixture
def page(browser, run: Run) -> Iterator:
    """The synthetic run's report, freshly opened; afterwards its console must hold no error."""
    browser.get_log("browser")
    browser.get(Path(run.report).as_uri())
    built(browser)
    yield browser
    assert browser.get_log("browser") == []
