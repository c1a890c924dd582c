"""emoji-64-flow in the state in which it ships: the second bundled pipeline, with flow matching."""

import tomllib
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from sfumato import emoji64
from sfumato.config import PipelineConfig
from sfumato.pipelines.adapters import add_lora
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.load import load_pipeline
from sfumato.pipelines.rollout import rollout
from sfumato.rewards import build_reward, score

ROOT = Path(__file__).parents[1]
CALL = {"num_inference_steps": 8, "guidance_scale": 3.0, "max_sequence_length": 1}
PROMPTS = ["heart", "face", "fruit", "flower"]


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(PipelineConfig(path="emoji64-flow"), torch.device("cpu"))


@pytest.fixture(scope="module")
def images(pipe):
    """Two of every prompt."""
    return rollout(pipe, seeds=range(8), prompt=[prompt for prompt in PROMPTS for _ in range(2)], **CALL).images


@pytest.fixture
def tuned():
    """With a LoRA that changes something."""
    pipe = emoji64.demo_pipeline("emoji64-flow")
    parameters = add_lora(pipe, rank=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return pipe, parameters


def right(images, prompts):
    """Which images the judge puts into a subcategory that answers the prompt."""
    with torch.no_grad():
        kinds = emoji64.load_judge()(images).subcategory.argmax(1)
    names = emoji64.load_judge().subcategories
    return [names[kind] in emoji64.prompt_subcategories(p) for kind, p in zip(kinds, prompts, strict=True)]


def test_the_judge_recognises_its_pictures(images):
    assert images.shape == (8, 3, 64, 64)
    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    assert sum(right(images, prompts)) >= 6
    assert sum(right(images.roll(2, 0), prompts)) <= 2


def test_stock_diffusers_draws_the_same_by_its_own_call(images):
    stock = StableDiffusion3Pipeline.from_pretrained(emoji64.pipeline_path("emoji64-flow"), local_files_only=True)
    stock.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 2)]
    drawn = torch.from_numpy(stock(["heart", "face"], generator=generators, output_type="np", **CALL).images)
    assert torch.allclose(drawn.permute(0, 3, 1, 2), images[::2][:2], atol=1e-4)


def test_the_zeros_that_a_call_puts_behind_the_text_by_default_change_little(pipe, images):
    stock = {key: value for key, value in CALL.items() if key != "max_sequence_length"}
    padded = rollout(pipe, seeds=[0, 2], prompt=["heart", "face"], **stock).images
    assert (padded - images[::2][:2]).abs().mean() < 0.3 * (images[0] - images[2]).abs().mean()
    assert right(padded, ["heart", "face"]) == [True, True]


def test_a_reward_reaches_the_lora_through_the_last_step(tuned):
    """Against a central difference: with one step it is the whole rollout."""
    pipe, parameters = tuned
    reward = build_reward({"name": "preference", "model": "emoji64"})
    call = {**CALL, "num_inference_steps": 1, "prompt": ["fruit", "bird"]}

    def mean(last_steps=0):
        return score(reward, rollout(pipe, seeds=[1, 2], last_steps=last_steps, **call).images, call["prompt"]).mean()

    mean(last_steps=1).backward()
    norm = torch.cat([p.grad.flatten() for p in parameters]).norm()
    directions = [p.grad / norm for p in parameters]
    ends = []
    for size in (1e-2, -2e-2):
        with torch.no_grad():
            torch._foreach_add_(parameters, directions, alpha=size)
            ends.append(mean())
    assert norm > 0 and torch.isclose((ends[0] - ends[1]) / 2e-2, norm, rtol=0.05)


def test_guidance_goes_from_its_base_to_its_tuned_pictures(pipe, images, tuned):
    call = {"seeds": [0], "prompt": ["heart"], **CALL}
    drawn = {}
    for name in ("base", "tuned"):
        with annealed_guidance(tuned[0], name):
            drawn[name] = rollout(tuned[0], **call).images
    torch.testing.assert_close(drawn["base"], rollout(pipe, **call).images, rtol=0, atol=1e-4)
    assert torch.equal(drawn["tuned"], rollout(tuned[0], **call).images)
    with annealed_guidance(tuned[0], "power", p=2):
        between = rollout(tuned[0], **call).images
    assert 0 < (between - drawn["base"]).abs().mean() < (drawn["tuned"] - drawn["base"]).abs().mean()


def test_the_wheel_has_all_of_it_and_no_pickle():
    package = ROOT / "src" / "sfumato"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["sfumato"]
    packed = {path for pattern in patterns for path in package.glob(pattern) if path.is_file()}
    files = {path for path in emoji64.pipeline_path("emoji64-flow").rglob("*") if path.is_file()}
    assert files <= packed
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".md", ".png"}
    assert sum(path.stat().st_size for path in files) < 30e6


def test_an_unknown_bundled_pipeline_is_refused():
    with pytest.raises(ValueError, match="no bundled pipeline 'flow': choose one of emoji64, emoji64-flow"):
        emoji64.demo_pipeline("flow")
