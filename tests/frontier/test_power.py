import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.frontier.power import (
    Pilot,
    designs,
    detectable,
    fewest_prompts,
    power,
    prompts_needed,
    prompts_range,
    run_pilot,
)
from sfumato.metrics import recall, vendi_score

BETWEEN, WITHIN = 0.3, 1.0
KNOWN = Pilot(1000, (2, 4, 8), (1.0, 1.0, 1.0), tuple(BETWEEN**2 + WITHIN**2 / n for n in (2, 4, 8)))


def scores(m: int, n: int, effect: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores (m, n) of two points: prompts differ much, the effect differs by BETWEEN, images by WITHIN."""
    random = np.random.default_rng(seed)
    prompts = 5 + 3 * random.normal(size=(m, 1))
    noise = WITHIN / np.sqrt(2) * random.normal(size=(2, m, n))
    return prompts + noise[0], prompts + effect + BETWEEN * random.normal(size=(m, 1)) + noise[1]


def collapsed(m: int, n: int, modes: int, random: np.random.Generator) -> list[torch.Tensor]:
    """Features (n, 8) of m prompts, in so many modes in other places for every prompt."""
    centres = 3 * random.normal(size=(m, modes, 8))
    which = random.integers(modes, size=(m, n))
    drawn = np.take_along_axis(centres, which[..., None], axis=1) + 0.3 * random.normal(size=(m, n, 8))
    return [torch.from_numpy(own + 2) for own in drawn]


def arrays(values) -> list[tuple]:
    return [(own,) for own in values]


def test_a_pilot_finds_the_variance_between_and_within_prompts() -> None:
    a, b = scores(400, 16)
    pilot = run_pilot(np.mean, arrays(a), arrays(b))
    assert pilot.prompts == 400 and pilot.sizes == (2, 4, 6, 8, 12, 16)
    for n in (2, 4, 8, 16, 32, 64):  # from 32 on beyond what it saw
        assert pilot.variance(n) == pytest.approx(BETWEEN**2 + WITHIN**2 / n, rel=0.15)
    assert pilot.level(4) == pytest.approx(a.mean(), abs=0.05)


def test_pairing_by_seed_counts() -> None:
    a, _ = scores(50, 8)
    assert run_pilot(np.mean, arrays(a), arrays(a + 1)).variance(4) == pytest.approx(0, abs=1e-20)


def test_one_point_is_its_own_control_and_knows_seeds_only() -> None:
    a, _ = scores(400, 32)
    pilot = run_pilot(np.mean, arrays(a))
    assert pilot.sizes[-1] == 16
    for n in (4, 16, 64):
        assert pilot.variance(n) == pytest.approx(WITHIN**2 / n, rel=0.2)


def test_vendi_at_a_fifth_of_the_images_is_known_from_the_pilot() -> None:
    random = np.random.default_rng(0)
    pilot = run_pilot(vendi_score, *(arrays(collapsed(60, 20, modes, random)) for modes in (6, 3)), draws=2)
    a, b = ([vendi_score(x) for x in collapsed(400, 4, modes, random)] for modes in (6, 3))
    assert pilot.level(4) == pytest.approx(np.mean(a), rel=0.05)
    assert pilot.variance(4) == pytest.approx(np.subtract(b, a).var(ddof=1), rel=0.25)


def test_recall_is_planned_with_its_reference() -> None:
    random = np.random.default_rng(1)
    sets = [collapsed(12, 10, 5, random) for _ in range(3)]
    a, b = (list(zip(own, sets[2], strict=True)) for own in sets[:2])
    pilot = run_pilot(lambda x, reference: recall(reference, x, 3), a, b, least=4, draws=2)
    assert pilot.sizes[0] == 4
    with pytest.raises(ValueError, match="says nothing about 3 images per prompt: it starts at 4"):
        pilot.variance(3)
    assert [design.images for design in designs(pilot, 0.5, images=(2, 4, 8))] == [4, 8]


def test_power_is_what_repeating_the_experiment_gives() -> None:
    m, n, effect = 14, 4, 0.5
    seen = 0
    for seed in range(600):
        a, b = scores(m, n, effect, seed)
        d = (b - a).mean(axis=1)
        seen += abs(d.mean() / d.std(ddof=1) * np.sqrt(m)) > 2.1604  # t, 13 degrees of freedom
    assert power(KNOWN, effect, m, n) == pytest.approx(seen / 600, abs=0.05)


def test_no_effect_is_seen_as_often_as_alpha_says() -> None:
    assert power(KNOWN, 0.0, 12, 4, alpha=0.1) == pytest.approx(0.1)
    assert power(KNOWN, -0.4, 12, 4) == power(KNOWN, 0.4, 12, 4)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.05, 2), st.sampled_from([2, 4, 8, 40]), st.sampled_from([0.6, 0.8, 0.9]))
def test_needed_prompts_are_the_fewest_that_do(effect: float, n: int, wanted: float) -> None:
    m = prompts_needed(KNOWN, effect, n, wanted)
    assert power(KNOWN, effect, m, n) >= wanted
    assert m == 6 or power(KNOWN, effect, m - 1, n) < wanted
    assert detectable(KNOWN, m, n, wanted) <= effect * (1 + 1e-6)
    low, high = prompts_range(KNOWN, effect, n, wanted)
    assert low <= m <= high


def test_detectable_effects_shrink_with_prompts_and_images() -> None:
    assert power(KNOWN, detectable(KNOWN, 20, 4, 0.9), 20, 4) == pytest.approx(0.9, abs=1e-6)
    assert detectable(KNOWN, 20, 4) > detectable(KNOWN, 20, 8) > detectable(KNOWN, 40, 8)


def test_a_small_pilot_says_how_little_it_knows() -> None:
    small = Pilot(12, KNOWN.sizes, KNOWN.levels, KNOWN.variances)
    low, high = prompts_range(small, 0.2, 4)
    assert low < prompts_needed(small, 0.2, 4) < high
    covered = 0
    for seed in range(80):
        drawn = np.random.default_rng(seed).normal(size=12).var(ddof=1)
        pilot = Pilot(12, (4,), (1.0,), (drawn,))
        low, high = prompts_range(pilot, 0.2, 4)
        covered += low <= prompts_needed(Pilot(12, (4,), (1.0,), (1.0,)), 0.2, 4) <= high
    assert covered / 80 == pytest.approx(0.8, abs=0.12)


def test_designs_cost_what_is_sampled() -> None:
    (few, many) = designs(KNOWN, 0.5, images=(4, 8), forwards=30)
    assert few.effect == 0.5 and few.prompts == prompts_needed(KNOWN, 0.5, 4)
    assert few.forwards == 30 * 4 * few.prompts
    assert many.prompts < few.prompts
    doubled = Pilot(1000, KNOWN.sizes, (2.0, 2.0, 2.0), KNOWN.variances)
    assert designs(doubled, 0.25, images=(4,), forwards=30)[0] == few
    assert designs(doubled, -0.5, relative=False, images=(4,), forwards=30)[0] == few


def test_designs_that_the_pilot_knows_nothing_of_are_refused() -> None:
    with pytest.raises(ValueError, match=r"with 4, 8, 16, 32 images per prompt are too small.* from 41 on"):
        designs(Pilot(12, (41, 48), (0.5, 0.5), (0.1, 0.1)), 0.05)


def test_images_among_which_all_are_neighbours_are_not_planned_with() -> None:
    assert [design.images for design in designs(KNOWN, 0.5, fewest=8)] == [8, 16, 32]
    with pytest.raises(ValueError, match="can be planned for from 34 on"):
        designs(Pilot(12, (4, 40), (1.0, 1.0), (0.1, 0.1)), 0.5, fewest=34)
    with pytest.raises(ValueError, match=r"a pilot with 8 images per prompt .* take one with 10 or more"):
        designs(KNOWN, 0.5, fewest=10)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.0625, 0.01])
def test_no_plan_has_fewer_prompts_than_a_sign_flip_needs(alpha: float) -> None:
    still = Pilot(12, (4, 8), (1.0, 1.0), (0.0, 0.0))
    m = fewest_prompts(alpha)
    assert 2 / 2**m <= alpha < 2 / 2 ** (m - 1)
    assert prompts_needed(still, 0.1, 4, alpha=alpha) == prompts_range(still, 0.1, 4, alpha=alpha)[0] == m
    assert power(still, 0.0, 3, 4) == 0


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((4, 8)), np.ones((3, 8)), "same prompts of both points, not 4 and 3"),
        (np.ones((2, 8)), np.ones((2, 8)), "at least 3 prompts to see how they differ, not 2"),
        (np.ones((4, 8)), np.ones((4, 6)), "equally many images of every prompt, not 6 and 8"),
        (np.ones((4, 1)), np.ones((4, 1)), "1 images per prompt are too few for this pilot: at least 2"),
        (np.ones((4, 3)), None, "3 images per prompt are too few for this pilot: at least 4"),
        (np.where(np.arange(4)[:, None] == 2, np.nan, np.ones((4, 8))), np.ones((4, 8)), "NaN .* of prompt 2"),
    ],
)
def test_a_pilot_refuses(a: np.ndarray, b: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_pilot(np.mean, arrays(a), None if b is None else arrays(b))


def test_plans_refuse() -> None:
    with pytest.raises(ValueError, match="must not be 0"):
        prompts_needed(KNOWN, 0.0, 4)
    with pytest.raises(ValueError, match="over a million prompts"):
        prompts_needed(KNOWN, 1e-5, 4)
    with pytest.raises(ValueError, match=r"power is 0\.01, alpha 0.05"):
        prompts_needed(KNOWN, 0.1, 4, wanted=0.01)
    with pytest.raises(ValueError, match="at least 2 prompts, not 1"):
        detectable(KNOWN, 1, 4)
