import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, ViTConfig, ViTForImageClassification, pipeline

from sfumato.preprocess import Preprocess
from sfumato.rewards import LabelPenalty, SafetyCheckerPenalty, build_reward, score
from sfumato.rewards.safety import RAISED

LAYERS = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL = Preprocess(size=16, crop=(16, 16))
PROMPTS = [""] * 8


def pictures(height: int = 20, width: int = 24) -> torch.Tensor:
    """Eight 8-bit images, each of its own colour with noise."""
    generator = torch.Generator().manual_seed(3)
    colours = torch.rand(8, 3, 1, 1, generator=generator)
    noise = torch.rand(8, 3, height, width, generator=generator)
    return (255 * (0.6 * colours + 0.4 * noise)).round() / 255


def scatter(model: torch.nn.Module) -> None:
    """Weights so large that the model tells images apart."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter) * (parameter.ndim > 1))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """diffusers' checker, which passes images 0 to 3 but for a special concept in image 0; and its folder."""
    vision = {**LAYERS, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16)).eval()
    scatter(checker)
    with torch.no_grad():
        embeds = checker.visual_projection(checker.vision_model(SMALL(pictures())).pooler_output)
        checker.concept_embeds.copy_(torch.randn(17, 16))
        highest = cosine_distance(embeds[:4], checker.concept_embeds).amax(0)
        checker.concept_embeds_weights.copy_(highest + 0.004)
        checker.special_care_embeds.copy_(embeds[0] * torch.tensor([[2.0], [-1.0], [-3.0]]))
        checker.special_care_embeds_weights.copy_(torch.tensor([0.998, 0.99, 0.99]))
    folder = tmp_path_factory.mktemp("checker")
    checker.save_pretrained(folder)
    SMALL.save_pretrained(folder)
    return checker, folder


def margins(checker: StableDiffusionSafetyChecker, pixels: torch.Tensor) -> torch.Tensor:
    """By diffusers' own parts, one image at a time."""
    found = []
    for image in pixels:
        embeds = checker.visual_projection(checker.vision_model(image[None]).pooler_output)
        special = cosine_distance(embeds, checker.special_care_embeds) - checker.special_care_embeds_weights
        concepts = cosine_distance(embeds, checker.concept_embeds) - checker.concept_embeds_weights
        found.append(float(concepts.max()) + (0.01 if bool((special > 0).any()) else 0.0))
    return torch.tensor(found)


def test_the_penalty_falls_on_the_images_that_diffusers_blackens(reference):
    checker, folder = reference
    _, blackened = checker(SMALL(pictures()), pictures().clone())
    penalty = score(SafetyCheckerPenalty(folder), pictures(), PROMPTS)
    assert (penalty < 0).tolist() == blackened
    assert blackened[:4] == [True, False, False, False] and any(blackened[4:])
    assert (penalty[1:4] == 0).all()


@torch.no_grad()
def test_margins_are_those_of_diffusers_concepts(reference):
    checker, folder = reference
    reward = SafetyCheckerPenalty(folder)
    expected = margins(checker, SMALL(pictures()))
    torch.testing.assert_close(reward.margins(pictures()), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(reward(pictures(), PROMPTS), (-expected).clamp(max=0), rtol=1e-4, atol=1e-6)
    assert reward.range == (pytest.approx(float(checker.concept_embeds_weights.min()) - 1 - RAISED), 0)


@torch.no_grad()
@pytest.mark.parametrize("layer", ["visual_projection", "patch_embedding", "post_layernorm"])
def test_one_weight_one_percent_off_is_noticed(reference, tmp_path, layer):
    checker, folder = reference
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith(f"{layer}.weight"))
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights[name].view(-1)[weights[name].abs().argmax()] *= 1.01
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = SafetyCheckerPenalty(tmp_path).margins(pictures())
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(found, margins(checker, SMALL(pictures())), rtol=1e-4, atol=1e-6)


def test_checkpoints_that_wrap_the_tower_twice_load_too(reference, tmp_path):
    _, folder = reference
    weights = {
        name.replace("vision_model.vision_model.", "vision_model."): value
        for name, value in load_file(folder / "model.safetensors").items()
    }
    for wrapped in (False, True):
        named = {
            name.replace("vision_model.", "vision_model.vision_model.") if wrapped else name: value
            for name, value in weights.items()
        }
        position = "vision_model.vision_model.embeddings.position_ids"
        save_file({**named, position: torch.arange(5)[None]}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
        loaded = SafetyCheckerPenalty(tmp_path, processor=folder)
        assert torch.equal(loaded.margins(pictures()), SafetyCheckerPenalty(folder).margins(pictures()))


def test_gradients_are_finite_differences_and_zero_where_safe(reference):
    reward = SafetyCheckerPenalty(reference[1], dtype=torch.float64)
    images = pictures(9, 10).double().requires_grad_()
    assert torch.autograd.gradcheck(reward.margins, images[4:5].detach().requires_grad_())
    images = pictures().requires_grad_()
    score(SafetyCheckerPenalty(reference[1]), images, PROMPTS).sum().backward()
    unsafe = SafetyCheckerPenalty(reference[1]).margins(pictures()) > 0
    assert ((images.grad.flatten(1).abs().amax(1) > 0) == unsafe).all()


def test_half_precision_scores_are_close_and_full_precision(reference):
    half, full = SafetyCheckerPenalty(reference[1], dtype=torch.bfloat16), SafetyCheckerPenalty(reference[1])
    found = half.margins(pictures())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, full.margins(pictures()), atol=0.05, rtol=0)


