import pytest
import torch

from sfumato.metrics import ModeCoverage, mode_coverage

REAL = ["dog"] * 5 + ["cat"] * 3 + ["owl"]


def test_share_and_what_is_missing() -> None:
    assert mode_coverage(REAL, REAL) == ModeCoverage(1.0, ())
    assert mode_coverage(REAL, ["cat", "cat", "hen"]) == (
        pytest.approx(1 / 3),
        ("dog", "owl"),
    )  # hens were not asked for
    assert mode_coverage(REAL, ["hen"]) == ModeCoverage(0.0, ("dog", "cat", "owl"))


def test_a_kind_may_need_several_samples() -> None:
    fake = ["dog", "dog", "cat"]
    assert mode_coverage(REAL, fake, at_least=2) == (pytest.approx(1 / 3), ("cat", "owl"))
    assert mode_coverage(REAL, fake, at_least=3).share == 0


def test_labels_in_a_tensor_and_probabilities() -> None:
    labels = torch.tensor([0, 0, 2, 1])
    probabilities = 0.2 + 0.4 * torch.eye(3)[labels]
    probabilities /= probabilities.sum(dim=1, keepdim=True)
    for real in (labels, labels.tolist(), probabilities):
        for fake in (labels[:2], probabilities[:2]):
            assert mode_coverage(real, fake) == (pytest.approx(1 / 3), (2, 1))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="there are no fake samples"):
        mode_coverage(REAL, [])
    with pytest.raises(ValueError, match="there are no real samples"):
        mode_coverage(torch.zeros(0, dtype=torch.int64), REAL)
    with pytest.raises(ValueError, match="at_least=0"):
        mode_coverage(REAL, REAL, at_least=0)
    with pytest.raises(ValueError, match="softmax"):
        mode_coverage(torch.tensor([[-1.0, 2.0]]), torch.tensor([[0.5, 0.5]]))
