"""The choice in words: every claim in the text is one of the choice's figures."""

import re

import pytest
import yaml
from pydantic import TypeAdapter

from sfumato.config import PointConfig, load_recipe
from sfumato.frontier import choose, read_runs
from sfumato.paper.choice import choice_text, wrapped
from sfumato.paper.usage import usage
from sfumato.runs import write_json
from sfumato.schedules import schedule
from tests.frontier.measured_bed import make_frontier, write_run


@pytest.fixture
def tell(tmp_path):
    """Choose in a made-up run and say so."""

    def told(noise=0.0, shift=None, **asked):
        write_run(tmp_path / "run", make_frontier(noise=noise, shift=shift))
        (run,) = read_runs([tmp_path / "run"])
        choice = choose(run.frontier, **asked)
        return choice, " ".join(choice_text(choice, run).split())

    return told


def test_it_says_what_why_how_sure_and_at_what_price(tell):
    choice, text = tell(noise=0.5, min_diversity=0.69)
    point, other = choice.chosen, choice.runner_up
    assert "run: small-model, tuned on preference (emoji64), training seed 0 24 prompts x 8 images" in text
    assert "Choice: AIG power 2 (aig-power-2) It has the most reward of the 3 points that keep at least 69 %" in text
    assert "(counted from 1, where all images are alike)" in text
    assert f"It keeps {100 * point.gain_kept.mean:.0f} % [" in text
    assert f"Runner-up: {other.label} (aig-power-4), with {choice.versus['reward'].mean:.2f} [" in text
    assert "less reward and 1.0" in text
    assert "more Vendi score. The paired difference in reward is beyond the noise" in text
    assert "Ruled out: tuned, LoRA 0.6 (keep too little diversity)." in text
    assert f"satisfies this with probability {point.probability:.2f}, and this very point is chosen on " in text
    assert f"Safer: AIG power 4, which satisfies this with probability {choice.safer.probability:.2f}" in text
    assert "Elsewhere: gold reward 0.35" in text
    assert "Cost: 35 forwards per image, 1.8 times the base's 20." in text


def test_it_says_what_the_alarm_thinks_of_the_point(tell, tmp_path):
    tell()
    entry = {"name": "aig-power-2", "verdict": "hacked", "levels": {"rewards": "alarm", "modes": "ok"}}
    write_json(tmp_path / "run" / "evaluation" / "diagnosis.json", {"points": [entry]})
    choice, text = tell(min_diversity=0.69)
    assert choice.chosen.name == "aig-power-2"
    assert "Diagnosis: hacked (rewards); `sfumato diagnose" in text


def test_a_tie_is_said_to_be_one(tell):
    _, text = tell(noise=1.0, min_reward=0.2, shift={"lora-0.3": 0.5})
    assert "is within the noise of the prompts: take either" in text


def test_balance_and_budget_have_words_of_their_own(tell):
    _, text = tell(budget=33)
    assert "It has the best balance of the 4 points that cost at most 33 forwards per image: 0.38, the product" in text
    assert "Ruled out: AIG power 2 (cost too much)." in text
    assert "How sure: if the prompts are resampled, this very point is chosen on 100% of them." in text


def test_without_a_choice_it_says_the_nearest_and_what_to_try(tell, tmp_path):
    _, text = tell(min_diversity=0.99)
    assert "Choice: none. No operating point but the base model itself can keep at least 99 %" in text
    assert "Nearest: AIG power 4 (aig-power-4), which keeps 40 % [40, 40] of the gain and 95 %" in text
    assert "It falls short by 4.00 [4.00, 4.00] percentage points of the diversity. Try: ask for less" in text
    assert f"sfumato tune-schedule {tmp_path / 'run'} --keep diversity=0.99" in text
    _, text = tell(min_diversity="recall>=0.78", diversity="recall")
    assert "Nearest: AIG power 4" in text and "tune-schedule" not in text
    _, text = tell(min_diversity=0.5, budget=3)
    assert "No operating point costs at most 3 forwards per image. The cheapest costs 20: raise --budget" in text
    assert "The cheapest costs 20: raise --budget" in tell(budget=3)[1]
    _, text = tell(shift={"tuned": 5.0})
    assert "There is nothing to balance: none has both more reward than the base and more Vendi score" in text


def test_a_value_that_nothing_has_is_answered_with_the_nearest_value(tell):
    choice, text = tell(noise=0.5, min_diversity="vendi>=200")
    assert "Choice: none. No operating point can have vendi of at least 200." in text
    near = choice.nearest
    assert f"Nearest: {near.label} ({near.name}), which has vendi {near.diversity.mean:.2f} [" in text
    lack = choice.lacks["diversity"]
    assert f"It falls short by {lack.mean:.0f} [{lack.low:.0f}, {lack.high:.0f}] in vendi." in text
    _, text = tell(min_diversity="vendi>=6", min_reward=1.0)
    assert "by 1.20 [1.20, 1.20] in vendi and 60.0 [60.0, 60.0] percentage points of the gain." in text


def test_a_share_just_too_small_is_not_rounded_to_what_was_asked(tell):
    shift = {"aig-power-4": -0.216}  # (4.584 - 1) / 4 = 89.6 %
    choice, text = tell(min_diversity=0.9, shift=shift)
    assert choice.chosen is None and "40 % [40, 40] of the gain and 89.6 % [89.6, 89.6] of the diversity" in text
    assert "90 % [90, 90]" not in text


def test_the_only_point_is_said_to_be_the_only_one(tell):
    _, text = tell(min_diversity=0.9)
    assert "Choice: AIG power 4 (aig-power-4) No other point can keep at least 90 % of the base's Vendi score" in text


