"""The report as a person uses it, in a real browser."""

import shutil

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import visibility_of_element_located
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.report.conftest import PROMPTS, SEEDS, find_browser
from tests.report.synthetic import POINTS

SIZE = """
const [source, done] = arguments;
const image = new Image();
image.src = source.src ?? getComputedStyle(source).getPropertyValue("--strip").match(/url\\("?([^")]*)"?\\)/)[1];
image.decode().then(() => done([image.naturalWidth, image.naturalHeight]), (error) => done(String(error)));
"""


def mark(page, name: str):
    return page.find_element(By.CSS_SELECTOR, f'.mark[data-point="{name}"]')


def all_text(page, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)"
    return page.execute_script(script, selector)


def hover(page, element) -> None:
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    ActionChains(page).move_to_element(element).perform()


def test_hover_shows_the_points_images(page):
    tip = page.find_element(By.CSS_SELECTOR, "#frontier .tip")
    assert not tip.is_displayed()
    hover(page, mark(page, "aig-power-4"))
    assert tip.is_displayed()
    assert "AIG power 4" in tip.text and "0.900 (0.450 to 1.40)" in tip.text
    tiles = tip.find_element(By.CLASS_NAME, "tiles")
    assert len(tiles.find_elements(By.TAG_NAME, "i")) == len(SEEDS)
    assert page.execute_async_script(SIZE, tiles) == [64 * len(SEEDS), 64]
    hover(page, page.find_element(By.ID, "frontier-title"))
    assert not tip.is_displayed()


def test_click_pins_a_point_with_images_of_every_prompt(page):
    panel = page.find_element(By.ID, "panel")
    hover(page, mark(page, "lora-0.5"))
    mark(page, "lora-0.5").click()
    assert panel.find_element(By.TAG_NAME, "h3").text.startswith("LoRA 0.5")
    assert "lora_scale" in panel.find_element(By.TAG_NAME, "pre").get_attribute("textContent")
    assert all_text(page, "#panel figcaption b") == PROMPTS
    assert "against tuned" in panel.text
    pressed = page.find_elements(By.CSS_SELECTOR, '.mark[aria-pressed="true"]')
    assert [element.get_attribute("data-point") for element in pressed] == ["lora-0.5"]
    panel.find_element(By.CLASS_NAME, "close").click()
    assert "Click a mark" in panel.text


def test_keyboard_alone_shows_and_pins_a_point(page):
    page.find_element(By.ID, "prompt").send_keys(Keys.TAB)
    focused = page.switch_to.active_element
    assert focused.get_attribute("role") == "button" and "Reward" in focused.get_attribute("aria-label")
    assert page.find_element(By.CSS_SELECTOR, "#frontier .tip").is_displayed()
    focused.send_keys(Keys.ENTER)
    label = focused.get_attribute("aria-label").partition(":")[0]
    assert page.find_element(By.CSS_SELECTOR, "#panel h3").text.startswith(label)


def test_choosers_change_the_axes(page):
    def titles():
        return all_text(page, "#frontier .title")

    def place(name):
        return mark(page, name).get_attribute("transform")

    assert titles() == ["Reward", "Vendi score"]
    before = place("kl")
    Select(page.find_element(By.ID, "axis-x")).select_by_visible_text("Gold reward")
    Select(page.find_element(By.ID, "axis-y")).select_by_visible_text("Recall")
    assert titles() == ["Gold reward", "Recall"] and place("kl") != before
    assert all_text(page, "#frontier .ceiling") == ["base against itself"]
    Select(page.find_element(By.ID, "axis-x")).select_by_visible_text("Forwards per image")
    page.find_element(By.ID, "scaled").click()
    assert titles() == ["Forwards per image (less is better)", "Recall, scaled"]
    assert not page.find_elements(By.CSS_SELECTOR, "#frontier .ceiling")


def test_scaled_axes_run_from_base_to_tuned(page):
    page.find_element(By.ID, "scaled").click()
    ticks = all_text(page, "#frontier .axes text")
    assert {"0.0", "1.0"} <= set(ticks) and "4" not in ticks


