"""A rollout is the pipeline's own call: same images, one seed per image, gradient only where it was asked for."""

import pytest
import torch

from sfumato.pipelines.rollout import rollout
from tests import tiny


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_images_equal_the_pipelines_own_bit_for_bit(family):
    pipe = tiny.shared(family, lora=True)
    arguments = tiny.call(family)
    expected = tiny.images(pipe, [7, 8], **arguments)
    assert torch.equal(rollout(pipe, seeds=[7, 8], **arguments).images, expected)
    assert torch.equal(rollout(pipe, seeds=[7, 8], last_steps=2, **arguments).images.detach(), expected)
    assert torch.equal(rollout(pipe, seeds=[7, 8], record=True, **arguments).images, expected)
    assert expected.shape == (2, 3, 16, 16)
    assert 0 < expected.min() < expected.max() < 1


@pytest.mark.parametrize("scheduler", [s for s in tiny.SCHEDULERS if not s.startswith("flow")])
def test_images_equal_with_every_scheduler(scheduler):
    pipe = tiny.shared("sd", scheduler=scheduler)
    arguments = tiny.call("sd", **tiny.SCHEDULERS[scheduler][2])
    expected = tiny.images(pipe, [7, 8], **arguments)
    assert torch.equal(rollout(pipe, seeds=[7, 8], last_steps=1, **arguments).images, expected)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_would_be_confused_are_refused(seed):
    """torch's generator on a CPU looks at the lowest 32 bits only."""
    alike = [torch.Generator().manual_seed(s % 2**64) for s in (seed, seed % 2**32)]
    assert torch.equal(*(torch.randn(4, generator=generator) for generator in alike))
    with pytest.raises(ValueError, match=f"seed {seed}: .*0 to 2"):
        rollout(tiny.shared("sd"), seeds=[0, seed], **tiny.call("sd"))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_embeddings_do_as_well_as_prompts(family):
    pipe = tiny.shared(family)
    arguments = tiny.call(family)
    expected = rollout(pipe, seeds=[7, 8], **arguments).images
    embedded = tiny.embedded(pipe, family, arguments)
    assert "prompt" not in embedded
    assert torch.equal(rollout(pipe, seeds=[7, 8], **embedded).images, expected)
    with pytest.raises(ValueError, match=r"prompt_embeds has 2 rows for 3 seeds"):
        rollout(pipe, seeds=[1, 2, 3], **embedded)


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [("sd", "ddim-eta-1"), ("sdxl", "euler-ancestral"), ("sd3", "flow-stochastic"), ("flux", "flow-stochastic")],
)
def test_an_image_depends_on_prompt_and_seed_alone(family, scheduler):
    pipe = tiny.shared(family, scheduler=scheduler)
    arguments = tiny.call(family, count=3, **tiny.SCHEDULERS[scheduler][2])
    together = rollout(pipe, seeds=[1, 2, 3], record=True, **arguments)
    torch.manual_seed(5)
    torch.rand(3)
    order = [2, 0]
    arguments["prompt"] = [arguments["prompt"][i] for i in order]
    fewer = rollout(pipe, seeds=[3, 1], record=True, **arguments)
    assert torch.equal(fewer.steps[0].sample, together.steps[0].sample[order])
    assert (fewer.images - together.images[order]).abs().max() <= 1 / 255
    assert torch.equal(rollout(pipe, seeds=[3, 1], **arguments).images, fewer.images)
    assert not torch.equal(rollout(pipe, seeds=[3, 4], **arguments).images[1], fewer.images[1])


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_the_noise_of_stochastic_steps_is_the_images_own(family):
    """These pipelines give their scheduler no generator, so the global one would decide."""
    pipe = tiny.shared(family, scheduler="flow-stochastic")
    arguments = tiny.call(family, count=2)
    same = rollout(pipe, seeds=[4, 4], **{**arguments, "prompt": "one"}).images
    assert torch.equal(same[0], same[1])
    before = torch.get_rng_state()
    rollout(pipe, seeds=[4, 4], **arguments)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradient_starts_at_the_step_asked_for():
    pipe = tiny.pipeline("sd", lora=True)
    enabled = []
    pipe.unet.register_forward_pre_hook(lambda *_: enabled.append(torch.is_grad_enabled()))
    for last_steps, expected in [(0, [False] * 4), (1, [False, False, False, True]), (4, [True] * 4)]:
        enabled.clear()
        images = rollout(pipe, seeds=[1], last_steps=last_steps, **tiny.call("sd", count=1, steps=4)).images
        assert enabled == expected
        assert images.requires_grad == bool(last_steps)


