"""The page of a learned reward, from its evaluation alone."""

import re

import pytest

from sfumato.report.preference import curve_svg, reliability_svg, training_svg, write_preference_page
from sfumato.runs import write_json

BIN = {"confidence": 0.75, "right": 0.7, "low": 0.6, "high": 0.8, "count": 40}
ACCURACY = {"accuracy": 0.8, "low": 0.7, "high": 0.9, "decided": 50, "loss": 0.5}
LOOKS = [
    {"step": step, "train_loss": 0.6, **ACCURACY, "loss": loss} for step, loss in ((10, 0.6), (20, 0.5), (30, 0.55))
]
FOUND = {
    **ACCURACY,
    "by_prompt": [0.68, 0.92],
    "prompts": 12,
    "reported_on": "held_out",
    "pairs": 1000,
    "calibration": {"ece": 0.02, "ece_by_chance": 0.03, "bins": [BIN, {**BIN, "confidence": 0.95, "right": 0.95}]},
    "uncalibrated": {"ece": 0.2, "ece_by_chance": 0.03, "bins": [BIN]},
    "curve": [{"pairs": pairs, **ACCURACY} for pairs in (250, 500, 1000)],
    "members": [{"name": "reward", "temperature": 1.7, "looks": LOOKS, **ACCURACY}],
    "leaks": None,
    "training": {"trainable": "head", "calibrate": True},
}


def page(folder, **changes):
    write_json(folder / "evaluation.json", {**FOUND, **changes})
    return write_preference_page(folder).read_text()


def numbers(svg, pattern):
    return [tuple(map(float, found)) for found in re.findall(pattern, svg)]


def test_a_mark_lies_on_the_diagonal_where_the_reward_is_as_right_as_it_is_sure():
    svg = reliability_svg(FOUND)
    (x0, y0, x1, y1), *_ = numbers(svg, r'class="ideal" d="M(\S+) (\S+)L(\S+) (\S+)"')
    hollow, low, on = numbers(svg, r'class="dot" cx="(\S+)" cy="(\S+)"')
    assert hollow == low
    for (x, y), sign in ((on, 0), (low, 1)):
        diagonal = y0 + (x - x0) / (x1 - x0) * (y1 - y0)
        assert y - diagonal == pytest.approx(0, abs=0.2) if sign == 0 else y > diagonal + 5
    assert "40 pairs: sure 75\N{NO-BREAK SPACE}%, right 70\N{NO-BREAK SPACE}%" in svg


def test_the_learning_curve_doubles_at_equal_distances():
    places = [x for x, _ in numbers(curve_svg(FOUND["curve"]), r'class="dot" cx="(\S+)" cy="(\S+)"')]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2) and places[0] < places[1]


def test_the_step_that_was_taken_has_a_ring():
    svg = training_svg([*FOUND["members"], {**FOUND["members"][0], "looks": LOOKS[::-1]}])
    rings = numbers(svg, r'class="ring m\d" cx="(\S+)" cy="(\S+)"')
    lowest = max(
        numbers(re.search(r'class="path m0" d="M(.*?)"', svg)[1].replace("L", "\n"), r"(\S+) (\S+)"), key=lambda p: p[1]
    )
    assert rings == [lowest, lowest] and svg.count("thin") == 2


def test_the_page_says_what_was_measured_and_warns_where_it_flatters(tmp_path):
    text = page(tmp_path)
    assert "in 80\N{NO-BREAK SPACE}% of pairs" in text and "learned from 1,000 pairs" in text
    assert "Hollow: before calibration, 0.200" in text and "can be given as" in text and "Too good" not in text
    text = page(tmp_path, reported_on="test", leaks="3 images <b>", curve=FOUND["curve"][:1])
    assert "can be given as" not in text and "Too good to be true, perhaps: 3 images &lt;b&gt;" in text
    assert "Learning curve" not in text


def test_without_calibration_and_with_members(tmp_path):
    members = [{**FOUND["members"][0], "name": name} for name in ("member-0", "member-1")]
    write_json(
        tmp_path / "evaluation.json",
        {key: v for key, v in FOUND.items() if key != "uncalibrated"} | {"members": members},
    )
    text = write_preference_page(tmp_path).read_text()
    assert "Hollow" not in text and "member-1</th>" in text


def test_a_reward_that_is_not_done_has_no_page(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_preference_page(tmp_path)
