"""A study as a person takes it, in a real browser: by pointer, by keyboard alone, on a phone."""

import threading
import time

import pytest
import uvicorn
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from sfumato.study.export import vote_rows
from sfumato.study.server.app import create_app
from sfumato.study.store import Store
from tests.report.conftest import start_browser
from tests.report.test_accessibility import FAINT, NAMELESS, TWICE
from tests.study.bed import make_pictures, make_study

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
READY = "return document.readyState === 'complete' && !document.getElementById('answer')?.ariaBusy"
PAGE = "return document.querySelector('[name=page]')?.value ?? document.querySelector('h1').textContent"
SEEN = """
return [...document.querySelectorAll('#answer img')].every((image) => image.naturalWidth > 0 && image.clientWidth > 20)
"""
WIDE = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
SMALL = """
const small = (element) => Math.min(element.offsetWidth, element.offsetHeight) < 44;
return [...document.querySelectorAll('main button, main select, footer a, footer summary, footer button')]
  .filter((element) => element.checkVisibility() && small(element)).map((element) => element.outerHTML);
"""

ROWS = "return new Set([...document.querySelectorAll('.scale button')].map((button) => button.offsetTop)).size"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = start_browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def serve(browser, points, tmp_path):
    """Serve a study with one item of a question, or whatever else is asked for, and open it."""
    running = []

    def start(**settings):
        plain = {"prompts": 1, "check_every": None, "points": points}
        store = Store(make_study(tmp_path / str(len(running)), **{**plain, **settings}))
        config = uvicorn.Config(create_app(store), port=0, log_level="warning", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        running.append((server, thread, store))
        port = server.servers[0].sockets[0].getsockname()[1]
        browser.delete_all_cookies()
        browser.get_log("browser")
        browser.get(f"http://127.0.0.1:{port}/")
        return store

    yield start
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "DEBUG"] == []
    for server, thread, store in running:
        server.should_exit = True
        thread.join()
        store.close()


def settle(browser):
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(READY))


def leave(browser, act):
    """Do something, and wait for the page that follows."""
    before = browser.execute_script(PAGE)
    act()
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(PAGE) != before)
    settle(browser)


def join(browser):
    leave(browser, browser.find_element(By.CSS_SELECTOR, "form button").click)


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


def heading(browser):
    return browser.find_element(By.TAG_NAME, "h1").text


def shown(browser):
    return [image.get_attribute("src") for image in browser.find_elements(By.CSS_SELECTOR, "#answer img")]


def answers(store):
    with store.read() as connection:
        return [(row["kind"], row["place"], row["answer"]) for row in vote_rows(connection, store.study)]


@pytest.mark.parametrize(
    ("question", "keys", "places"),
    [
        (
            {"kind": "pair"},
            ["1", "2", "0", Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN],
            [0, 1, None, 0, 1, None],
        ),
        ({"kind": "variety", "set_size": 4}, ["2", "0", Keys.ARROW_LEFT], [1, None, 0]),
        ({"kind": "best_of", "options": 3}, ["3", [Keys.ARROW_RIGHT] * 2 + [Keys.ENTER], "1"], [2, 1, 0]),
    ],
)
def test_choices_by_keyboard_alone(serve, browser, question, keys, places):
    store = serve(questions=[question])
    press(browser, Keys.TAB, Keys.ENTER)
    WebDriverWait(browser, 20).until(lambda b: b.find_elements(By.ID, "answer"))
    settle(browser)
    for key in keys:
        assert browser.execute_script(SEEN)
        leave(browser, lambda key=key: press(browser, *key))
    assert [place for _, place, _ in answers(store)] == places


def test_ratings_by_keyboard_alone(serve, browser):
    store = serve(questions=[{"kind": "rating", "scale": 7}])
    join(browser)
    leave(browser, lambda: press(browser, "7"))
    leave(browser, lambda: press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER))
    leave(browser, lambda: press(browser, Keys.ARROW_LEFT, Keys.SPACE))
    assert [answer for _, _, answer in answers(store)] == [7, 2, 7]


def test_ranks_by_keyboard_alone(serve, browser):
    store = serve(questions=[{"kind": "rank", "options": 3}])
    join(browser)
    ranks = browser.find_elements(By.NAME, "rank")
    press(browser, "3", "3", "2")
    assert [rank.get_attribute("value") for rank in ranks] == ["", "2", "1"]
    press(browser, Keys.BACKSPACE, "1", "2")
    assert [rank.get_attribute("value") for rank in ranks] == ["2", "3", "1"]
    leave(browser, lambda: press(browser, Keys.ENTER))
    row = answers(store)[0]
    assert row[1] == 2 and sorted(row[2]) == [0, 1, 2]


