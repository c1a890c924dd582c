import pytest

from sfumato.report import choice, story
from sfumato.report.collapse import Collapse
from sfumato.report.data import read_frontier
from sfumato.runs import Run, write_json
from tests.report.synthetic import POINTS, frontier


def point(name, method, reward, vendi, half=0.1, **more):
    metrics = {"reward": reward, "vendi": vendi} | more
    entries = {key: {"mean": value, "low": value - half, "high": value + half} for key, value in metrics.items()}
    return {"name": name, "label": name, "method": method, "metrics": entries}


def world(*points, half=0.15):
    """A frontier of these points, in which tuned and base differ with a paired interval of that half width."""
    axes = {"reward": "reward", "diversity": "vendi"}
    ends = {p["method"]: p["metrics"] for p in points if p["method"] in choice.END_POINTS}
    changes = {key: ends["base"][key]["mean"] - value["mean"] for key, value in ends.get("tuned", {}).items()}
    versus = {key: {"mean": change, "low": change - half, "high": change + half} for key, change in changes.items()}
    found = [p | {"versus_tuned": versus} if p["method"] == "base" else p for p in points]
    return {"axes": axes, "points": found, "prompts": ["a", "b"], "differences": []}


BASE, TUNED = point("base", "base", 0.0, 5.0, gold=0.5), point("tuned", "tuned", 10.0, 1.0, gold=0.2)


def test_the_answers_say_what_was_lost_and_what_comes_back():
    found = world(BASE, point("AIG power 2", "AIG", 8.0, 4.0), point("LoRA", "LoRA scale", 5.0, 3.0), TUNED)
    assert story.headline(found) == "Tuning raised the reward from 0 to 10.0 and cut the Vendi score from 5.00 to 1.00."
    prompts = [Collapse("dog", 6.0, 1.0, None, 1.0, 9.0), Collapse("cat", 4.0, 1.0, None, 1.0, 9.0)]
    assert story.collapsed(found, prompts) == [
        "Tuning cut the gold reward from 0.500 to 0.200, which it never saw.",
        "Of the base's diversity it took 100\N{NO-BREAK SPACE}% by Vendi score.",
        "Hit hardest, by Vendi score: “dog” (6.00 to 1.00) and “cat” (4.00 to 1.00).",
    ]
    assert story.given_back(found) == [
        "AIG power 2 keeps 80\N{NO-BREAK SPACE}% of the reward gain and gives back 75\N{NO-BREAK SPACE}% of the lost "
        "diversity, the best balance of all points.",
        "Of the other ways LoRA comes nearest: it keeps 50\N{NO-BREAK SPACE}% of the reward gain and gives back "
        "50\N{NO-BREAK SPACE}% of the lost diversity.",
    ]
    assert story.undecided(found) == ""


def test_a_measure_that_fell_within_noise_is_not_named():
    base, tuned = point("base", "base", 0.0, 5.0, recall=0.5), point("tuned", "tuned", 10.0, 4.9, recall=0.1)
    assert (
        story.collapsed(world(base, tuned), [])[-1]
        == "Of the base's diversity it took 80\N{NO-BREAK SPACE}% by recall."
    )
    same = point("tuned", "tuned", 10.0, 4.9, recall=0.45)
    assert story.collapsed(world(base, same), []) == ["No measure of diversity fell beyond noise."]


def test_noise_is_judged_in_pairs_and_not_by_the_intervals_of_the_ends():
    tuned = point("tuned", "tuned", 0.125, 1.0)  # the intervals of both ends reach over the other's mean
    assert "from 0 to 0.125 (within noise) and cut" in story.headline(world(BASE, tuned))
    assert "from 0 to 0.125 and cut" in story.headline(world(BASE, tuned, half=0.1))