def test_legend_hides_a_method(page):
    button = page.find_element(By.CSS_SELECTOR, '#legend [data-method="AIG"]')
    assert len(page.find_elements(By.CLASS_NAME, "mark")) == len(POINTS)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert len(page.find_elements(By.CLASS_NAME, "mark")) == len([p for p in POINTS if p[2] != "AIG"])


def test_headings_sort_the_table(page):
    def column(number):
        return all_text(page, f"#figures tbody tr > :nth-child({number}) button")

    def press(label):
        page.find_element(By.XPATH, f"//table[@id='figures']/thead//button[text()='{label}']").click()

    by_reward = [label for _, label, _, *_ in sorted(POINTS, key=lambda point: -point[3])]
    press("Reward")
    assert column(1) == by_reward
    press("Reward")
    assert column(1) == by_reward[::-1]
    press("Point")
    assert column(1) == sorted(by_reward, key=str.lower)
    assert page.find_element(By.CSS_SELECTOR, "#figures [aria-sort]").get_attribute("aria-sort") == "ascending"


def test_a_name_in_the_table_shows_its_point(page):
    page.find_element(By.CSS_SELECTOR, '#figures [data-point="kl"]').click()
    assert page.find_element(By.CSS_SELECTOR, "#panel h3").text.startswith("KL 0.1")


def test_the_wall_follows_one_seed_through_all_columns(page):
    wall = page.find_element(By.ID, "wall")
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", wall)
    heads = all_text(page, "#wall thead th")
    assert (heads[0], heads[-1], len(heads)) == ("base", "tuned", len(POINTS))
    third = "#wall tbody tr:nth-child(2) td:nth-child(3) i:nth-child(3)"
    hover(page, WebDriverWait(page, 30).until(visibility_of_element_located((By.CSS_SELECTOR, third))))
    outlined = page.execute_script("return [...document.querySelectorAll('i.same')].map((tile) => tile.dataset.seed)")
    assert set(outlined) == {"2"} and len(outlined) > 3
    assert "seed 1002" in page.find_element(By.ID, "seed").text
    Select(page.find_element(By.ID, "columns")).select_by_value("AIG")
    assert all_text(page, "#wall thead th") == [
        "base", "AIG power 4", "AIG step 0.6", "AIG power 2", "AIG power 1", "tuned"
    ]  # fmt: skip


def test_curves_read_out_the_update_under_the_pointer(page):
    readings = "#curves output"
    assert set(all_text(page, readings)) == {""}
    hover(page, page.find_element(By.CSS_SELECTOR, "#curves svg"))
    assert all(text.startswith("update ") and "kl" in text for text in all_text(page, readings))


def test_the_slider_leads_through_the_contact_sheets(page):
    figure = page.find_element(By.CSS_SELECTOR, "#sheets figure")
    assert figure.find_element(By.TAG_NAME, "output").text == "tuned, update 120"
    figure.find_element(By.TAG_NAME, "input").send_keys(Keys.HOME)
    assert figure.find_element(By.TAG_NAME, "output").text == "tuned, update 40"
    assert page.execute_async_script(SIZE, figure.find_element(By.TAG_NAME, "img")) == [256, 64]


def test_prompts_cannot_run_as_code_and_nothing_is_fetched(page):
    assert page.title.endswith("· sfumato") and PROMPTS[2] in all_text(page, "#wall tbody th")
    fetched = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith(("blob:", "data:")) for name in fetched)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_and_follows_the_colour_scheme(page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        page.refresh()
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390
        colour = page.find_element(By.TAG_NAME, "body").value_of_css_property("color")
        brightness = sum(map(int, colour.removeprefix("rgba(").split(",")[:3]))
        assert (brightness > 384) == (scheme == "dark")
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_missing_browser_fails_in_ci_and_skips_elsewhere(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(pytest.fail.Exception, match="install-browser"):
        find_browser({"CI": "true"})
    with pytest.raises(pytest.skip.Exception, match="install-browser"):
        find_browser({})
