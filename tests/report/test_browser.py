"""The report as a person uses it, in a real browser."""

import shutil

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import visibility_of_element_located
from selenium.webdriver.support.ui import Select, WebDriverWait

from sfumato.report import write_report
from tests.report.conftest import PROMPTS, SEEDS, built, find_browser
from tests.report.synthetic import POINTS, UNRELATED, make_run

FIGURES = '[aria-label="Per prompt"] .figures'
SIZE = """
const [source, done] = arguments;
const image = new Image();
image.src = source.src ?? getComputedStyle(source).getPropertyValue("--strip").match(/url\\("?([^")]*)"?\\)/)[1];
image.decode().then(() => done([image.naturalWidth, image.naturalHeight]), (error) => done(String(error)));
"""
MINUS = "\N{MINUS SIGN}"
STRIP = """
const [block, done] = arguments;
requestAnimationFrame(() => requestAnimationFrame(() => done(block.style.getPropertyValue("--strip"))));
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
    assert all_text(page, "#panel figcaption b") == [*PROMPTS, *UNRELATED]
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
        return all_text(page, f"{FIGURES} tbody tr > :nth-child({number}) button")

    def press(label):
        table = page.find_element(By.CSS_SELECTOR, FIGURES)
        table.find_element(By.XPATH, f"./thead//button[text()='{label}']").click()

    by_reward = [label for _, label, _, *_ in sorted(POINTS, key=lambda point: -point[3])]
    press("Reward")
    assert column(1) == by_reward
    press("Reward")
    assert column(1) == by_reward[::-1]
    press("Point")
    assert column(1) == sorted(by_reward, key=str.lower)
    assert page.find_element(By.CSS_SELECTOR, f"{FIGURES} [aria-sort]").get_attribute("aria-sort") == "ascending"


def test_a_name_in_the_table_shows_its_point(page):
    page.find_element(By.CSS_SELECTOR, f'{FIGURES} [data-point="kl"]').click()
    assert page.find_element(By.CSS_SELECTOR, "#panel h3").text.startswith("KL 0.1")


def test_the_wall_follows_one_seed_through_all_columns(page):
    wall = page.find_element(By.ID, "wall")
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", wall)
    page.find_element(By.ID, "view-all").click()
    heads = all_text(page, "#wall thead th")
    assert (heads[0], heads[-1], len(heads)) == ("base", "tuned", len(POINTS))
    third = "#wall tbody tr:nth-child(2) td:nth-child(3) i:nth-child(3)"
    hover(page, WebDriverWait(page, 30).until(visibility_of_element_located((By.CSS_SELECTOR, third))))
    outlined = page.execute_script("return [...document.querySelectorAll('.same')].map((tile) => tile.dataset.seed)")
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
    assert all(text.startswith("update ") for text in all_text(page, readings))
    assert all("tuned" in text and "kl" in text for text in all_text(page, readings)[1:])


def test_the_slider_leads_through_the_contact_sheets(page):
    figure = page.find_element(By.CSS_SELECTOR, "#sheets figure")
    assert figure.find_element(By.TAG_NAME, "output").text == "tuned, update 120"
    figure.find_element(By.TAG_NAME, "input").send_keys(Keys.HOME)
    assert figure.find_element(By.TAG_NAME, "output").text == "tuned, update 40"
    picture = figure.find_element(By.TAG_NAME, "img")
    hover(page, picture)
    WebDriverWait(page, 30).until(lambda _: picture.get_attribute("src"))
    assert page.execute_async_script(SIZE, picture) == [256, 64]


def test_prompts_cannot_run_as_code_and_nothing_is_fetched(page):
    assert page.title.endswith("· sfumato") and PROMPTS[2] in all_text(page, "#prompts tbody th")
    fetched = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith(("blob:", "data:")) for name in fetched)


def test_a_report_without_pictures_opens_without_an_error(browser, tmp_path):
    run = make_run(tmp_path / "run", PROMPTS[:2], SEEDS[:2], points=POINTS[:4])
    shutil.rmtree(run.evaluation / "images")
    browser.get_log("browser")
    browser.get(write_report(run).as_uri())
    built(browser)
    assert not browser.find_element(By.ID, "telling").is_displayed()
    hover(browser, mark(browser, "aig-power-1"))
    mark(browser, "aig-power-1").click()
    assert "AIG power 1" in browser.find_element(By.ID, "panel").text
    assert browser.get_log("browser") == []


def test_a_missing_browser_fails_in_ci_and_skips_elsewhere(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(pytest.fail.Exception, match="install-packages"):
        find_browser({"CI": "true"})
    with pytest.raises(pytest.skip.Exception, match="install-packages"):
        find_browser({})


def slide(page, name: str, value: float) -> None:
    """Move a slider as the keyboard does, with its event."""
    page.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
        page.find_element(By.ID, name),
        value,
    )


def test_another_priority_recommends_another_point(page):
    def chosen():
        return all_text(page, '#stages [aria-current="true"] .link')[0]

    best = chosen()
    assert (
        best in page.find_element(By.ID, "kept").text
        and "the best balance" in page.find_element(By.CSS_SELECTOR, '#stages [aria-current="true"]').text
    )
    keep = page.find_element(By.ID, "keep")
    keep.send_keys(Keys.HOME)
    assert chosen() == "tuned" and page.find_element(By.ID, "kept").text == "at least 0 %: tuned"
    assert len(all_text(page, "#telling > span")) == 2
    keep.send_keys(Keys.END)
    assert chosen() == "base"
    slide(page, "keep", 80)
    assert chosen() == "AIG power 4" and all_text(page, "#telling > span") == ["base", "tuned", "AIG power 4"]
    assert "beyond noise" in page.find_element(By.CSS_SELECTOR, '#stages [aria-current="true"] p').text


def test_a_budget_fades_what_costs_more_and_moves_the_front(page):
    def standing(name):
        return set(mark(page, name).get_attribute("class").split())

    assert "best" in standing("aig-power-2") and "over" not in standing("aig-power-2")
    page.find_element(By.ID, "budget").send_keys(Keys.HOME)
    assert page.find_element(By.ID, "within").text == "≤ 20.0"
    assert "over" in standing("aig-power-2") and "best" not in standing("aig-power-2")
    assert "best" in standing("lora-0.5") and "over the budget" in mark(page, "aig-power-2").get_attribute("aria-label")
    assert "Hypervolume within this budget: AIG 0.530" in page.find_element(By.ID, "equal-compute").text


def test_pooled_figures_and_drift_are_axes_too(page):
    Select(page.find_element(By.ID, "axis-x")).select_by_visible_text("FID, pooled")
    Select(page.find_element(By.ID, "axis-y")).select_by_visible_text("Distance from the base's image")
    assert all_text(page, "#frontier .title") == [
        "FID, pooled (less is better)", "Distance from the base's image (less is better)"
    ]  # fmt: skip
    assert len(page.find_elements(By.CLASS_NAME, "mark")) == len(POINTS)
    groups = page.execute_script(
        "return [...document.querySelectorAll('#axis-x optgroup')].map((group) => group.label)"
    )
    assert groups[:2] == ["Rewards", "Diversity"] and "Drift on unrelated prompts" in groups


def test_the_panel_says_what_is_beyond_noise(page):
    mark(page, "tuned").click()
    summary = page.find_element(By.XPATH, "//aside//summary[starts-with(text(), 'Better than')]")
    summary.click()
    row = page.find_element(By.XPATH, "//table[@class='compared']//tr[th='LoRA 0.75']")
    reward, diversity = (
        " ".join(cell.text.replace(MINUS, "-").split()) for cell in row.find_elements(By.TAG_NAME, "td")
    )
    assert reward == "▲ +1.00 (0.300 to 1.70)" and diversity == "▼ -0.550 (-0.950 to -0.150)"
    row = page.find_element(By.XPATH, "//table[@class='compared']//tr[th='tuned, CFG 2']")
    assert row.find_elements(By.TAG_NAME, "td")[1].text.startswith("≈")


def test_the_strength_slider_changes_the_wall_in_place(page):
    def shown(selector):
        return page.execute_script("return document.querySelector(arguments[0]).dataset.point", selector)

    wall = "#strength-wall .tiles"
    slider = page.find_element(By.ID, "strength")
    slider.send_keys(Keys.HOME)
    assert page.find_element(By.ID, "stop").text.startswith(f"base 1 of 6 · Reward {MINUS}3.10 · Vendi score 4.60")
    before = page.find_elements(By.CSS_SELECTOR, wall)
    assert shown(wall) == "0" and len(before) == len(PROMPTS) + len(UNRELATED)
    first = page.execute_async_script(STRIP, before[0])
    slider.send_keys(Keys.ARROW_RIGHT)
    assert slider.get_attribute("aria-valuetext").startswith("AIG power 4, Reward 0.900")
    assert page.find_elements(By.CSS_SELECTOR, wall) == before
    WebDriverWait(page, 30).until(lambda _: page.execute_async_script(STRIP, before[0]) != first)
    slider.send_keys(Keys.END)
    assert page.find_element(By.ID, "stop").text.startswith("tuned 6 of 6")
    Select(page.find_element(By.ID, "method")).select_by_value("LoRA scale")
    slider.send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert "LoRA 0.25" in page.find_element(By.ID, "stop").text


def test_two_points_stand_side_by_side(page):
    page.find_element(By.CSS_SELECTOR, '#views [value="pair"]').click()
    Select(page.find_element(By.ID, "left")).select_by_visible_text("LoRA 0.5")
    Select(page.find_element(By.ID, "right")).select_by_visible_text("AIG power 1")
    assert all_text(page, "#wall thead th") == ["LoRA 0.5", "AIG power 1"]
    assert not page.find_element(By.ID, "strength").is_displayed()


def test_a_prompt_of_the_table_leads_to_its_images(page):
    ranks = all_text(page, "#prompts tbody tr > :first-child")
    assert ranks == ["1", "2", "3"]
    button = page.find_element(By.XPATH, "//table[@id='prompts']/thead//button[text()='Base']")
    button.click()
    base = [float(text) for text in all_text(page, "#prompts tbody tr > :nth-child(3)")]
    assert base == sorted(base, reverse=True)
    page.find_element(By.XPATH, "//table[@id='prompts']//button[text()='a bird']").click()
    assert all_text(page, "#strength-wall figcaption b") == ["a bird"]
    assert page.switch_to.active_element.get_attribute("id") == "wall-title"


def test_any_image_opens_with_its_neighbours_and_closes_by_keyboard(page):
    wall = page.find_element(By.ID, "strength-wall")
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", wall)
    WebDriverWait(page, 30).until(lambda _: wall.find_elements(By.CSS_SELECTOR, ".tiles button"))
    first, second, *_ = wall.find_elements(By.CSS_SELECTOR, ".tiles button")
    page.execute_script("arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element == second
    second.send_keys(Keys.ENTER)
    dialog = page.find_element(By.ID, "look")
    assert dialog.is_displayed() and "“fruit”, seed 1001" in dialog.find_element(By.TAG_NAME, "h2").text
    shelves = dialog.find_elements(By.TAG_NAME, "section")
    assert [shelf.find_element(By.TAG_NAME, "h3").text for shelf in shelves][1:] == [
        "Nearest among the base's images", "The same seed at every point"
    ]  # fmt: skip
    assert len(shelves[2].find_elements(By.CLASS_NAME, "picture")) == len(POINTS)
    distances = [float(text.rpartition(" ")[2]) for text in all_text(page, "#look section:nth-of-type(1) small")]
    assert len(distances) == 4 and distances == sorted(distances)
    shelves[2].find_elements(By.CLASS_NAME, "picture")[0].click()
    assert dialog.find_element(By.TAG_NAME, "h2").text.startswith("base, ")
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    assert not dialog.is_displayed() and page.switch_to.active_element == second


def test_the_closest_pairs_of_a_point(page):
    assert len(page.find_elements(By.CSS_SELECTOR, "#pairs figure")) >= 5
    Select(page.find_element(By.ID, "repeating")).select_by_visible_text("base")
    pictures = page.find_elements(By.CSS_SELECTOR, "#pairs figure:first-child .picture")
    assert len(pictures) == 2 and all(picture.get_attribute("aria-label").startswith("base, ") for picture in pictures)
    page.execute_script("arguments[0].click()", pictures[0])
    assert page.find_element(By.ID, "look").is_displayed()
