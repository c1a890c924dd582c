import json
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pytest

from sfumato.frontier import bootstrap, hypervolume, paired_difference, summarise
from sfumato.frontier.multiple import simultaneous

M = 24


def point(reward: float, diversity: float, noise: float = 0.0, seed: int = 0, m: int = M) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {"reward": reward + noise * random.normal(size=m), "vendi": diversity + noise * random.normal(size=m)}


def world(noise: float = 0.0) -> dict[str, dict[str, np.ndarray]]:
    """Base (0, 3), tuned (10, 1); method A lies above method B."""
    corners = {"base": (0, 3), "a1": (5, 2.6), "a2": (8, 1.9), "b1": (5, 2.0), "b2": (8, 1.3), "tuned": (10, 1)}
    return {name: point(*corner, noise, seed) for seed, (name, corner) in enumerate(corners.items())}


METHODS = {"A": ["base", "a1", "a2", "tuned"], "B": ["base", "b1", "b2", "tuned"]}


def test_without_noise_everything_follows_by_hand() -> None:
    found = summarise(world(), METHODS, reference_point=(-0.5, -0.25))
    assert found["scale"] == {"reward": [0, 10], "diversity": [1, 3]}
    assert found["reference_point"] == [-0.5, -0.25]
    assert found["warnings"] == []
    assert [p["name"] for p in found["points"] if p["nondominated"]] == ["base", "a1", "a2", "tuned"]
    a = [(0, 1), (0.5, 0.8), (0.8, 0.45), (1, 0)]
    b = [(0, 1), (0.5, 0.5), (0.8, 0.15), (1, 0)]
    for method, corners in zip(found["methods"], (a, b), strict=True):
        expected = hypervolume(corners, (-0.5, -0.25))
        assert list(method["hypervolume"].values()) == pytest.approx([expected] * 3)
    assert found["comparisons"] == [{"a": "A", "b": "B", "probability": 1.0, "points_differ": False}]


def test_intervals_are_those_of_the_statistics_on_all_prompts() -> None:
    table = world(noise=0.5)
    table["a1"]["gold"] = np.linspace(0, 1, M)  # known for this point only
    found = {p["name"]: p for p in summarise(table, METHODS, repetitions=500, seed=4)["points"]}
    expected = bootstrap(table["a1"]["vendi"], repetitions=500, seed=4)
    assert found["a1"]["metrics"]["vendi"] == {"mean": expected.mean, "low": expected.low, "high": expected.high}
    difference = paired_difference(table["a1"]["vendi"], table["tuned"]["vendi"], repetitions=500, seed=4)
    assert found["a1"]["versus_tuned"]["vendi"]["low"] == difference.low
    assert set(found["a1"]["metrics"]) == {"reward", "vendi", "gold"}
    assert set(found["a1"]["versus_tuned"]) == {"reward", "vendi"}
    assert found["tuned"]["versus_tuned"] == {}
    assert found["a1"]["per_prompt"]["gold"] == np.linspace(0, 1, M).tolist()


def test_the_calibration_prompts_set_the_scale_and_nothing_else() -> None:
    table = world()
    for row in table.values():
        row["reward"][::3] *= 2
    found = summarise(table, METHODS)
    assert found["calibration"] == list(range(0, M, 3))
    assert found["scale"]["reward"] == [0, 20]
    expected = hypervolume([(0, 1), (0.25, 0.8), (0.4, 0.45), (0.5, 0)], (-0.1, -0.1))
    assert found["methods"][0]["hypervolume"]["mean"] == pytest.approx(expected)
    assert summarise(table, METHODS, calibration=[1, 2])["scale"]["reward"] == [0, 10]


def test_probability_under_noise_is_unsure_and_antisymmetric() -> None:
    table = world(noise=1.5)
    forth = summarise(table, METHODS)["comparisons"][0]["probability"]
    back = summarise(table, dict(reversed(METHODS.items())))["comparisons"][0]["probability"]
    assert 0.5 < forth < 1
    assert forth + back == pytest.approx(1)


def test_ties_count_half() -> None:
    table = world(noise=0.5)
    table["worse"] = point(-5, -5)
    found = summarise(table, {"A": METHODS["A"], "copy": METHODS["A"], "more": [*METHODS["A"], "worse"]})
    assert [c["probability"] for c in found["comparisons"]] == [0.5, 0.5, 0.5]


def test_hypervolumes_come_with_their_distribution() -> None:
    for method in summarise(world(noise=0.5), METHODS)["methods"]:
        quantiles, volume = method["distribution"], method["hypervolume"]
        assert len(quantiles) == 41 and quantiles == sorted(quantiles)
        assert quantiles[0] < volume["low"] < quantiles[20] < volume["high"] < quantiles[-1]
        assert quantiles[20] == pytest.approx(volume["mean"], abs=0.03)


def test_differences_are_of_every_pair_with_an_end_or_a_front_point() -> None:
    table = world()
    shown = {(d["a"], d["b"], d["metric"]): d["mean"] for d in summarise(table, METHODS, repetitions=99)["differences"]}
    assert ("b1", "b2", "vendi") not in shown  # both are dominated
    assert len(shown) == 2 * (15 - 1)
    assert shown["base", "a1", "vendi"] == pytest.approx(-0.4)
    assert shown["a2", "tuned", "reward"] == 2