def test_a_rollout_says_what_it_did():
    pipe = tiny.shared("sd")
    result = rollout(pipe, seeds=[3, 4], prompt="cat", num_inference_steps=2)
    assert result.seeds == [3, 4]
    assert result.arguments == {"prompt": ["cat", "cat"], "num_inference_steps": 2}
    assert result.steps == []


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(family, fails, monkeypatch):
    pipe = tiny.pipeline(family, lora=True)
    arguments = tiny.call(family)
    rollout(pipe, seeds=[7, 8], record=True, last_steps=1, **arguments)
    before = tiny.footprint(pipe)
    if fails:
        monkeypatch.setattr(pipe.vae, "decode", _broken, raising=True)
        with pytest.raises(ZeroDivisionError):
            rollout(pipe, seeds=[7, 8], record=True, last_steps=1, **arguments)
        monkeypatch.undo()
    else:
        rollout(pipe, seeds=[7, 8], record=True, last_steps=1, **arguments)
    assert tiny.footprint(pipe) == before


def _broken(*args, **kwargs):
    raise ZeroDivisionError


class Censor:
    """Stands where a safety checker or a watermark stands; whoever calls it spoils the gradient."""

    def __call__(self, *args, **kwargs):
        raise AssertionError("was called")

    apply_watermark = __call__


@pytest.mark.parametrize(("family", "name"), [("sd", "safety_checker"), ("sdxl", "watermark")])
def test_the_safety_checker_and_the_watermark_are_off_meanwhile(family, name):
    pipe = tiny.pipeline(family, lora=True)
    censor = Censor()
    setattr(pipe, name, censor)
    images = rollout(pipe, seeds=[1], last_steps=1, **tiny.call(family, count=1)).images
    images.sum().backward()
    assert getattr(pipe, name) is censor
    with pytest.raises(AssertionError, match="was called"):
        pipe.feature_extractor = lambda images, return_tensors: torch.nn.ParameterDict({"pixel_values": torch.zeros(1)})
        tiny.images(pipe, [1], **tiny.call(family, count=1))


@pytest.mark.parametrize(
    ("seeds", "arguments", "message"),
    [
        ([], {"prompt": "cat"}, "seeds is empty"),
        ([1, 2], {"prompt": ["cat"]}, "prompt has 1 rows for 2 seeds"),
        ([1, 2], {"prompt": "cat", "negative_prompt": ["x"] * 3}, "negative_prompt has 3 rows for 2 seeds"),
        ([1], {"prompt": "cat", "num_images_per_prompt": 2}, "one seed per image"),
        ([1], {"prompt": "cat", "generator": None}, "seeds"),
        ([1], {"prompt": "cat", "output_type": "pil"}, "tensors"),
        ([1], {"prompt": "cat", "return_dict": False}, "Rollout"),
        ([1], {"prompt": "cat", "last_steps": -1}, "last_steps"),
        ([1], {"prompt": "cat", "last_steps": 4}, "last 4 steps, but DDIMScheduler takes only 3"),
    ],
)
def test_bad_arguments_are_refused_before_anything_happens(seeds, arguments, message):
    pipe = tiny.pipeline("sd", lora=True)
    sizes = tiny.counted(pipe.unet)
    before = tiny.footprint(pipe)
    with pytest.raises(ValueError, match=message):
        rollout(pipe, seeds=seeds, **{"num_inference_steps": 3, **arguments})
    after = tiny.footprint(pipe)
    assert sizes == []
    assert {**after, "pipe": None, "scheduler": None} == {**before, "pipe": None, "scheduler": None}
    assert "step" not in vars(pipe.scheduler) and "set_timesteps" not in vars(pipe.scheduler)


def test_second_order_schedulers_count_their_own_steps():
    pipe = tiny.pipeline("sd", lora=True, scheduler="heun")
    rollout(pipe, seeds=[1], last_steps=5, **tiny.call("sd", count=1)).images.sum().backward()
    with pytest.raises(ValueError, match="HeunDiscreteScheduler takes only 5"):
        rollout(pipe, seeds=[1], last_steps=6, **tiny.call("sd", count=1))


def test_gradient_is_refused_where_the_last_steps_are_left_out():
    pipe = tiny.pipeline("sdxl", lora=True)
    with pytest.raises(ValueError, match="ran 1 of 3 steps"):
        rollout(pipe, seeds=[1], last_steps=1, denoising_end=0.5, **tiny.call("sdxl", count=1))