def test_ranks_by_pointer_and_by_menu(serve, browser):
    store = serve(questions=[{"kind": "rank", "options": 3}])
    join(browser)
    send = browser.find_element(By.CSS_SELECTOR, "#answer > button")
    send.click()
    assert answers(store) == [], "the browser asks for the missing ranks"
    for index in (1, 0, 2):
        browser.find_elements(By.CSS_SELECTOR, ".pictures")[index].click()
    leave(browser, send.click)
    for menu, rank in zip(browser.find_elements(By.NAME, "rank"), ("3", "2", "1"), strict=True):
        Select(menu).select_by_visible_text(rank)
    leave(browser, browser.find_element(By.CSS_SELECTOR, "#answer > button").click)
    assert [place for _, place, _ in answers(store)] == [1, 2]


def test_undo_leave_come_back_and_delete(serve, browser):
    store = serve(questions=[{"kind": "pair"}])
    join(browser)
    first = shown(browser)
    leave(browser, browser.find_element(By.CSS_SELECTOR, "#answer button").click)
    assert set(shown(browser)) != set(first), "two pairs may share a picture"
    leave(browser, lambda: press(browser, "u"))
    assert shown(browser) == first and answers(store) == []
    leave(browser, lambda: press(browser, "0"))
    browser.find_element(By.TAG_NAME, "summary").click()
    link = browser.find_element(By.CSS_SELECTOR, "footer input[readonly]").get_attribute("value")
    browser.delete_all_cookies()
    browser.get(link)
    settle(browser)
    assert "2 of 6" in browser.find_element(By.CLASS_NAME, "note").text
    browser.find_element(By.CSS_SELECTOR, 'footer a[href$="/forget"]').click()
    leave(browser, lambda: browser.find_element(By.CSS_SELECTOR, "button.danger").click())
    assert "deleted" in heading(browser) and answers(store) == []


def test_the_next_pictures_are_already_there(serve, browser):
    serve(questions=[{"kind": "pair"}])
    join(browser)
    ahead = browser.find_element(By.ID, "answer").get_attribute("data-ahead").split()
    fetched = "return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).pathname)"
    WebDriverWait(browser, 20).until(lambda b: set(ahead) <= set(b.execute_script(fetched)))
    leave(browser, lambda: press(browser, "1"))
    assert len(ahead) == 2 and sorted(source.partition("/images/")[2] for source in shown(browser)) == sorted(
        path.partition("/images/")[2] for path in ahead
    )


def test_keys_can_be_switched_off_and_stay_so(serve, browser):
    store = serve(questions=[{"kind": "pair"}])
    join(browser)
    browser.find_element(By.ID, "keys").click()
    press(browser, "1", "u", "0")
    browser.refresh()
    settle(browser)
    press(browser, "1")
    assert not browser.find_element(By.ID, "keys").is_selected() and answers(store) == []
    browser.find_element(By.ID, "keys").click()
    leave(browser, lambda: press(browser, "1"))
    assert len(answers(store)) == 1


def test_pressing_twice_makes_one_vote(serve, browser):
    store = serve(questions=[{"kind": "pair"}])
    join(browser)
    leave(browser, lambda: browser.execute_script("choose('1'); choose('2'); choose('1')"))
    assert [place for _, place, _ in answers(store)] == [0]


ALL = [{"kind": "pair"}, {"kind": "best_of"}, {"kind": "rank"}, {"kind": "variety", "set_size": 4}, {"kind": "rating"}]


@pytest.mark.parametrize("device", ["desktop dark", "phone"])
def test_every_page_fits_and_has_names(serve, browser, device, tmp_path):
    """Every kind on a screen of 390 px with a finger, and in the dark; texts can be read, controls have names."""
    if device == "phone":
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    else:
        scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    try:
        store = serve(questions=ALL, items_per_rater=None, language="zh" if device == "phone" else "en")
        check_page(browser, device)
        join(browser)
        seen = set()
        while browser.find_elements(By.ID, "answer"):
            kind = browser.find_element(By.ID, "answer").get_attribute("data-kind")
            if kind not in seen:
                seen.add(kind)
                check_page(browser, device)
                last = browser.find_elements(By.CSS_SELECTOR, "#answer img")[-1].rect
                assert last["y"] + last["height"] <= 844, "all pictures can be compared without scrolling"
            leave(browser, lambda kind=kind: press(browser, *("123\ue007" if kind == "rank" else "1")))
        check_page(browser, device)
        assert seen == {question["kind"] for question in ALL} and len(answers(store)) == 21
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def check_page(browser, device):
    assert not browser.execute_script(WIDE)
    assert [each for each in browser.execute_script(NAMELESS) if 'type="hidden"' not in each] == []
    assert browser.execute_script(TWICE) == []
    assert browser.execute_script(FAINT.replace("main *, header *", "body *")) == []
    if device == "phone":
        assert browser.execute_script(SMALL) == []
        assert browser.execute_script(ROWS) <= 1