def test_where_only_base_and_tuned_were_measured_no_other_is_compared(tmp_path):
    frontier = make_frontier()
    frontier["points"] = [point for point in frontier["points"] if point["name"] in ("base", "tuned")]
    write_run(tmp_path / "run", frontier)
    (run,) = read_runs([tmp_path / "run"])
    text = " ".join(choice_text(choose(run.frontier, min_diversity=0.05), run).split())
    assert "(tuned) Beside the base there is no other point." in text


def test_without_a_gain_no_share_of_it_is_told(tmp_path):
    frontier = make_frontier()
    tuned = next(point for point in frontier["points"] if point["name"] == "tuned")
    tuned["per_prompt"]["gold"] = [-0.1] * 24
    write_run(tmp_path / "run", frontier)
    (run,) = read_runs([tmp_path / "run"])
    choice = choose(run.frontier, reward="gold", min_diversity=0.5)
    text = " ".join(choice_text(choice, run).split())
    assert all(point.gain_kept is None for point in choice.candidates)
    assert "It has gold reward 0.350 [0.350, 0.350]; base 0" in text and "of what tuning gained" not in text


def test_marks_have_a_legend(tell):
    legend = "* no other point is at least as good on both axes and better on one"
    assert f"{legend}, > the choice" in tell()[1]
    text = tell(min_diversity=0.99)[1]
    assert legend in text and "> the choice" not in text


def test_drift_is_told_where_it_was_measured(tell, tmp_path):
    frontier = make_frontier()
    for point in frontier["points"]:
        point["drift"] = {"distance_to_base": {"mean": 0.25, "low": 0.125, "high": 0.5}}
    write_run(tmp_path / "drifting", frontier)
    (run,) = read_runs([tmp_path / "drifting"])
    text = choice_text(choose(run.frontier), run)
    assert "On unrelated prompts it moved 0.250 [0.125, 0.500] away from the base's images" in text


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("aig-power-2", {"kind": "guidance", "schedule": "power", "parameters": {"p": 2.0}}),
        ("lora-0.3", {"kind": "lora_scale", "scale": 0.3}),
        (
            "lora-0.6",
            {
                "kind": "guidance",
                "schedule": "step",
                "parameters": {"f": 0.5},
                "cap": 0.9,
                "clock": "sigma",
                "blend": "weights",
            },
        ),
    ],
)
def test_what_is_printed_can_be_used(name, definition, tmp_path):
    frontier = make_frontier()
    next(point for point in frontier["points"] if point["name"] == name)["definition"] = definition
    write_run(tmp_path / "a run", frontier)
    (run,) = read_runs([tmp_path / "a run"])
    point = next(p for p in choose(run.frontier).candidates if p.name == name)
    export, load, *guided, entry = usage(point, run)
    assert export == f"sfumato export '{tmp_path / 'a run'}' {name} --out guided"
    assert load == 'pipe = sfumato.load("guided"); pipe("a dog", num_inference_steps=20, guidance_scale=4.0)'
    (listed,) = yaml.safe_load(entry.removeprefix("evaluation.points: "))
    points = [{"kind": "base"}, {"kind": "tuned"}, listed]
    recipe = load_recipe("emoji64-demo", ["evaluation.points=" + yaml.safe_dump(points, default_flow_style=True)])
    assert recipe.evaluation.points[-1] == TypeAdapter(PointConfig).validate_python(definition)
    assert listed == definition
    assert len(guided) == (definition["kind"] == "guidance")
    for line in guided:
        words = eval(re.search(r"annealed_guidance\(pipe, (.*)\): \.\.\.", line)[1].join(["dict(", ")"]))
        words.pop("blend", None)
        assert schedule(**words) == recipe.evaluation.points[-1].build()


def test_the_best_of_n_is_no_point_to_export(tmp_path):
    frontier = make_frontier()
    frontier["points"][2]["definition"] = {"kind": "best_of", "n": 4}
    write_run(tmp_path / "run", frontier)
    (run,) = read_runs([tmp_path / "run"])
    draw, entry = usage(choose(run.frontier).candidates[2], run)
    assert draw.startswith("draw 4 images with the base model")
    assert entry == "evaluation.points: - {kind: best_of, n: 4}"


def test_a_definition_of_another_version_is_shown_as_it_is(tmp_path):
    frontier = make_frontier()
    frontier["points"][2]["definition"] = {"kind": "dream", "depth": 3}
    write_run(tmp_path / "run", frontier)
    (run,) = read_runs([tmp_path / "run"])
    lines = usage(choose(run.frontier).candidates[2], run)
    assert lines[-1] == "evaluation.points: - {kind: dream, depth: 3}"


def test_lines_that_are_copied_are_not_broken():
    assert wrapped("  " + "word " * 40) == "  " + "word " * 40
    assert max(map(len, wrapped("word " * 60).splitlines())) <= 110


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ("colourfulness", "colourfulness"),
        ("rewards:redness", "rewards:redness"),
        ({"name": "preference", "model": "models/emoji64"}, "preference (emoji64)"),
        (["jpeg", {"name": "preference", "model": "emoji64"}], "jpeg + preference (emoji64)"),
    ],
    ids=str,
)
def test_every_way_to_name_a_reward_is_read(reward, words, tmp_path):
    made = write_run(tmp_path / "run")
    made.recipe_path.write_text(yaml.safe_dump(made.recipe | {"reward": reward}))
    (run,) = read_runs([tmp_path / "run"])
    assert run.reward == words
    assert f"small-model, tuned on {words}, training seed 0" in " ".join(choice_text(choose(run.frontier), run).split())
