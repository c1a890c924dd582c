"""HPSv2 against the package hpsv2 (golden/make_rewards_clip.py), and its conversion."""

import pytest
import torch
from safetensors import safe_open
from transformers import CLIPModel

from sfumato.convert import convert_weights
from sfumato.preprocess import Preprocess
from sfumato.rewards import HPSv2, HPSv21, build_reward, score
from sfumato.rewards.hps import Letterbox
from tests.golden import seeded, seeded_clip
from tests.rewards.golden_clip import GOLDEN, noise_in_every_matrix, relative

SIZES = [tuple(map(int, size.split("x"))) for size in GOLDEN["hpsv2"]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The converted model and its tokenizer."""
    folder = tmp_path_factory.mktemp("hps")
    torch.save({"epoch": 3, "state_dict": seeded_clip.open_clip()}, folder / "HPS_v2_compressed.pt")
    convert_weights("hpsv2", [folder / "HPS_v2_compressed.pt"], folder / "hps")
    (folder / "tokenizer").mkdir()
    seeded_clip.tokenizer(folder / "tokenizer")
    return folder / "hps", folder / "tokenizer"


def scores(reward, height, width):
    """By prompt and picture, as in the golden file."""
    images = seeded.pictures(3, height, width).float() / 255
    return torch.stack([reward(images, [prompt] * 3) for prompt in seeded_clip.PROMPTS])


@pytest.mark.parametrize("size", SIZES)
def test_it_is_a_hundred_times_what_the_package_says(folders, size):
    theirs = torch.tensor(GOLDEN["hpsv2"]["{}x{}".format(*size)])
    assert relative(scores(HPSv2(*folders), *size), 100 * theirs) < 1e-4
    assert relative(theirs[:, :1], theirs[:, 1:2]) > 1e-2  # the pictures differ far more than the two do


def test_a_weight_that_is_off_by_a_percent_would_be_seen(folders):
    reward, theirs = HPSv2(*folders), 100 * torch.tensor(GOLDEN["hpsv2"]["64x64"])
    for name in noise_in_every_matrix(reward.backbone):
        assert relative(scores(reward, 64, 64), theirs) > 1e-4, name


def test_the_folder_is_a_clip_model_that_says_where_it_is_from(folders):
    model, report = CLIPModel.from_pretrained(folders[0], output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert (model.config.vision_config.num_attention_heads, model.config.text_config.num_attention_heads) == (2, 2)
    with safe_open(folders[0] / "model.safetensors", framework="pt") as file:
        assert "HPS_v2_compressed.pt" in file.metadata()["sha256"]


def test_both_versions_have_their_names(folders):
    model, processor = map(str, folders)
    for name, kind in (("hpsv2", HPSv2), ("hpsv2.1", HPSv21)):
        reward = build_reward({"name": name, "model": model, "processor": processor})
        assert type(reward) is kind and reward.name == name


def test_gradient_reaches_the_images_and_scores_of_bf16_are_float32(folders):
    images = (seeded.pictures(3, 60, 100).float() / 255).requires_grad_()
    prompts = list(seeded_clip.PROMPTS)
    exact = score(HPSv2(*folders), images, prompts)
    exact.sum().backward()
    assert images.grad.abs().amax((1, 2, 3)).min() > 0
    rough = score(HPSv2(*folders, dtype=torch.bfloat16), images, prompts)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=3, rtol=0)


def test_the_letterbox_shows_all_of_a_wide_image_between_black_bars():
    box = Letterbox(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    pixels = box(torch.ones(1, 3, 5, 20))
    assert pixels.shape == (1, 3, 8, 8)
    torch.testing.assert_close(pixels[0, 0, :, 0], torch.tensor([0.0, 0, 0, 1, 1, 0, 0, 0]))
    torch.testing.assert_close(box(torch.ones(1, 3, 20, 5))[0, 0], pixels[0, 0].T)
    square = torch.rand(1, 3, 8, 8)
    assert torch.equal(box(square), square)
    assert torch.equal(box(square[:, :, :4])[:, :, 2:6], square[:, :, :4])  # as wide as the box: no resize


def test_on_square_pictures_the_letterbox_is_nearly_clips_own_preprocessing():
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), size=(300, 300), mode="bicubic").clamp(0, 1)
    difference = Letterbox()(image) - Preprocess()(image)
    assert difference.abs().max() * 0.28 < 2 / 255


@pytest.mark.parametrize(
    ("state", "message"),
    [({}, "not the weights of a CLIP ViT-H/14"), ({"visual.layer1.0.conv1.weight": torch.ones(1)}, "visual.layer1")],
)
def test_other_weights_are_not_converted(tmp_path, state, message):
    if state:
        state |= {"visual.proj": torch.ones(1), "text_projection": torch.ones(1)}
    torch.save({"state_dict": state}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        convert_weights("hpsv2", [tmp_path / "model.pt"], tmp_path / "hps")


def test_it_is_written_to_a_folder(tmp_path):
    with pytest.raises(ValueError, match="must be a folder"):
        convert_weights("hpsv2", [tmp_path / "model.pt"], tmp_path / "hps.safetensors")