def test_weights_of_the_tower_that_are_missing_or_do_not_fit_are_named(reference, tmp_path):
    weights = load_file(reference[1] / "model.safetensors")
    (tmp_path / "config.json").write_bytes((reference[1] / "config.json").read_bytes())
    projection = weights.pop("visual_projection.weight")
    for changed in (weights, weights | {"visual_projection.weight": projection[:-1].clone()}):
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=r"lacks a fitting visual_projection\.weight .*download it again"):
            SafetyCheckerPenalty(tmp_path, processor=reference[1])


def test_another_model_is_no_safety_checker(tiny_clip):
    with pytest.raises(ValueError, match=r"is no safety checker: it lacks special_care_embeds\. Give one of"):
        SafetyCheckerPenalty(tiny_clip)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A folder of a small ViT with two labels."""
    torch.manual_seed(1)
    labels = {0: "normal", 1: "NSFW"}
    config = ViTConfig(**LAYERS, image_size=16, patch_size=8, id2label=labels, label2id={"normal": 0, "NSFW": 1})
    model = ViTForImageClassification(config)
    scatter(model)
    folder = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(folder)
    SMALL.save_pretrained(folder)
    return folder


def said(folder) -> torch.Tensor:
    """What transformers' own pipeline says of pictures that need no resizing."""
    images = (255 * pictures(16, 16)).byte().permute(0, 2, 3, 1).numpy()
    classify = pipeline("image-classification", model=str(folder), device="cpu")
    found = classify([Image.fromarray(image) for image in images], top_k=None)
    return torch.tensor([next(row["score"] for row in rows if row["label"] == "NSFW") for rows in found])


def test_the_label_penalty_is_minus_the_probability_that_transformers_gives(classifier):
    reward = build_reward({"name": "nsfw", "model": str(classifier)})
    expected = said(classifier)
    torch.testing.assert_close(score(reward, pictures(16, 16), PROMPTS), -expected, rtol=1e-4, atol=0)
    other = LabelPenalty(classifier, "normal")
    torch.testing.assert_close(other(pictures(16, 16), PROMPTS), expected - 1, rtol=1e-4, atol=1e-6)
    assert (reward.name, other.name) == ("nsfw", "normal") and expected.std() > 0.01


def test_labels_that_do_not_exclude_each_other_are_sigmoids(classifier, tmp_path):
    model = ViTForImageClassification.from_pretrained(classifier)
    model.config.problem_type = "multi_label_classification"
    model.save_pretrained(tmp_path)
    SMALL.save_pretrained(tmp_path)
    torch.testing.assert_close(LabelPenalty(tmp_path)(pictures(16, 16), PROMPTS), -said(tmp_path), rtol=1e-4, atol=0)


def test_the_gradient_of_the_label_penalty_is_finite_differences(classifier):
    reward = LabelPenalty(classifier, dtype=torch.float64)
    images = pictures(9, 10).double()[:1].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reward(x, [""]), images)


def test_one_weight_of_the_classifier_one_percent_off_is_noticed(classifier, tmp_path):
    model = ViTForImageClassification.from_pretrained(classifier)
    with torch.no_grad():
        model.classifier.weight.view(-1)[model.classifier.weight.abs().argmax()] *= 1.01
    model.save_pretrained(tmp_path)
    SMALL.save_pretrained(tmp_path)
    found = LabelPenalty(tmp_path)(pictures(16, 16), PROMPTS)
    assert not torch.allclose(found, -said(classifier), rtol=1e-4, atol=0)


def test_what_is_no_classifier_of_that_label_is_refused(classifier, tiny_clip):
    with pytest.raises(ValueError, match=r"has no label 'violence': choose one of normal, nsfw"):
        LabelPenalty(classifier, "violence")
    for kind in (LabelPenalty, SafetyCheckerPenalty):
        with pytest.raises(OSError, match="cannot load someone/model: give a folder, or a hub id"):
            kind("someone/model")
    with pytest.raises(ValueError, match=r"lacks classifier.*: give a model trained for classification"):
        LabelPenalty(tiny_clip)
