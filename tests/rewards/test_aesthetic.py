import pytest
import torch

from sfumato.convert import convert_weights
from sfumato.rewards import LAIONAesthetic, build_reward, score
from sfumato.weights import load_weights
from tests.golden import seeded, seeded_clip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The converted predictor and its CLIP."""
    folder = tmp_path_factory.mktemp("aesthetic")
    (folder / "clip").mkdir()
    seeded_clip.clip(folder / "clip")
    torch.save(seeded_clip.aesthetic(), folder / "linear.pth")
    convert_weights("aesthetic", [folder / "linear.pth"], folder / "aesthetic.safetensors")
    return folder / "aesthetic.safetensors", folder / "clip"


def test_five_layers_with_nothing_between_them_are_one(made):
    tensors, _ = load_weights(made[0], "aesthetic")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    layers = seeded_clip.aesthetic()
    y = x
    for number in (0, 2, 4, 6, 7):
        y = y @ layers[f"layers.{number}.weight"].T + layers[f"layers.{number}.bias"]
    torch.testing.assert_close(x @ tensors["weight"] + tensors["bias"], y.squeeze(1), rtol=1e-5, atol=1e-5)
    assert tensors["weight"].shape == (32,) and tensors["bias"].shape == ()


def test_its_range_is_reached_by_the_best_and_the_worst_embedding(made):
    reward = LAIONAesthetic(*made)
    best = reward.weight / reward.weight.norm()
    ends = torch.stack([-best, best]) @ reward.weight + reward.bias
    assert reward.range == pytest.approx(tuple(ends.tolist()))


def test_it_looks_at_the_image_alone_with_a_gradient_and_in_bf16(made):
    images = (seeded.pictures(2, 40, 40).float() / 255).requires_grad_()
    reward = build_reward({"name": "aesthetic", "weights": str(made[0]), "model": str(made[1])})
    found = score(reward, images, ["a cat", "the sun"])
    assert torch.equal(found, score(reward, images, ["", "a dog"]))
    found.sum().backward()
    assert images.grad.abs().amax((1, 2, 3)).min() > 0
    rough = score(LAIONAesthetic(*made, dtype=torch.bfloat16), images, ["", ""])
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, found, atol=0.1 * float(reward.weight.norm()), rtol=0)


def test_a_predictor_for_another_clip_is_refused(made, tiny_clip):
    with pytest.raises(ValueError, match=r"reads embeddings of 32 numbers, but .* gives 16: give the CLIP"):
        LAIONAesthetic(made[0], tiny_clip)


def test_other_weights_are_no_predictor(made):
    with pytest.raises(ValueError, match=r"clip is no aesthetic predictor: give what `sfumato convert-weights aesth"):
        LAIONAesthetic(made[1], made[1])


def test_the_version_with_relus_is_not_converted(tmp_path):
    layers = seeded_clip.aesthetic()
    relus = {
        name.replace("layers.2", "layers.3").replace("layers.4", "layers.6"): value for name, value in layers.items()
    }
    torch.save(relus, tmp_path / "relu.pth")
    with pytest.raises(ValueError, match="give that file"):
        convert_weights("aesthetic", [tmp_path / "relu.pth"], tmp_path / "aesthetic.safetensors")
