"""The numpy measures are those of `sfumato.metrics`, and the others what their definitions say."""

import numpy as np
import pytest
import torch

from sfumato import metrics
from sfumato.diagnosis import measures

RANDOM = np.random.default_rng(0)


@pytest.fixture
def features():
    x = RANDOM.normal(size=(4, 9, 6)) + 2 * RANDOM.normal(size=(4, 1, 6))
    return x / np.linalg.norm(x, axis=2, keepdims=True)


def test_vendi_distance_and_recall_are_those_of_the_metrics(features):
    tensors = torch.from_numpy(features)
    assert measures.vendi(features) == pytest.approx([metrics.vendi_score(x) for x in tensors], rel=1e-9)
    expected = [metrics.mean_pairwise_distance(x) for x in tensors]
    assert measures.distance(features) == pytest.approx(expected, rel=1e-9)
    real = RANDOM.normal(size=(4, 7, 6)) * 0.4
    fake = RANDOM.normal(size=(4, 9, 6)) * 0.4
    for k in (1, 3):
        expected = [
            metrics.recall(a, b, k) for a, b in zip(torch.from_numpy(real), torch.from_numpy(fake), strict=True)
        ]
        assert measures.recall(real, fake, k).tolist() == expected


def test_separation_sees_the_means_and_not_the_spread():
    centres = np.eye(5)[:, None] * 3
    for spread in (0.5, 2.0):
        found = measures.separation(centres + spread * RANDOM.normal(size=(5, 4000, 5)))
        assert found == pytest.approx(np.full(5, 3 * np.sqrt(1 - 1 / 5)), rel=0.02)
    alike = measures.separation(RANDOM.normal(size=(5, 4000, 5)))
    assert (alike < 0.05).all()


def test_the_nearest_images_within_and_between_prompts(features):
    distances, places = measures.nearest(features)
    flat = features.reshape(36, -1)
    every = 1 - flat @ flat.T
    np.fill_diagonal(every, np.inf)
    own = np.arange(36) // 9
    for kind, same in ((0, True), (1, False)):
        allowed = np.where((own[:, None] == own) == same, every, np.inf)
        np.testing.assert_allclose(distances[kind].ravel(), allowed.min(1), atol=1e-12)
        assert (places[kind].ravel() == allowed.argmin(1)).all()


def test_labels_that_follow_the_prompt_are_told_from_those_that_do_not():
    prompts = np.repeat(np.array([["cat"], ["dog"], ["bus"]]), 20, axis=1)
    styles = RANDOM.choice(["flat", "photo"], size=(3, 20))
    mistaken = np.where(RANDOM.random((3, 20)) < 0.1, "cat", prompts)
    assert measures.follows_prompt(mistaken) and not measures.follows_prompt(styles)
    assert not measures.follows_prompt(np.full((3, 20), "cat"))
    assert measures.commonest(mistaken).tolist() == ["cat", "dog", "bus"]
    kinds = measures.effective_kinds(np.array([["a", "b", "a", "b"], ["a", "a", "a", "a"]]))
    assert kinds == pytest.approx([2, 1])


def test_rank_correlation_is_spearmans_with_ties():
    scipy_stats = pytest.importorskip("scipy.stats")
    a = RANDOM.integers(5, size=(6, 30)).astype(float)
    b = a + RANDOM.integers(4, size=(6, 30))
    expected = [scipy_stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert measures.rank_correlation(a, b) == pytest.approx(expected, abs=1e-12)
    assert measures.rank_correlation(a, np.ones_like(a)).tolist() == [0] * 6
