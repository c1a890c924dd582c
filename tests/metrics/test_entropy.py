import math

import pytest
import torch

from sfumato.metrics import entropy


def test_labels() -> None:
    assert entropy(["noto"] * 12) == 0
    assert entropy(["noto", "twemoji", "fluent"] * 4) == pytest.approx(math.log(3))
    assert entropy([0, 0, 1, 2]) == pytest.approx(1.5 * math.log(2))
    assert entropy(torch.tensor([7, 7, 3, 5])) == pytest.approx(1.5 * math.log(2))
    assert entropy(label for label in "aab") == pytest.approx(math.log(3) - 2 / 3 * math.log(2))


def test_probabilities_are_averaged_over_samples() -> None:
    certain = torch.eye(4)
    assert entropy(certain[0]) == 0
    assert entropy(certain) == pytest.approx(math.log(4))
    assert entropy(certain[[0, 0, 1, 2]]) == pytest.approx(entropy([0, 0, 1, 2]))
    assert entropy(torch.full((5, 3), 1 / 3, dtype=torch.bfloat16)) == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "no labels"),
        (torch.zeros(0, 3), "not be empty"),
        (torch.zeros(2, 2, 2), r"shape \(C,\) or \(N, C\)"),
        (torch.tensor([[2.0, -1.0]]), "not negative"),
        (torch.tensor([float("nan"), 1.0]), "finite"),
        (torch.tensor([[0.5, 0.5], [2.0, 3.0]]), "sum to 1 in every row, not 5"),
    ],
)
def test_refuses(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        entropy(values)  # type: ignore[arg-type]
