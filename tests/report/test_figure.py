import re
from xml.etree import ElementTree

import pytest

from sfumato.report import frontier_svg
from sfumato.report.figure import Axis
from sfumato.runs import Run, write_json
from tests.report.synthetic import POINTS, frontier

NAMESPACE = {"s": "http://www.w3.org/2000/svg"}


def names(svg: str) -> dict[str, tuple[float, float]]:
    found = ElementTree.fromstring(svg).findall(".//s:text[@class]", NAMESPACE)
    return {text.text: (float(text.get("x")), float(text.get("y"))) for text in found if "name" in text.get("class")}


def test_every_point_is_drawn_and_named_without_overlap(run):
    svg = frontier_svg(run)
    assert svg == (run.path / "frontier.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(svg)
    assert {title.text for title in root.findall(".//s:title", NAMESPACE)} == {point[1] for point in POINTS}
    assert len(root.findall(".//s:circle[@class='ring']", NAMESPACE)) == svg.count('"ring"') > 3
    placed = list(names(svg).items())
    assert len(placed) == len(POINTS)
    for i, (a, (ax, ay)) in enumerate(placed):
        for b, (bx, by) in placed[i + 1 :]:
            apart = abs(ay - by) >= 14 or ax + 6 * len(a) <= bx or bx + 6 * len(b) <= ax
            assert apart, f"{a} lies on {b}"


def test_marks_stand_in_the_order_of_their_rewards(run):
    marks = re.findall(r'translate\(([\d.]+) [\d.]+\)"><title>([^<]*)', frontier_svg(run))
    by_place = [label for _, label in sorted((float(x), label) for x, label in marks)]
    assert by_place == [label for _, label, *_ in sorted(POINTS, key=lambda point: point[3])]


def test_points_without_figures_are_left_out(tmp_path):
    run = Run.create(tmp_path, {}, "x")
    values = frontier(["a"], 2, POINTS)
    for point in values["points"][2:]:
        point["metrics"] = {}
    write_json(run.evaluation / "frontier.json", values)
    assert set(names(frontier_svg(run))) == {"base", "tuned"}
    values["points"] = []
    write_json(run.evaluation / "frontier.json", values)
    assert names(frontier_svg(run)) == {}


def test_a_run_without_evaluation_has_no_picture(tmp_path):
    with pytest.raises(FileNotFoundError, match="sfumato evaluate"):
        frontier_svg(Run.create(tmp_path, {}, "x"))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]), (-3.2, 6.1, ["\N{MINUS SIGN}2", "0", "2", "4", "6"])],
)
def test_ticks_are_round(low, high, expected):
    axis = Axis(low, high, 0, 100)
    assert [text for _, text in axis.ticks(5)] == expected
    assert (axis(low), axis(high)) == (0, 100)
