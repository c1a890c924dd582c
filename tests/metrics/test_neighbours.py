import pytest
import torch

from sfumato.metrics import nearest_neighbours


def test_by_hand() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0], [0.0]])
    found = nearest_neighbours(x, k=2)
    assert found.indices.tolist() == [[3, 1], [0, 3], [1, 0], [0, 1]]  # equally near ones by index
    assert found.distances.tolist() == [[0, 1], [1, 1], [2, 3], [0, 1]]
    found = nearest_neighbours(torch.tensor([[2.0], [-1.0]]), x)
    assert found.indices.tolist() == [[1], [0]]
    assert found.distances.dtype == torch.float64


def test_finds_a_near_duplicate_far_from_the_origin() -> None:
    x = 1e5 + torch.randn(200, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[117] = x[42] + 1e-9
    found = nearest_neighbours(x)
    nearest = int(found.distances[:, 0].argmin())
    assert {nearest, int(found.indices[nearest, 0])} == {42, 117}
    assert found.distances[nearest, 0] == (x[42] - x[117]).norm()


def test_a_set_is_its_own_nearest_when_given_twice() -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    assert nearest_neighbours(x, x.clone()).indices[:, 0].tolist() == list(range(20))
    assert (nearest_neighbours(x).indices[:, 0] != torch.arange(20)).all()


@pytest.mark.parametrize("k", [0, 4])
def test_k_must_leave_neighbours(k: int) -> None:
    with pytest.raises(ValueError, match=f"k={k} nearest neighbours of 3 others"):
        nearest_neighbours(torch.randn(4, 2), k=k)
    with pytest.raises(ValueError, match=f"k={k} nearest neighbours of 3 others"):
        nearest_neighbours(torch.randn(9, 2), torch.randn(3, 2), k=k)