def test_differences_are_corrected_over_all_pairs() -> None:
    table = world(noise=1.0)
    values = np.stack([[row["reward"], row["vendi"]] for row in table.values()])  # (P, 2, m)
    names, pairs = list(table), list(combinations(range(len(table)), 2))
    family = np.array([values[b, axis] - values[a, axis] for a, b in pairs for axis in (0, 1)]).T
    keys = [(names[a], names[b], axis) for a, b in pairs for axis in ("reward", "vendi")]
    expected = dict(zip(keys, simultaneous(family, repetitions=500, seed=3), strict=True))
    for d in summarise(table, METHODS, repetitions=500, seed=3)["differences"]:
        assert d == pytest.approx({**d, **asdict(expected[d["a"], d["b"], d["metric"]])})


def test_equal_compute_compares_what_fits_the_budget() -> None:
    forwards = {"base": 20, "tuned": 20, "a1": 40, "a2": 30, "b1": 10, "b2": 20}
    found = summarise(world(), METHODS, forwards=forwards)
    assert [view["budget"] for view in found["equal_compute"]] == [20, 30, 40]
    cheap, middle, dear = found["equal_compute"]
    assert cheap["points"] == ["base", "b1", "b2", "tuned"] and cheap["front"] == cheap["points"]
    assert middle["front"] == ["base", "b1", "a2", "tuned"]
    assert [method["points"] for method in cheap["methods"]] == [["base", "tuned"], METHODS["B"]]
    assert [m["hypervolume"] for m in dear["methods"]] == [m["hypervolume"] for m in found["methods"]]
    assert cheap["methods"][0]["hypervolume"]["mean"] == pytest.approx(hypervolume([(0, 1), (1, 0)], (-0.1, -0.1)))


def test_base_and_tuned_fit_every_budget_and_budgets_are_few() -> None:
    table = {**world(), **{f"p{i}": point(5, 2) for i in range(30)}}
    forwards = {name: 11.0 + i for i, name in enumerate(table)} | {"tuned": 14.5}
    found = summarise(table, METHODS, forwards=forwards, repetitions=50)["equal_compute"]
    budgets = [view["budget"] for view in found]
    assert len(budgets) == 8 and budgets == sorted(budgets)
    assert budgets[0] == 14.5 and budgets[-1] == max(forwards.values())
    assert all({"base", "tuned"} <= set(view["points"]) for view in found)
    assert "equal_compute" not in summarise(table, METHODS, repetitions=50)


def test_few_prompts_are_warned_of() -> None:
    table = {name: point(*corner, 0.1, m=12) for name, corner in (("base", (0, 3)), ("tuned", (10, 1)))}
    (warning,) = summarise(table, {})["warnings"]
    assert "Only 12 prompts" in warning and "at least 20" in warning


def test_a_method_with_more_points_is_compared_but_flagged() -> None:
    methods = {**METHODS, "both": ["base", "a1", "a2", "b1", "b2", "tuned"]}
    found = summarise(world(), methods)
    assert [method["points_differ"] for method in found["methods"]] == [False, False, True]
    assert [c["points_differ"] for c in found["comparisons"]] == [False, True, True]


def test_no_collapse_is_said_and_axes_stay_maximised() -> None:
    table = world()
    table["tuned"] = point(10, 4)  # tuning sharpened the base and raised diversity
    found = summarise(table, METHODS)
    assert found["scale"]["diversity"] == [3, 4]
    assert len(found["warnings"]) == 1
    assert "did not lower vendi (base 3, tuned 4)" in found["warnings"][0]
    assert [p["name"] for p in found["points"] if p["nondominated"]] == ["tuned"]
    table["tuned"] = point(0, 3)  # untrained
    found = summarise(table, METHODS)
    assert found["scale"] == {"reward": [0, 1], "diversity": [3, 4]}
    assert len(found["warnings"]) == 2


def test_the_result_is_json() -> None:
    found = summarise(world(noise=0.1), METHODS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table, methods: table.pop("tuned"), 'no point "tuned"'),
        (lambda table, methods: table["a1"].pop("vendi"), 'point "a1" has no metric "vendi", only reward'),
        (lambda table, methods: table.update(a1=point(5, 2, m=9)), "same prompts.*9.*24"),
        (lambda table, methods: table["b1"]["vendi"].__setitem__(2, np.nan), '"vendi" of point "b1".*prompt 2 is NaN'),
        (lambda table, methods: methods.update(A=["base", "a9", "tuned"]), '"A" names points.*not measured: a9'),
        (lambda table, methods: methods.update(A=["base", "a1"]), '"A" must hold both "base" and "tuned"'),
        (lambda table, methods: methods.update(A=["base", "base", "tuned"]), "more than once"),
    ],
)
def test_refuses(change, message: str) -> None:
    table, methods = world(), dict(METHODS)
    change(table, methods)
    with pytest.raises(ValueError, match=message):
        summarise(table, methods)


@pytest.mark.parametrize(("m", "calibration"), [(2, None), (24, []), (24, range(23)), (24, [24])])
def test_refuses_a_split_that_leaves_nothing(m: int, calibration) -> None:
    table = {name: point(0, 1, 1, seed, m) for seed, name in enumerate(("base", "tuned"))}
    with pytest.raises(ValueError, match="at least 1 prompt to set the scale and 2 others"):
        summarise(table, {}, calibration=calibration)


@pytest.mark.parametrize("cost", [None, 0, float("nan"), float("inf")])
def test_refuses_forwards_that_are_no_cost(cost: float | None) -> None:
    forwards = dict.fromkeys(world(), 20.0) | {"a2": cost}
    with pytest.raises(ValueError, match=f'forwards per image of point "a2" must be a positive number, not {cost}'):
        summarise(world(), METHODS, forwards=forwards)