def test_without_a_scale_there_are_no_hypervolumes_and_the_reason_is_told():
    assert story.unscaled(world(BASE, TUNED)) == ""
    found = story.unscaled(world(BASE, point("tuned", "tuned", 0.125, 5.0)))
    assert found.startswith("No hypervolumes: tuning did not change the reward (tuned minus base +0.125, 95")
    assert "0.275) or the Vendi score (tuned minus base 0, 95" in found


def test_without_an_end_point_the_headline_only_counts():
    assert story.headline(world(BASE)) == "Measured: 1 operating point on 2 prompts."


@pytest.mark.parametrize(
    "points",
    [
        (BASE, TUNED),
        (BASE, point("worse", "KL", -1.0, 4.0), TUNED),
        (BASE, point("m", "KL", 5.0, 5.5), point("tuned", "tuned", 10.0, 6.0)),
        (BASE, point("m", "KL", -5.0, 3.0), point("tuned", "tuned", -10.0, 1.0)),
        (BASE, point("m", "KL", 5.0, 4.95), point("tuned", "tuned", 10.0, 4.9)),
    ],
    ids=["no other point", "nothing kept", "diversity rose", "reward fell", "within the noise"],
)
def test_no_balance_is_claimed_where_there_is_none(points):
    assert choice.best_balance(world(*points)) is None
    assert story.undecided(world(*points)) != ""


def test_more_than_everything_counts_as_everything():
    over, middle = point("over", "x", 100.0, 1.4), point("middle", "x", 5.0, 3.0)
    best = choice.best_balance(world(BASE, over, middle, TUNED))
    assert best.point is middle and (best.kept, best.regained) == (0.5, 0.5)


def test_the_verdict_names_the_first_and_the_second(tmp_path):
    run = Run.create(tmp_path, {}, "x")
    write_json(run.evaluation / "frontier.json", frontier(["a"], 2, POINTS))
    verdict = story.verdict(read_frontier(run))
    assert verdict.startswith("Of the methods with equally many points, AIG has the largest hypervolume, 0.740; with ")
    assert "with bootstrap probability 69" in verdict
    assert verdict.endswith("exceeds that of LoRA scale, which comes next.")


def test_the_verdict_compares_like_with_like():
    volumes = {"a": 0.4, "b": 0.6, "more": 0.9}
    methods = [{"name": n, "hypervolume": {"mean": v}, "points_differ": n == "more"} for n, v in volumes.items()]
    verdict = story.verdict({"methods": methods})
    assert (
        verdict
        == "Of the methods with equally many points, b has the largest hypervolume, 0.600; next comes a with 0.400."
    )
    assert story.verdict({"methods": methods[1:]}) is None


def test_the_verdict_finds_a_pair_in_either_order():
    methods = [{"name": name, "hypervolume": {"mean": mean}} for name, mean in (("a", 0.4), ("b", 0.6))]
    pairs = [{"a": "a", "b": "b", "probability": 0.25}]
    assert "probability 75\N{NO-BREAK SPACE}% it exceeds that of a" in story.verdict(
        {"methods": methods, "comparisons": pairs}
    )


@pytest.mark.parametrize(
    ("recipe", "title"),
    [
        ({"description": "emoji, tuned."}, "Emoji, tuned"),
        ({"pipeline": {"path": "/models/sd15"}, "reward": {"name": "jpeg"}}, "sd15, tuned on jpeg"),
        ({"pipeline": {"path": "sd15"}, "reward": [{"name": "clip"}, {"name": "jpeg"}]}, "sd15, tuned on clip + jpeg"),
        ({}, "demo"),
        ({"pipeline": {"path": "x/sdxl"}, "reward": "colourfulness"}, "sdxl, tuned on colourfulness"),
        ({"pipeline": {"path": "sd"}, "reward": ["mine:bright", {"name": "jpeg"}]}, "sd, tuned on mine:bright + jpeg"),
    ],
)
def test_title(recipe, title):
    assert story.title({"name": "demo"}, recipe) == title
