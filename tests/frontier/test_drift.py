import numpy as np
import pytest
import torch

from sfumato.frontier import bootstrap
from sfumato.frontier.drift import drift

RANDOM = np.random.default_rng(0)
PROMPTS = ["tree", "car", "boat"] * 4
BASE = RANDOM.normal(size=(12, 5))
SCORES = RANDOM.normal(size=12)


def test_an_unchanged_model_has_not_drifted() -> None:
    found = drift(BASE, BASE, {"gold": SCORES}, {"gold": SCORES}, PROMPTS)
    assert found == {name: {"mean": 0, "low": 0, "high": 0} for name in ("distance_to_base", "gold")}


def test_distances_and_differences_are_means_over_prompts() -> None:
    moved = 3 * BASE.copy()  # length does not matter
    moved[0] = -BASE[0]  # a tree turned into its opposite
    gold = SCORES - 1
    gold[1] -= 8  # one car
    found = drift(torch.from_numpy(moved), torch.from_numpy(BASE), {"gold": gold}, {"gold": SCORES}, PROMPTS, seed=3)
    for name, values in (("distance_to_base", [2 / 4, 0, 0]), ("gold", [-1, -3, -1])):
        expected = bootstrap(values, seed=3)
        assert list(found[name].values()) == pytest.approx([expected.mean, expected.low, expected.high], abs=1e-12)


def test_prompts_count_alike_whatever_their_number_of_images() -> None:
    gold = np.where(np.array(PROMPTS[:10]) == "tree", 1.0, 0.0)  # 4, 3 and 3 images
    found = drift(BASE[:10], BASE[:10], {"gold": gold}, {"gold": np.zeros(10)}, PROMPTS[:10])
    assert found["gold"]["mean"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": BASE[:5]}, r"features must have shape \(12, D\).*not \(5, 5\)"),
        ({"base_features": BASE[:, :4]}, "5 dimensions, the base's 4"),
        ({"features": np.where(np.arange(12)[:, None] == 7, np.nan, BASE)}, "row 7 of the features is NaN"),
        ({"base_features": np.where(np.arange(12)[:, None] == 2, 0, BASE)}, "row 2 of the base features"),
        ({"scores": {"gold": SCORES[:3]}}, r"gold must have shape \(12,\)"),
        ({"base_scores": {"gold": np.where(np.arange(12) == 4, np.inf, SCORES)}}, "the base's gold of row 4 is NaN"),
        ({"scores": {"reward": SCORES}}, r"same scores of both: \['reward'\] and \['gold'\]"),
        ({"prompts": ["tree"] * 12}, "at least 2 prompts, not 1"),
    ],
)
def test_refuses(change: dict, message: str) -> None:
    given = {"features": BASE, "base_features": BASE, "scores": {"gold": SCORES}, "base_scores": {"gold": SCORES}}
    with pytest.raises(ValueError, match=message):
        drift(**{**given, "prompts": PROMPTS, **change})
