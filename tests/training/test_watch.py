"""When a training has gone too far: the verdict on a log, from the log alone."""

import numpy as np
import pytest

from sfumato.config import TrainingConfig, WatchConfig
from sfumato.training.watch import diversity_kept, ended, judge, looks_of, paired_fall, result, seen

PROMPTS, IMAGES = ["red", "blue"], 4
NOISE = np.array([[0.1, -0.1, 0.1, -0.1], [0.1, -0.1, 0.1, -0.1]])


def look(update, reward, kept=1.0, **others):
    """A look whose rewards have these means; `others` may be scores (prompts, images)."""
    scores = {"reward": np.full((2, 4), reward), **{name: value + np.zeros((2, 4)) for name, value in others.items()}}
    return {
        "update": update,
        **{f"eval/{name}": float(values.mean()) for name, values in scores.items()},
        "eval/vendi": 1 + 2 * kept,
        "eval/kept": kept,
        "eval/scores": {name: dict(zip(PROMPTS, values.tolist(), strict=True)) for name, values in scores.items()},
    }


def watching(**changes):
    return TrainingConfig.model_validate({"steps": 40, "watch": changes})


def test_diversity_is_counted_from_the_one_picture_that_is_always_there():
    assert diversity_kept({"eval/vendi": 1.75}, {"eval/vendi": 2.5}) == pytest.approx(0.5)
    assert diversity_kept({"eval/vendi": 1.0}, {"eval/vendi": 1.0}) is None


def test_diversity_below_the_least_share_is_too_far_and_the_look_before_is_the_last_good_one():
    looks = [look(0, 0.1), look(10, 0.2, kept=0.8), look(20, 0.3, kept=0.61)]
    assert judge(looks, WatchConfig(diversity=0.6)) is None
    verdict = judge([*looks, look(30, 0.4, kept=0.59)], WatchConfig(diversity=0.6))
    assert (verdict.update, verdict.good) == (30, 20)
    assert verdict.why == "diversity is 59% of the base's, less than the 60% it is to keep"
    assert judge([*looks, look(30, 0.4, kept=0.59)], WatchConfig(diversity=None)) is None


@pytest.mark.parametrize(("noise", "far"), [(3.0, True), (4.0, False)])
def test_a_held_out_reward_has_fallen_only_beyond_the_noise_of_its_paired_difference(noise, far):
    best, now = look(10, 0.2, gold=0.9), look(20, 0.3, gold=0.9 - 0.13 + NOISE)
    fall, error = paired_fall(best, now, "gold")
    assert (fall, error) == (pytest.approx(0.13), pytest.approx(0.1 * np.sqrt(8 / 7) / np.sqrt(8)))
    assert 3 < fall / error < 4
    verdict = judge([look(0, 0.1, gold=0.5), best, now], WatchConfig(noise=noise))
    assert (verdict is not None) is far
    if far:
        assert verdict.good == 10
        assert verdict.why == "gold fell from 0.9 at update 10 to 0.77 while the reward rose"


def test_the_pairing_removes_what_images_differ_by_among_themselves():
    spread = np.array([[0.0, 5.0, -3.0, 9.0], [2.0, -8.0, 4.0, 1.0]])
    looks = [look(0, 0.1, gold=spread), look(10, 0.2, gold=spread - 0.01)]
    assert judge(looks, WatchConfig(noise=1000)).good == 0


def test_a_reward_that_falls_with_the_trained_one_is_no_overoptimisation():
    assert judge([look(0, 0.5, gold=0.9), look(10, 0.4, gold=0.1)], WatchConfig()) is None


def test_a_slow_fall_is_measured_from_the_best_look_not_from_the_one_before():
    looks = [look(10 * i, i, gold=0.9 - 0.03 * i + NOISE * (i % 2)) for i in range(5)]
    assert [judge(looks[: i + 1], WatchConfig()) is not None for i in range(5)] == [False, False, True, False, True]
    assert judge(looks, WatchConfig()).good == 0


def test_only_the_rewards_that_are_named_count():
    looks = [look(0, 0.1, gold=0.9, clip=0.9), look(10, 0.2, gold=0.9, clip=0.1)]
    assert judge(looks, WatchConfig(rewards=["gold"])) is None
    assert judge(looks, WatchConfig(rewards=[])) is None
    for names in (["clip"], None):
        assert "clip fell" in judge(looks, WatchConfig(rewards=names)).why


def test_the_last_good_look_satisfies_all_rules():
    """Gold is best where diversity is already lost, and second best at update 10."""
    looks = [look(0, 0.1, gold=0.1), look(10, 0.2, gold=0.5), look(20, 0.3, kept=0.2, gold=0.9)]
    looks += [look(30, 0.4, kept=0.9, gold=0.4), look(40, 0.5, kept=0.3, gold=0.3)]
    verdict = judge(looks, WatchConfig())
    assert verdict.good == 10
    assert "diversity is 30%" in verdict.why and "gold fell from 0.5 at update 10 to 0.3" in verdict.why


def test_what_becomes_of_it():
    """Stop ends the training and goes back; keep goes on, and back only if the end is bad; warn does neither."""
    log = [look(0, 0.1), {"update": 5}, look(10, 0.2, kept=0.9), look(20, 0.3, kept=0.3)]
    assert [each["update"] for each in looks_of(log)] == [0, 10, 20]
    settings = {action: watching(action=action) for action in ("stop", "keep", "warn")}
    found = {action: (ended(log, each), result(log, each)) for action, each in settings.items()}
    assert found == {"stop": (True, 10), "keep": (False, 10), "warn": (False, None)}
    assert ended([*log, look(40, 0.4)], watching(action="keep"))
    assert result([*log, look(40, 0.4)], watching(action="keep")) is None
    assert not ended(log, TrainingConfig(steps=40)) and result(log, TrainingConfig(steps=40)) is None


def test_the_log_says_how_much_is_kept_and_why_a_training_went_too_far():
    bare = [
        {key: value for key, value in look(u, u, kept=k).items() if key != "eval/kept"} for u, k in ((0, 1), (10, 0.3))
    ]
    assert seen(bare[:1], watching()) == {"eval/kept": 1.0}
    complete = [bare[0] | {"eval/kept": 1.0}, bare[1]]
    found = seen(complete, watching())
    assert found["eval/kept"] == pytest.approx(0.3)
    assert found["watch"]["action"] == "stop" and found["watch"]["good"] == 0 and "diversity" in found["watch"]["why"]
    assert "watch" not in seen(complete, TrainingConfig())


def test_a_base_without_diversity_is_said_to_have_none():
    with pytest.raises(ValueError, match=r"draws one and the same picture .* set training.watch.diversity=null"):
        seen([look(0, 0.1, kept=0)], watching())
    assert "eval/kept" not in seen([look(0, 0.1, kept=0)], watching(diversity=None))
