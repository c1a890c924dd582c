"""The report for those who use a keyboard, a screen reader, a phone, the dark."""

from itertools import pairwise

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.support.ui import WebDriverWait

from sfumato.report import write_report
from tests.report.conftest import PROMPTS, built
from tests.report.synthetic import POINTS, make_run

NAMELESS = """
const name = (element) => element.getAttribute("aria-label") || element.getAttribute("aria-labelledby") ||
  element.labels?.[0]?.textContent || element.textContent;
const wanting = (element) => element.tagName === "IMG" ? !element.hasAttribute("alt")
  : !element.hasAttribute("aria-hidden") && !name(element)?.trim();
const controls = "button, select, input, dialog, [role=img], [role=region], [role=group], img, figure svg";
return [...document.querySelectorAll(controls)].filter(wanting).map((element) => element.outerHTML.slice(0, 200));
"""
DANGLING = """
const wanted = (element) => element.getAttribute("aria-labelledby") ?? element.getAttribute("for");
const ids = [...document.querySelectorAll("[aria-labelledby], [for]")].map(wanted);
return ids.filter((id) => !document.getElementById(id));
"""
TWICE = """
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
return ids.filter((id, i) => ids.indexOf(id) !== i);
"""
HEADINGS = "return [...document.querySelectorAll('main h2, main h3')].map((heading) => Number(heading.tagName[1]))"
FAINT = """
const channel = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const numbers = (colour) =>
  colour.match(/[\\d.]+/g).map((part, i) => (colour.startsWith("color(srgb") && i < 3 ? 255 : 1) * part);
const ground = (element) => {
  const [r, g, b, opacity = 1] = numbers(getComputedStyle(element).backgroundColor);
  if (opacity === 1) return [r, g, b];
  const below = ground(element.parentElement);
  return [r, g, b].map((own, i) => opacity * own + (1 - opacity) * below[i]);
};
const contrast = (element) => {
  const [a, b] = [numbers(getComputedStyle(element).color), ground(element)].map(light).sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
};
const said = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
const drawn = (element) => element.checkVisibility() && !element.closest("svg");
const faint = (element) => said(element) && drawn(element) && contrast(element) < 4.5;
return [...document.querySelectorAll("main *, header *")].filter(faint).map((element) => element.outerHTML);
"""


@pytest.fixture(params=["light", "dark"])
def scheme(request, page):
    features = [{"name": "prefers-color-scheme", "value": request.param}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    yield request.param
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("script", [NAMELESS, DANGLING, TWICE], ids=["nameless", "dangling", "twice"])
def test_every_control_has_a_name_and_every_reference_is_there(page, script):
    assert page.execute_script(script) == []


def test_headings_skip_no_level(page):
    levels = [1, *page.execute_script(HEADINGS)]
    assert all(b - a <= 1 for a, b in pairwise(levels)) and len(levels) > 8


def test_text_can_be_read_in_both_schemes(page, scheme):
    assert page.execute_script(FAINT) == []


def test_the_keyboard_gets_through_the_page_in_its_order(page):
    page.execute_script("document.querySelector('#view-strength').focus()")
    seen = []
    for _ in range(60):
        ActionChains(page).send_keys(Keys.TAB).perform()
        seen.append(
            page.execute_script("return document.activeElement.closest('section')?.getAttribute('aria-labelledby')")
        )
    assert [name for name in dict.fromkeys(seen) if name][:3] == ["wall-title", "prompts-title", "repeats-title"]


def test_what_changes_is_announced(page):
    live = page.execute_script(
        "return ['panel', 'unplotted', 'equal-compute', 'pairs'].map((id) => document.getElementById(id).ariaLive)"
    )
    assert set(live) == {"polite"}
    outputs = page.execute_script(
        "return ['kept', 'within', 'stop', 'seed'].map((id) => document.getElementById(id).tagName)"
    )
    assert set(outputs) == {"OUTPUT"}


PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
SIZES = """
const region = document.querySelector("#telling"), rows = [...region.querySelectorAll(".tiles")];
const width = (tile) => tile.getBoundingClientRect().width;
return [rows.map((row) => row.children.length), Math.min(...rows.flatMap((row) => [...row.children].map(width))),
  region.scrollWidth > region.clientWidth, rows.every((row) => row.scrollWidth <= row.clientWidth), region.tabIndex,
  document.documentElement.scrollWidth];
"""


def test_the_opening_pictures_can_be_seen_on_a_phone(browser, tmp_path):
    run = make_run(tmp_path / "run", PROMPTS[:2], [*range(12)], points=POINTS[:4])
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    try:
        browser.get(write_report(run).as_uri())
        built(browser)
        WebDriverWait(browser, 30).until(lambda b: b.execute_script(SIZES)[0] == [12, 12, 12])
        _, smallest, scrolls, together, stop, page_width = browser.execute_script(SIZES)
        assert smallest >= 64 and scrolls and together and stop == 0 and page_width <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_fits_a_phone_and_follows_the_colour_scheme(page, scheme):
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    try:
        page.refresh()
        built(page)
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390
        assert page.execute_script("return getComputedStyle(document.body).colorScheme") == "light dark"
        colour = page.execute_script("return getComputedStyle(document.body).color")
        brightness = sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(",")))
        assert (brightness > 384) == (scheme == "dark")
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
