"""The arithmetic of benchmarks/hacking: where a curve turns, and what is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.hacking import draw, proxies
from benchmarks.hacking.plan import CURES, PLAIN, Plan
from benchmarks.hacking.turning import Curve, turn

from sfumato.frontier.statistics import Interval
from sfumato.preferences import Pair

UPDATES = np.arange(0, 25, 5.0)


def curve(*gold: list[float]) -> Curve:
    """One row per prompt; the proxy rises by 1 at every look and by 10 from prompt to prompt."""
    by_prompt = np.array(gold).T
    proxy = np.arange(5.0)[:, None] + 10 * np.arange(len(gold))
    return Curve(UPDATES, proxy, by_prompt, np.linspace(3, 1, 5))


def ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def test_gold_turns_at_its_best_look() -> None:
    found = turn(curve([0.1, 0.3, 0.6, 0.4, 0.2], [0.2, 0.4, 0.7, 0.5, 0.1]), repetitions=200)
    assert (found.look, found.update.mean, ends(found.update)) == (2, 10, (10, 10))
    assert found.proxy.mean == pytest.approx((2 + 12) / 2)
    assert ends(found.proxy) == pytest.approx((2, 12))
    assert (found.gain.mean, found.fall.mean) == pytest.approx((0.5, 0.5))
    assert ends(found.gain) == pytest.approx((0.5, 0.5))
    assert found.fall.low < 0.5 < found.fall.high
    assert found.rising == 0


def test_what_has_not_turned_is_said_to_be_rising() -> None:
    found = turn(curve([0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 0.1, 0.1, 0.2, 0.3]), repetitions=200)
    assert (found.update.mean, found.fall.mean, found.rising) == (20, 0, 1)


def test_prompts_that_disagree_make_the_turn_uncertain() -> None:
    early, late = [0.1, 0.9, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.8, 0.1]
    found = turn(curve(early, late, early, late), repetitions=2000)
    assert (found.update.mean, ends(found.update)) == (5, (5, 15))


def test_a_look_is_averaged_within_prompts() -> None:
    scores = {"reward": {"a": [1.0, 3.0], "b": [5.0, 5.0]}, "gold": {"a": [0.0, 1.0], "b": [1.0, 1.0]}}
    found = Curve.of([{"update": 0, "eval/vendi": 2.5, "eval/scores": scores}])
    np.testing.assert_array_equal(found.proxy, [[2, 5]])
    np.testing.assert_array_equal(found.gold, [[0.5, 1]])
    np.testing.assert_array_equal(found.vendi, [2.5])


def test_recipes_differ_by_proxy_and_penalty_alone(tmp_path: Path) -> None:
    plan = Plan(tmp_path)
    recipes = {way.name: plan.recipe(way) for way in [*PLAIN, *CURES]}
    plain, penalised, ensemble = (recipes[name].resolved() for name in ("100", "100-kl-1", "100-ensemble"))
    assert penalised["training"]["regularizers"]["kl"]["coefficient"] == 1
    assert plain["training"] != penalised["training"] and plain["training"] == ensemble["training"]
    assert plain["reward"] == penalised["reward"] != ensemble["reward"]


def test_smaller_parts_are_among_the_larger_ones() -> None:
    pairs = [Pair(str(number), f"{number} left", f"{number} right", 1.0) for number in range(2928)]
    few, more, everything = (proxies.part(pairs, count) for count in (100, 1000, None))
    assert (len(few), len(more), len(everything)) == (100, 1000, 2928)
    assert set(few) < set(more)


def test_the_figure_is_the_same_every_time(tmp_path: Path) -> None:
    curves = {"one": curve([0.1, 0.3, 0.6, 0.4, 0.2], [0.2, 0.4, 0.7, 0.5, 0.1])}
    for name in ("a.svg", "b.svg"):
        draw.figure(tmp_path / name, curves)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "| one | 10 [10, 10] |" in draw.table(curves)
