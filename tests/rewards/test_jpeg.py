import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from sfumato import emoji64
from sfumato.images import load_image
from sfumato.rewards import (
    JPEGCompressibility,
    JPEGDistance,
    JPEGIncompressibility,
    SoftJPEGCompressibility,
    SoftJPEGIncompressibility,
    score,
)
from tests.rewards.common import eight_bit


def jpeg(image: torch.Tensor, quality: int) -> bytes:
    file = io.BytesIO()
    array = (image * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(array).save(file, "JPEG", quality=quality)
    return file.getvalue()


def test_jpeg_size_is_the_file_that_pil_writes():
    images = torch.cat([eight_bit(2), torch.zeros(1, 3, 32, 32)])
    kilobytes = torch.tensor([len(jpeg(image, 95)) / 1000 for image in images])
    assert torch.equal(score(JPEGIncompressibility(), images, [""] * 3), kilobytes)
    assert torch.equal(score(JPEGCompressibility(), images, [""] * 3), -kilobytes)
    assert kilobytes[0] > 2 * kilobytes[2]


def emoji() -> torch.Tensor:
    """The 216 bundled samples (B,3,64,64)."""
    sheet = load_image(emoji64.path("grid.png"))
    tops, lefts = range(18, sheet.shape[1], 84), [416 * block + 66 * j for block in range(2) for j in range(6)]
    return torch.stack([sheet[:, top : top + 64, left : left + 64] for top in tops for left in lefts])


def test_the_soft_size_is_the_size_to_a_few_percent_and_in_order():
    images = emoji()
    exact = score(JPEGIncompressibility(), images, [""] * len(images))
    soft = score(SoftJPEGIncompressibility(), images, [""] * len(images))
    assert spearmanr(soft, exact)[0] > 0.995
    torch.testing.assert_close(soft, exact, rtol=0.04, atol=0)
    assert torch.equal(score(SoftJPEGCompressibility(), images, [""] * len(images)), -soft)
    noise = eight_bit(2, 64)
    torch.testing.assert_close(
        SoftJPEGIncompressibility()(noise, [""]), JPEGIncompressibility()(noise, [""]), rtol=0.06, atol=0
    )


def test_the_soft_sizes_gradient_is_finite_differences_and_leads_to_smaller_and_larger_files():
    images = eight_bit(1, 16).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: SoftJPEGIncompressibility()(x, [""]), images)
    start, sizes = emoji()[::36], {}
    for reward in (SoftJPEGCompressibility(), SoftJPEGIncompressibility()):
        pictures = start
        for _ in range(10):
            pictures = pictures.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(reward(pictures, [""]).sum(), pictures)
            pictures = (pictures + 0.1 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(0, 1)
        sizes[reward.name] = JPEGIncompressibility()(pictures.detach(), [""])
    before = JPEGIncompressibility()(start, [""])
    assert (sizes["soft_jpeg_compressibility"] < 0.99 * before).all()
    assert (sizes["soft_jpeg_incompressibility"] > 1.1 * before).all()


def test_the_soft_size_of_a_flat_image_is_a_header_whatever_its_sides():
    flat = torch.full((1, 3, 19, 30), 128 / 255, requires_grad=True)
    size = SoftJPEGIncompressibility()(flat, [""])
    size.sum().backward()
    assert size.item() == pytest.approx(SoftJPEGIncompressibility.range[0], abs=1e-4)
    assert flat.grad.isfinite().all()
    ragged, exact = emoji()[::9, :, :50, :37], JPEGIncompressibility()
    torch.testing.assert_close(SoftJPEGIncompressibility()(ragged, [""]), exact(ragged, [""]), rtol=0.08, atol=0)


@pytest.mark.parametrize("smooth", [1, 4, 8])
def test_jpeg_distance_is_close_to_that_of_pils_file(smooth):
    images = eight_bit(2, 64, smooth)
    decoded = [np.array(Image.open(io.BytesIO(jpeg(image, 80)))) for image in images]
    other = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255
    expected = -(images - other).flatten(1).norm(dim=1)
    torch.testing.assert_close(score(JPEGDistance(), images, ["", ""]), expected, rtol=0.12, atol=0)


def test_jpeg_distance_carries_a_gradient_that_makes_images_more_compressible():
    images = eight_bit(1, 32).requires_grad_()
    before = score(JPEGDistance(), images, [""])
    before.sum().backward()
    step = images.detach() + 0.02 * images.grad / images.grad.abs().max()
    assert score(JPEGDistance(), step.clamp(0, 1), [""]) > before
    flat = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    score(JPEGDistance(), flat, [""]).sum().backward()
    assert flat.grad.isfinite().all()


def test_jpeg_distance_needs_whole_blocks():
    with pytest.raises(ValueError, match=r"multiples of 16, not \(30, 32\)"):
        JPEGDistance()(torch.rand(1, 3, 30, 32), [""])
