import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import laplace

from sfumato.rewards import Brightness, Colourfulness, Sharpness, score
from tests.rewards.common import eight_bit


def grey(image: torch.Tensor) -> np.ndarray:
    """Luma (H,W) of an image, 0 to 255, not rounded."""
    return np.tensordot([0.299, 0.587, 0.114], image.double().numpy() * 255, 1)


def test_brightness_is_the_mean_of_pils_grey():
    images = eight_bit(3)
    for value, image in zip(score(Brightness(), images, [""] * 3), images, strict=True):
        picture = Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy())
        assert 255 * value.item() == pytest.approx(np.asarray(picture.convert("L")).mean(), abs=0.5)
    black_and_white = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(Brightness()(black_and_white, ["", ""]), torch.tensor(Brightness.range))


def test_sharpness_is_the_variance_of_the_laplacian():
    images = torch.cat([eight_bit(2), eight_bit(2, smooth=4)])
    for value, image in zip(score(Sharpness(), images, [""] * 4), images, strict=True):
        assert value.item() == pytest.approx(laplace(grey(image), mode="mirror").var(), rel=1e-4)


def test_sharpness_falls_with_every_blur_and_spans_its_range():
    images, values = eight_bit(1), []
    for _ in range(3):
        values.append(Sharpness()(images, [""]).item())
        images = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    assert values[0] > 2 * values[1] > 4 * values[2] > 0
    chessboard = (torch.arange(8)[:, None] + torch.arange(8)) % 2.0
    assert Sharpness()(chessboard.expand(1, 3, 8, 8), [""]).item() == pytest.approx(Sharpness.range[1])
    assert Sharpness()(torch.full((1, 3, 8, 8), 0.3), [""]).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("reward", [Brightness(), Sharpness(), Colourfulness()])
def test_gradients_are_finite_differences(reward):
    images = eight_bit(1, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reward(x, [""]), images)


def test_colourfulness_is_the_published_formula():
    images = eight_bit(3)
    for value, image in zip(Colourfulness()(images, [""] * 3), images.double() * 255, strict=True):
        red, green, blue = (channel.numpy() for channel in image)
        rg, yb = red - green, 0.5 * (red + green) - blue
        expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
        assert value.item() == pytest.approx(expected, rel=1e-5)


def test_colourfulness_of_grey_is_zero_with_a_finite_gradient():
    image = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    value = score(Colourfulness(), image, [""])
    value.sum().backward()
    assert value.item() < 1e-4 and image.grad.isfinite().all()


def test_the_stated_bound_holds_for_the_most_colourful_images():
    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    for share in (0.5, 0.7, 0.9, 1.0):
        chosen = (torch.arange(100) < 100 * share)[:, None]
        image = torch.where(chosen, red, blue).T.reshape(1, 3, 10, 10)
        assert 0 <= score(Colourfulness(), image, [""]).item() <= Colourfulness.range[1]
