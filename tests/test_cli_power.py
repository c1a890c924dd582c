"""The plan of an evaluation, asked through the command line."""

import re

import pytest

from sfumato.frontier.measured import read_measured
from sfumato.frontier.power import prompts_needed, run_pilot
from sfumato.runs import Run, read_jsonl, write_json, write_jsonl
from tests.frontier import test_measured
from tests.frontier.test_measured import make_run


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "run").path


def test_help_teaches_with_an_example(sfumato):
    assert "Example: sfumato power runs/mine --metric recall --change 5%" in sfumato("power", "--help").out


def test_the_question_is_answered(folder, sfumato):
    outcome = sfumato("power", folder, "--metric", "reward", "--change", "0.8")
    assert outcome.code == 0, outcome.err
    rows = [re.split(r"\s{2,}", line.strip()) for line in outcome.out.splitlines()[:5]]
    assert rows[0] == ["images", "base's reward", "change", "prompts", "80 % range", "forwards"]
    assert [row[0] for row in rows[1:]] == ["4", "8", "~16", "~32"]
    measured = read_measured(Run.load(folder), "reward", ["base", "tuned"])
    pilot = run_pilot(measured.measure, measured.samples["base"], measured.samples["tuned"])
    needed = prompts_needed(pilot, 0.8, 4)
    assert rows[1][3] == str(needed) and rows[1][5] == f"{needed * 4 * 25:,}"
    assert f"ask {needed} prompts with 4 images each: the cheapest of these" in outcome.out
    assert "The pilot, 6 prompts with 8 images, sees" in outcome.out


def test_more_certainty_takes_more_prompts(folder, sfumato):
    needed = []
    for power in (0.6, 0.95):
        outcome = sfumato("power", folder, "--metric", "reward", "--change", "40%", "--power", power)
        assert f"a change of 40% in reward with power {power} (two-sided, alpha 0.05)" in outcome.out, outcome.err
        needed.append(int(re.search(r"ask (\d+) prompts", outcome.out)[1]))
    assert needed[0] < needed[1]


def test_recall_is_asked_of_enough_images(folder, sfumato):
    outcome = sfumato("power", folder, "--metric", "recall", "--change", "40%")
    assert outcome.code == 0, outcome.err
    assert [line.split()[0] for line in outcome.out.splitlines()[1:4]] == ["8", "~16", "~32"]
    assert "base's recall" in outcome.out and "a change of 40% in recall" in outcome.out


def test_a_saturated_measure_gets_no_plan_from_too_few_images(folder, sfumato):
    outcome = sfumato("power", folder, "--metric", "recall", "--points", "base")
    assert (outcome.code, outcome.out) == (1, "")
    assert "4 images per prompt on either side hardly tells points apart" in outcome.err
    assert "take one with 6 or more" in outcome.err


def test_a_small_pilot_is_warned_of(tmp_path, folder, sfumato, monkeypatch):
    warning = "Warning: a pilot of 6 prompts knows a variance to about ± 63% only"
    assert warning in sfumato("power", folder, "--metric", "reward", "--change", "0.8").out
    monkeypatch.setattr(test_measured, "PROMPTS", [f"a thing {i}" for i in range(12)])
    large = make_run(tmp_path / "large").path
    outcome = sfumato("power", large, "--metric", "reward", "--change", "0.8")
    assert outcome.code == 0 and "Warning" not in outcome.out


@pytest.mark.parametrize("points", ["base, tuned, update 10", "base,late", "the base,tuned, update 10", "base, late "])
def test_points_are_known_by_their_labels(folder, sfumato, points):
    rows = read_jsonl(folder / "evaluation" / "images.jsonl")
    renamed = [row | {"point": "late"} if row["point"] == "tuned" else row for row in rows]
    write_jsonl(folder / "evaluation" / "images.jsonl", renamed)
    labels = {"base": "the base", "late": "tuned, update 10"}
    described = [{"name": name, "label": label} for name, label in labels.items()]
    write_json(folder / "evaluation" / "frontier.json", {"points": described})
    outcome = sfumato("power", folder, "--metric", "reward", "--change", "0.8", "--points", points)
    assert outcome.code == 0 and "base's reward" in outcome.out, outcome.err


def test_one_point_alone_says_what_it_does_not_know(folder, sfumato):
    outcome = sfumato("power", folder, "--metric", "vendi", "--points", "base")
    assert "base is its own control here" in outcome.out
    assert "The pilot, 6 prompts with 4 images, sees" in outcome.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "beauty"], 'no metric "beauty"'),
        (["--metric", "recal"], 'did you mean "recall"?'),
        (["--metric", "reward", "--change", "much"], "--change must be a share such as 5% or a number such as 0.1"),
        (["--metric", "reward", "--change", "0%"], "the change to be seen must not be 0"),
        (["--metric", "reward", "--points", "base,tuned,aig"], "one or two points, not 3"),
        (["--metric", "reward", "--points", "base,aig"], 'no point "aig"'),
        (["--metric", "reward", "--power", "1.5"], "power must lie between alpha and 1"),
    ],
)
def test_refuses(folder, sfumato, options, message):
    outcome = sfumato("power", folder, *options)
    assert (outcome.code, outcome.out) == (1, "")
    assert message in outcome.err
