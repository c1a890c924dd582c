"""`extract`: features of many images."""

import pytest
import torch

from sfumato.metrics import extract


def images(n: int, size: int = 40) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


class Counting:
    """Mean colours, and how many images were asked for."""

    distance = "cosine"

    def __init__(self, fingerprint: str = "mean-colour") -> None:
        self.fingerprint = fingerprint
        self.seen = 0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen += len(batch)
        return batch.mean(dim=(2, 3))


def test_extract_keeps_the_order_whatever_the_batches() -> None:
    expected = images(7).mean(dim=(2, 3))
    for batch_size in (1, 3, 7, 100):
        assert torch.equal(extract(Counting(), iter(images(7)), batch_size), expected)
    assert extract(Counting(), images(2).half()).dtype == torch.float32


def test_refuses_what_is_no_image() -> None:
    with pytest.raises(ValueError, match="no images"):
        extract(Counting(), [])
    with pytest.raises(ValueError, match=r"shape \(3, H, W\), not \(1, 3, 8, 8\)"):
        extract(Counting(), [torch.rand(1, 3, 8, 8)])
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], not torch.uint8: divide"):
        extract(Counting(), torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_refuses_images_that_are_not_in_zero_to_one() -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], but this one spans \[0, 255\]"):
        extract(Counting(), torch.tensor([0.0, 255.0]).expand(1, 3, 1, 2))


class Flat(Counting):
    """As many features as an image has numbers."""

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.flatten(1)


class Maps(Counting):
    """One map an image, which is no vector."""

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        return batch[:, 0]


def test_features_must_be_vectors_of_one_length() -> None:
    with pytest.raises(ValueError, match=r"Flat gives features of different lengths \[12, 48\]"):
        extract(Flat(), [*images(1, 2), *images(1, 4)], batch_size=1)
    with pytest.raises(ValueError, match=r"Maps must give features \(2, D\), not \(2, 8, 8\)"):
        extract(Maps(), images(2, 8))
