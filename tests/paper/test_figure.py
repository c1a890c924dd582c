"""The figure: what it shows, that it can be embedded, and that it comes out the same each time."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from sfumato.frontier import choose, read_runs
from sfumato.paper import figure
from sfumato.paper.labels import overlap
from sfumato.report import vocabulary
from tests.frontier.measured_bed import make_frontier, write_run


@pytest.fixture
def drawn(tmp_path):
    """Runs and their choices."""

    def make(count=1):
        paths = [
            write_run(tmp_path / f"run{seed}", make_frontier(noise=0.4, seed=seed), training={"seed": seed}).path
            for seed in range(count)
        ]
        runs = read_runs(paths)
        return runs, [choose(run.frontier, min_diversity=0.6) for run in runs]

    return make


@pytest.mark.parametrize(("columns", "count"), [(1, 1), (1, 2), (2, 1), (2, 3)])
def test_labels_and_marks_are_where_they_belong(drawn, columns, count):
    with matplotlib.rc_context():
        matplotlib.rcParams.update(figure.STYLE)
        runs, choices = drawn(count)
        found = figure.draw(runs, choices, columns)
        assert found.get_size_inches()[0] == {1: 3.25, 2: 6.75}[columns]
        found.draw_without_rendering()
        assert len(found.axes) == count
        for panel, choice in zip(found.axes, choices, strict=True):
            written = [text.get_text().replace("\n", " ") for text in panel.texts]
            assert sorted(written) == sorted(point.label for point in choice.candidates)
            boxes = [text.get_window_extent().extents for text in panel.texts]
            frame = panel.get_window_extent().extents
            assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
            assert all(frame[0] <= b[0] and frame[1] <= b[1] and b[2] <= frame[2] and b[3] <= frame[3] for b in boxes)
            marks = {(line.get_xdata()[0], line.get_ydata()[0]) for line in panel.lines if len(line.get_xdata()) == 1}
            assert marks == {(point.reward.mean, point.diversity.mean) for point in choice.candidates}
            spans = {tuple(line.get_xdata()) for line in panel.lines}
            assert all((point.reward.low, point.reward.high) in spans for point in choice.candidates)
        assert [text.get_text() for text in found.legends[0].get_texts()] == ["AIG", "LoRA scale"]


def test_of_many_points_those_that_matter_are_named(drawn, monkeypatch):
    monkeypatch.setattr(figure, "MANY", 3)
    runs, choices = drawn()
    (panel,) = figure.draw(runs, choices, 2).axes
    written = {text.get_text().replace("\n", " ") for text in panel.texts}
    points, chosen = choices[0].candidates, choices[0].chosen
    assert {point.label for point in points if point.nondominated} | {chosen.label, "base", "tuned"} == written
    assert len(written) < len(points)


def test_where_a_row_is_not_full_the_panels_above_have_axes_that_can_be_read(drawn):
    found = figure.draw(*drawn(3), 2)
    labels = [(panel.get_xlabel() != "", panel.get_ylabel() != "") for panel in found.axes]
    ticks = [any(tick.get_visible() for tick in panel.get_xticklabels()) for panel in found.axes]
    assert labels == [(False, True), (True, False), (True, True)]
    assert ticks == [False, True, True]


def test_dominated_points_are_hollow_and_the_chosen_one_has_a_ring(drawn):
    runs, choices = drawn()
    (panel,) = figure.draw(runs, choices, 2).axes
    marks = [line for line in panel.lines if line.get_marker() not in ("None", None)]
    by_place = {(line.get_xdata()[0], line.get_ydata()[0]): line for line in marks if line.get_markersize() < 10}
    for point in choices[0].candidates:
        hollow = by_place[point.reward.mean, point.diversity.mean].get_markerfacecolor() == "white"
        assert hollow == (not point.nondominated)
    (ring,) = [line for line in marks if line.get_markersize() == 10]
    assert ring.get_xdata()[0] == choices[0].chosen.reward.mean


def test_files_have_embedded_fonts_no_date_and_always_the_same_bytes(drawn, tmp_path):
    runs, choices = drawn()
    paths = [tmp_path / f"one.{kind}" for kind in ("pdf", "svg", "png")]
    again = [tmp_path / "again" / path.name for path in paths]
    settings = {key: matplotlib.rcParams[key] for key in figure.STYLE}
    figure.write_figures(paths, runs, choices, 1)
    with matplotlib.rc_context({"font.size": 30, "pdf.fonttype": 3}):
        figure.write_figures(again, runs, choices, 1)
    assert {key: matplotlib.rcParams[key] for key in figure.STYLE} == settings
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    pdf = paths[0].read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf
    assert re.search(rb"/MediaBox \[ 0 0 234 ", pdf)  # 3.25 in
    assert "<dc:date>" not in paths[1].read_text(encoding="utf-8")
    assert Image.open(paths[2]).width == 975
    assert "matplotlib.pyplot" not in sys.modules


def test_colours_and_marks_are_those_of_the_report():
    (palette,) = Path(find_spec("sfumato.report").origin).parent.rglob("palette.css")
    light = palette.read_text(encoding="utf-8").split("@media")[0]
    assert tuple(re.findall(r"--m\d: (#\w+)", light)) == figure.COLOURS
    assert re.search(r"--ink: (#\w+)", light)[1] == figure.INK
    looks = [figure.look(style) for style in vocabulary.styles(list(vocabulary.METHODS)).values()]
    assert len({colour for colour, _, _ in looks}) == len({mark for _, mark, _ in looks}) == len(vocabulary.METHODS)
    assert len(vocabulary.SHAPES) == len(figure.MARKS)


def test_what_cannot_be_drawn_is_refused(drawn, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"a figure ends in .pdf, .svg or .png, not 'x.jpg'"):
        figure.check_figures([tmp_path / "x.jpg"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'sfumato\[figures\]'"):
        figure.check_figures([tmp_path / "x.pdf"])
