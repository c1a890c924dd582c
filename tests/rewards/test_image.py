import io

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.rewards import Colourfulness, JPEGCompressibility, JPEGDistance, JPEGIncompressibility, score


def eight_bit(count: int, side: int = 32, smooth: int = 1) -> torch.Tensor:
    """Seeded 8-bit images as floats (B,3,side,side); `smooth` is the size of their blocks in pixels."""
    pixels = np.random.default_rng(count).integers(0, 256, (count, 3, side // smooth, side // smooth), dtype=np.uint8)
    return torch.from_numpy(pixels.repeat(smooth, 2).repeat(smooth, 3)).float() / 255


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


def test_colourfulness_is_the_published_formula():
    images = eight_bit(3)
    for value, image in zip(Colourfulness()(images, [""] * 3), images.double() * 255, strict=True):
        red, green, blue = (channel.numpy() for channel in image)
        rg, yb = red - green, 0.5 * (red + green) - blue
        expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
        assert value.item() == pytest.approx(expected, rel=1e-5)


def test_colourfulness_of_grey_is_zero_and_its_gradient_finite_differences():
    grey = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    value = score(Colourfulness(), grey, [""])
    value.sum().backward()
    assert value.item() < 1e-4 and grey.grad.isfinite().all()
    images = eight_bit(1, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Colourfulness()(x, [""]), images)


def test_the_stated_bound_holds_for_the_most_colourful_images():
    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    for share in (0.5, 0.7, 0.9, 1.0):
        chosen = (torch.arange(100) < 100 * share)[:, None]
        image = torch.where(chosen, red, blue).T.reshape(1, 3, 10, 10)
        assert 0 <= score(Colourfulness(), image, [""]).item() <= Colourfulness.range[1]
