import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.frontier.small_n import entropy_corrected, rarefaction, small_n, vendi_corrected
from sfumato.metrics import entropy, recall, vendi_score

RANDOM = np.random.default_rng(0)


def kinds(n: int, number: int) -> np.ndarray:
    return np.eye(number, 16)[RANDOM.integers(number, size=n)]


def test_rarefaction_is_what_fewer_samples_would_have_given() -> None:
    many = np.array([vendi_score(torch.from_numpy(kinds(6, 8))) for _ in range(1500)])
    samples = [(torch.from_numpy(kinds(24, 8)),) for _ in range(60)]
    found = rarefaction(vendi_score, samples, [6, 24], draws=10)
    assert found.shape == (60, 2)
    assert found[:, 0].mean() == pytest.approx(many.mean(), abs=0.12)
    assert found[3, 1] == vendi_score(samples[3][0])


def test_rarefaction_of_a_mean_is_the_mean_and_cuts_every_array() -> None:
    def measure(x: np.ndarray, y: np.ndarray) -> float:
        assert len(x) == len(y) == 3
        return x.mean() + y.mean()

    x, y = np.arange(12.0), np.ones(12)
    (value,) = rarefaction(measure, [(x, y)], [3], draws=4000)[0]
    assert value == pytest.approx(6.5, abs=0.1)


def test_labels_can_be_text() -> None:
    labels = np.array(["noto", "fluent"] * 6)
    assert rarefaction(lambda x: entropy(x.tolist()), [(labels,)], [1, 12])[0].tolist() == [0, math.log(2)]


def test_rarefaction_refuses_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="cannot draw 13 images out of 12"):
        rarefaction(np.mean, [(np.ones(12),)], [13])
    with pytest.raises(ValueError, match="cannot draw 0 images out of 12"):
        rarefaction(np.mean, [(np.ones(12),)], [0])


def test_the_vendi_jackknife_by_definition() -> None:
    X = torch.from_numpy(RANDOM.normal(size=(9, 5)))
    logs = [math.log(vendi_score(torch.cat([X[:i], X[i + 1 :]]))) for i in range(9)]
    expected = math.exp(9 * math.log(vendi_score(X)) - 8 * np.mean(logs))
    assert vendi_corrected(X) == pytest.approx(expected, rel=1e-9)
    assert vendi_corrected(7 * X.float()) == pytest.approx(expected, rel=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=20))
def test_the_entropy_jackknife_is_that_of_orthogonal_kinds(labels: list[int]) -> None:
    without = [entropy(labels[:i] + labels[i + 1 :]) for i in range(len(labels))]
    n = len(labels)
    found = entropy_corrected(labels)
    assert found == pytest.approx(n * entropy(labels) - (n - 1) * np.mean(without), abs=1e-9)
    assert math.exp(found) == pytest.approx(vendi_corrected(np.eye(5)[labels]), rel=1e-6)


def test_corrections_are_nearer_to_the_truth() -> None:
    plain, corrected = [], []
    for _ in range(150):
        drawn = kinds(12, 8)
        plain.append(vendi_score(torch.from_numpy(drawn)))
        corrected.append(vendi_corrected(drawn))
    assert abs(np.mean(corrected) - 8) < 1 < 2 < abs(np.mean(plain) - 8)
    assert np.mean((np.array(corrected) - 8) ** 2) < np.mean((np.array(plain) - 8) ** 2)


def test_a_collapsed_set_stays_one() -> None:
    assert vendi_corrected(np.ones((12, 4))) == pytest.approx(1)
    assert entropy_corrected(["noto"] * 12) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones(3), r"shape \(N, D\) with at least 2 rows, not \(3,\)"),
        (np.ones((1, 3)), r"at least 2 rows, not \(1, 3\)"),
        (np.array([[1.0, 0], [np.nan, 1]]), "NaN or infinity, first in row 1"),
        (np.array([[1.0, 0], [0, 0]]), "row 1 is all zeros"),
    ],
)
def test_vendi_corrected_refuses(features: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vendi_corrected(features)
    with pytest.raises(ValueError, match="at least 2 labels, not 1"):
        entropy_corrected(["noto"])


MEASURES = {"vendi": vendi_score, "recall": lambda x, reference: recall(reference, x, 3), "style_entropy": entropy}


def points(n: int = 12, prompts: int = 4) -> dict[str, dict[str, list[tuple]]]:
    def features(number: int) -> torch.Tensor:
        return torch.from_numpy(kinds(n, number) + 0.01 * RANDOM.normal(size=(n, 16)))

    found = {}
    for name, number in (("base", 8), ("tuned", 1)):
        sets = [features(number) for _ in range(prompts)]
        labels = [(torch.from_numpy(RANDOM.integers(number, size=n)),) for _ in sets]
        recalls = [(x, features(8)) for x in sets]
        found[name] = {"vendi": [(x,) for x in sets], "recall": recalls, "style_entropy": labels}
    return found


def test_curves_extrapolations_and_warnings() -> None:
    samples = points()
    found = small_n(MEASURES, samples)
    assert found["images"] == [4, 6, 9, 12]
    base, tuned = found["curves"]["base"], found["curves"]["tuned"]
    assert base["vendi"] == sorted(base["vendi"]) and base["vendi"][0] < 0.7 * base["vendi"][-1]
    assert tuned["vendi"] == pytest.approx([1] * 4, abs=0.03)
    assert base["vendi"][-1] == pytest.approx(np.mean([vendi_score(x) for (x,) in samples["base"]["vendi"]]))
    corrected = found["extrapolated"]["base"]
    assert set(corrected) == {"vendi", "style_entropy"}
    assert corrected["vendi"] == pytest.approx(np.mean([vendi_corrected(x) for (x,) in samples["base"]["vendi"]]))
    rising, *_ = found["warnings"]
    assert rising == (
        f"With 12 images per prompt the base's Vendi score is still rising ({base['vendi'][1]:.3g} at 6, "
        f"{base['vendi'][3]:.3g} at 12): what tuning lost of it is understated."
    )


def test_what_has_settled_or_cannot_be_corrected_is_said_so() -> None:
    names = ("vendi", "recall", "distance")
    constant = {name: [(np.ones(12),)] * 3 for name in names}
    curves = {"vendi": lambda x: 5.0, "recall": lambda x: 1 / len(x), "distance": lambda x: len(x) ** 0.05}
    found = small_n(curves, {"tuned": {n: constant[n] for n in ("recall",)}, "base": {"recall": constant["recall"]}})
    (warning,) = found["warnings"]
    assert "recall is still falling (0.167 at 6, 0.0833 at 12): compare it at equal numbers" in warning
    assert small_n(curves, {"base": {"distance": constant["distance"]}})["warnings"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["tuned"]["vendi"].append((torch.ones(9, 4),)), 'equally many images: there are 9 for "vendi" of'),
        (lambda p: p["tuned"].update(gold=p["tuned"]["vendi"]), 'no measure for metric "gold", only for vendi, recall'),
        (lambda p: p.clear(), "there are none"),
    ],
)
def test_small_n_refuses(change, message: str) -> None:
    samples = points()
    change(samples)
    with pytest.raises(ValueError, match=message):
        small_n(MEASURES, samples)
    with pytest.raises(ValueError, match=r"12 images per prompt are too few.*at least 20"):
        small_n(MEASURES, points(), least=20)
