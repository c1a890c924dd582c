import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sfumato.preprocess import Preprocess


def noise(height: int, width: int) -> torch.Tensor:
    """An 8-bit image of white noise (1,3,H,W) in [0, 1]: the hardest case for a resampler."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def pil(images: torch.Tensor) -> Image.Image:
    return Image.fromarray((images[0] * 255).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize("shape", [(64, 64), (300, 201), (96, 160), (512, 512), (224, 224)])
def test_pixels_are_within_two_levels_of_the_slow_processor(tmp_path, shape):
    reference = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    reference.save_pretrained(tmp_path)
    images = noise(*shape)
    expected = reference(pil(images), return_tensors="pt")["pixel_values"]
    ours = Preprocess.from_pretrained(str(tmp_path))(images)
    std = torch.tensor(reference.image_std).view(3, 1, 1)
    assert ((ours - expected) * std * 255).abs().max() <= 2.0


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
def test_a_fixed_size_is_not_cropped_and_both_filters_are_pils(resample):
    config = {"size": {"height": 80, "width": 96}, "resample": int(resample), "do_normalize": False}
    ours = Preprocess.from_config(config)(noise(64, 64))
    expected = torch.from_numpy(np.array(pil(noise(64, 64)).resize((96, 80), resample))).permute(2, 0, 1) / 255
    assert ours.shape == (1, 3, 80, 96)
    assert (ours[0] - expected).abs().max() <= 2 / 255


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
@pytest.mark.parametrize("shape", [(64, 64), (300, 201), (96, 160)])
def test_rounded_it_is_pils_but_for_ties(shape, resample):
    ours = Preprocess(112, (112, 112), (0.0,) * 3, (1.0,) * 3, resample.name.lower(), rounds=True)(noise(*shape))
    height, width = (int(112 * edge / min(shape)) for edge in shape)
    resized = np.array(pil(noise(*shape)).resize((width, height), resample))
    top, left = (height - 112) // 2, (width - 112) // 2
    expected = torch.from_numpy(resized[top : top + 112, left : left + 112]).permute(2, 0, 1)
    difference = (ours[0] * 255 - expected).abs()
    assert difference.max() <= 2.01
    assert (difference > 0.01).float().mean() <= 0.12  # white noise from 64 to 112 has a tie in every seventh value


def test_old_configs_with_bare_numbers_mean_the_shorter_edge(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 32, "crop_size": 32, "resample": 3}))
    assert Preprocess.from_pretrained(str(tmp_path)) == Preprocess(size=32, crop=(32, 32))
    assert Preprocess.from_config({"size": 32, "do_center_crop": False}).size == (32, 32)


@pytest.mark.parametrize(
    "preprocess", [Preprocess(), Preprocess(size=(32, 48), crop=None, resample="bilinear", mean=(0.5,) * 3)]
)
def test_saved_and_loaded_it_is_the_same(tmp_path, preprocess):
    preprocess.save_pretrained(tmp_path)
    assert Preprocess.from_pretrained(tmp_path) == preprocess


def test_images_of_the_right_size_pass_untouched():
    plain = Preprocess(size=64, crop=(64, 64), mean=(0.0,) * 3, std=(1.0,) * 3)
    images = noise(64, 64)
    assert torch.equal(plain(images), images)


def test_gradient_equals_finite_differences():
    preprocess = Preprocess(size=9, crop=(8, 8))
    images = torch.rand(1, 3, 12, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    assert torch.autograd.gradcheck(preprocess, images.requires_grad_())


def test_the_gradient_passes_straight_through_the_rounding():
    gradients = []
    for rounds in (False, True):
        preprocess = Preprocess(size=9, crop=(8, 8), rounds=rounds)
        images = noise(12, 14).requires_grad_()
        output = preprocess(images)
        (gradient,) = torch.autograd.grad(output.sum(), images)
        gradients.append(gradient)
        assert torch.equal(output, preprocess(images.detach()))
    assert torch.equal(*gradients) and gradients[0].any()


def test_half_precision_is_resized_in_float32():
    images = noise(64, 64).bfloat16()
    assert torch.equal(Preprocess(size=32, crop=None)(images), Preprocess(size=32, crop=None)(images.float()))


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ValueError, match="resample=1 is not supported"):
        Preprocess.from_config({"resample": 1})
    with pytest.raises(ValueError, match="cannot crop 64x64 from 32x32"):
        Preprocess(size=32, crop=(64, 64))(noise(40, 40))


PROCESSORS = [
    (  # google/vit: an old file, without the filter; a bare number is both edges
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 56, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        Preprocess(size=(56, 56), crop=None, mean=(0.5,) * 3, std=(0.5,) * 3, resample="bilinear"),
    ),
    (  # facebook/dinov2
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 64},
            "crop_size": {"height": 56, "width": 56},
        },
        Preprocess(size=64, crop=(56, 56)),
    ),
    (  # facebook/convnext and microsoft/resnet, smaller than 384
        {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 56, "crop_pct": 0.875},
        Preprocess(size=64, crop=(56, 56), mean=(0.5,) * 3, std=(0.5,) * 3),
    ),
    (
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
        Preprocess(size=(384, 384), crop=(384, 384), mean=(0.5,) * 3, std=(0.5,) * 3),
    ),
    (
        {"image_processor_type": "PoolFormerImageProcessor", "size": {"shortest_edge": 54}, "crop_size": 54},
        Preprocess(size=60, crop=(54, 54), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ),
    (
        {"image_processor_type": "SiglipImageProcessor", "size": {"height": 56, "width": 56}},
        Preprocess(size=(56, 56), crop=None, mean=(0.5,) * 3, std=(0.5,) * 3),
    ),
]


@pytest.mark.parametrize(("config", "expected"), PROCESSORS)
def test_every_kind_of_processor_is_followed_in_what_its_file_leaves_out(tmp_path, config, expected):
    from transformers import AutoImageProcessor

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    ours = Preprocess.from_pretrained(tmp_path)
    assert ours == expected
    reference = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    std = torch.tensor(expected.std).view(3, 1, 1)
    for shape in [(40, 40), (150, 101), (96, 160)]:
        pixels = reference(pil(noise(*shape)), return_tensors="pt")["pixel_values"]
        difference = ((ours(noise(*shape)) - pixels) * std * 255).abs()
        assert difference.mean() <= 0.5  # Pillow may swap its two passes, see the module's docstring
        assert (difference > 2).float().mean() <= (0.0 if isinstance(expected.size, int) else 0.02)


def test_a_processor_of_torchvision_is_read_from_its_file(tmp_path):
    config = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 56, "width": 48}, "resample": 2}
    config |= {"crop_size": None, "do_center_crop": None, "image_mean": [0.485, 0.456, 0.406]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    ours = Preprocess.from_pretrained(tmp_path)
    assert ours == Preprocess(size=(56, 48), crop=None, mean=(0.485, 0.456, 0.406), resample="bilinear")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True},
            "do_flip_channel_order of",
        ),
        ({"do_rescale": False}, "does not bring pixels to"),
        ({"rescale_factor": 1 / 127.5}, "does not bring pixels to"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "Siglip2ImageProcessor is not supported"),
        ({"size": {"longest_edge": 224}, "do_center_crop": False}, "size .* is not supported"),
    ],
)
def test_other_arithmetic_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        Preprocess.from_config(config)
