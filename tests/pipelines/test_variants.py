"""Guidance on what people make of a pipeline: image-to-image, inpainting, ControlNet, IP-Adapter, more LoRAs and so on.

Every case is proved against the base pipeline, the tuned one, and the mix of two separate models made by hand.
"""

import functools

import diffusers
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict

from sfumato.pipelines.adapters import lora_scale
from sfumato.pipelines.guidance import annealed_guidance
from tests import tiny
from tests.pipelines.variants import (
    LINEAR,
    add_adapter,
    apart,
    by_hand,
    close,
    like,
    mask,
    picture,
    prove,
    sample,
    with_controlnet,
    with_ip_adapter,
)

TWO_PICTURES, TWO_MASKS = torch.cat([picture(), picture(4)]), torch.cat([mask()] * 2)
THIRDS = (0.0, 1 / 3, 2 / 3, 1.0)


def pair(family, make=lambda pipe: pipe, scheduler=None):
    """The tuned pipeline and the bare one, made over by a function that leaves their parts as they are."""
    return tuple(make(tiny.shared(family, lora=lora, scheduler=scheduler)) for lora in (True, False))


@functools.cache
def sd3_of_16_channels(lora):
    """SD3 inpaints only in latents of 16 channels."""
    pipe = tiny.pipeline("sd3")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = {
            "transformer": diffusers.SD3Transformer2DModel.from_config(
                pipe.transformer.config, in_channels=16, out_channels=16
            ),
            "vae": diffusers.AutoencoderKL.from_config(pipe.vae.config, latent_channels=16),
        }
    for name, model in models.items():
        setattr(pipe, name, model.eval().requires_grad_(False))
    if lora:
        tiny.perturbed_lora(pipe)
    return pipe


IMAGE_TO_IMAGE = [
    ("sd", "ddim", LINEAR),
    ("sd", "pndm", THIRDS),
    ("sd", "heun", (0.0, 0.5, 0.5, 1.0, 1.0)),
    ("sdxl", "dpm++2m", LINEAR),
    ("sd3", None, LINEAR),
    ("flux", None, LINEAR),
]
"""Family, scheduler, and the weights of "linear" when the last half of six steps is run."""


@pytest.mark.parametrize(("family", "scheduler", "weights"), IMAGE_TO_IMAGE)
def test_image_to_image_goes_from_0_to_1_over_its_own_steps(family, scheduler, weights):
    name = {"sd": "StableDiffusion", "sdxl": "StableDiffusionXL", "sd3": "StableDiffusion3", "flux": "Flux"}[family]
    cls = getattr(diffusers, f"{name}Img2ImgPipeline")
    pipe, bare = pair(family, lambda pipe: like(cls, pipe), scheduler=scheduler)
    prove(pipe, bare, sample(**tiny.call(family, steps=6), image=TWO_PICTURES, strength=0.5), weights)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_inpainting_goes_from_0_to_1_over_its_own_steps(family):
    name = {"sd": "StableDiffusion", "sdxl": "StableDiffusionXL", "sd3": "StableDiffusion3", "flux": "Flux"}[family]
    cls = getattr(diffusers, f"{name}InpaintPipeline")
    pipes = map(sd3_of_16_channels, (True, False)) if family == "sd3" else pair(family)
    pipe, bare = (like(cls, pipe) for pipe in pipes)
    size = {"height": 16, "width": 16}
    run = sample(**tiny.call(family, steps=6) | size, image=TWO_PICTURES, mask_image=TWO_MASKS, strength=0.5)
    prove(pipe, bare, run)


def test_every_clock_tells_image_to_image_from_its_own_first_step():
    """DDIM with six steps stands at t = 831, 665, 499, 333, 167, 1, of which the last three are run."""
    pipe = like(diffusers.StableDiffusionImg2ImgPipeline, tiny.pipeline("sd", lora=True))
    kept = pipe.scheduler.alphas_cumprod[[999, 333, 167, 0]].double()  # the ends of training at both ends
    ratios, logsnr = ((1 - kept) / kept).sqrt(), torch.log(kept / (1 - kept))
    expected = {
        "nemo": [0.0, 1 / 3, 2 / 3],
        "timestep": [1 - 333 / 999, 1 - 167 / 999, 1.0],
        "sigma": [*(1 - ratios[1:3] / ratios[0]).tolist(), 1.0],
        "logsnr": [*((logsnr[1:3] - logsnr[0]) / (logsnr[3] - logsnr[0])).tolist(), 1.0],
    }
    for clock, values in expected.items():
        seen = []
        with annealed_guidance(pipe, lambda u, seen=seen: seen.append(u) or 0.5, clock=clock):
            sample([1], prompt="red", num_inference_steps=6, image=picture(), strength=0.5)(pipe)
        assert seen == pytest.approx(values, abs=1e-4), clock


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3"])
def test_controlnet(family):
    pipe, bare = pair(family, lambda pipe: with_controlnet(pipe, family))
    name = "image" if family in ("sd", "sdxl") else "control_image"
    run = sample(**tiny.call(family), **{name: TWO_PICTURES})
    prove(pipe, bare, run)
    assert apart(run(bare), sample(**tiny.call(family))(tiny.shared(family)))


@pytest.mark.parametrize(("family", "lora_first"), [("sd", False), ("sdxl", True)])
def test_ip_adapter(family, lora_first):
    pipe, bare = tiny.pipeline(family, lora=lora_first), with_ip_adapter(tiny.pipeline(family))
    with_ip_adapter(pipe)
    if not lora_first:
        tiny.perturbed_lora(pipe)
    embeddings = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(6))
    run = sample([1, 2], **tiny.call(family), ip_adapter_image_embeds=[embeddings.repeat(2, 1, 1)])
    prove(pipe, bare, run)
    assert apart(run(bare), sample(**tiny.call(family))(tiny.shared(family)))


def test_true_classifier_free_guidance_with_two_calls_a_step():
    pipe, bare = pair("flux")
    run = sample(**tiny.call("flux"), true_cfg_scale=2.0, negative_prompt=["blue", "dull"])
    prove(pipe, bare, run, [g for g in LINEAR for _ in range(2)])


@pytest.mark.parametrize(("scheduler", "weights"), [("heun", (0, 0.5, 0.5, 1, 1)), ("pndm", (0, 0.5, 0.5, 1))])
def test_second_order_samplers_are_guided_at_every_denoiser_call(scheduler, weights):
    pipe, bare = pair("sd", scheduler=scheduler)
    prove(pipe, bare, sample(**tiny.call("sd")), weights)


def few_steps(pipe, bare, run, steps, **guidance):
    """The only step of a run is its last: there the tuned model is followed."""
    if steps > 1:
        return prove(pipe, bare, run, [i / (steps - 1) for i in range(steps)], **guidance)
    with annealed_guidance(pipe, "linear", **guidance):
        guided = run(pipe)
    assert torch.equal(guided, run(pipe)) and apart(guided, run(bare))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_distilled_model_of_few_steps_with_its_lora_on_in_base_and_tuned(steps):
    """As with LCM-LoRA: the adapter that makes few steps possible stays on, at the strength that it was given."""
    pipe, bare = tiny.pipeline("sd"), tiny.pipeline("sd")
    tiny.perturbed_lora(pipe, "tuned", seed=1)
    for each, active in [(pipe, ["lcm", "tuned"]), (bare, ["lcm"])]:
        tiny.perturbed_lora(each, "lcm")
        each.set_adapters(active, [0.7, 1.0][: len(active)])
        each.scheduler = diffusers.LCMScheduler.from_config(each.scheduler.config, original_inference_steps=10)
    few_steps(pipe, bare, sample(**tiny.call("sd", steps=steps), guidance_scale=1.5), steps, adapter="tuned")


@pytest.mark.parametrize("steps", [1, 3])
def test_a_turbo_model_sampled_with_noise_at_every_step(steps):
    pipe, bare = tiny.pipeline("sd", lora=True), tiny.pipeline("sd")
    for each in (pipe, bare):
        config = tiny.make_scheduler("euler").config
        each.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(config, timestep_spacing="trailing")
    run = sample(**tiny.call("sd", steps=steps), guidance_scale=0.0)
    few_steps(pipe, bare, run, steps)


def test_loras_on_text_encoders_stay_on_in_base_and_tuned(tmp_path):
    made = tiny.pipeline("sd", lora=True)
    made.text_encoder.add_adapter(
        LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    layers = {"unet_lora_layers": made.unet, "text_encoder_lora_layers": made.text_encoder}
    states = {name: get_peft_model_state_dict(module) for name, module in layers.items()}
    made.save_lora_weights(tmp_path / "both", **states)
    made.save_lora_weights(tmp_path / "text", text_encoder_lora_layers=states["text_encoder_lora_layers"])
    pipe, bare = tiny.pipeline("sd"), tiny.pipeline("sd")
    pipe.load_lora_weights(tmp_path / "both")
    bare.load_lora_weights(tmp_path / "text")
    run = sample(**tiny.call("sd"))
    prove(pipe, bare, run)
    assert apart(run(bare), run(tiny.shared("sd")))


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}, {"use_rslora": True}])
def test_kinds_of_lora(options):
    pipe, bare = tiny.pipeline("sd"), tiny.pipeline("sd")
    add_adapter(pipe, **options)
    prove(pipe, bare, sample(**tiny.call("sd")))


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_the_pipeline_s_own_scale_multiplies_the_tuned_model_in_the_mix(family):
    name = "cross_attention_kwargs" if family == "sd" else "joint_attention_kwargs"
    pipe, bare = pair(family)
    scaled, plain = sample(**tiny.call(family), **{name: {"scale": 0.5}}), sample(**tiny.call(family))
    with by_hand(pipe, bare, LINEAR):
        mixed = scaled(pipe)
    with lora_scale(pipe, 0.5), by_hand(pipe, bare, LINEAR):
        assert close(plain(pipe), mixed)
    with annealed_guidance(pipe, "linear"):
        assert close(scaled(pipe), mixed) and apart(plain(pipe), mixed)
    with annealed_guidance(pipe, "base"):
        assert torch.equal(scaled(pipe), plain(bare))


def test_an_image_depends_on_its_prompt_and_generator_and_not_on_its_batch():
    pipe = tiny.shared("sd", lora=True)
    with annealed_guidance(pipe, "linear"):
        together = sample([1, 2, 3], **tiny.call("sd", 3))(pipe)
        alone = [
            sample([i + 1], **tiny.call("sd", 1) | {"prompt": tiny.call("sd", 3)["prompt"][i]})(pipe) for i in range(3)
        ]
        repeated = sample([2, 5], prompt="a green sd", num_images_per_prompt=2, num_inference_steps=3)(pipe)
    assert close(together, torch.cat(alone)) and apart(*together)
    assert close(repeated[0], together[1])


def test_a_callback_that_changes_the_latents_and_stops_classifier_free_guidance():
    def change(pipe, step, timestep, inputs):
        latents, prompt_embeds = inputs["latents"], inputs["prompt_embeds"]
        if step == 0:
            pipe._guidance_scale, prompt_embeds = 0.0, prompt_embeds.chunk(2)[-1]
        return {"latents": latents.roll(1, -1), "prompt_embeds": prompt_embeds}

    options = {"callback_on_step_end": change, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    pipe, bare = pair("sd")
    prove(pipe, bare, sample(**tiny.call("sd"), **options))
    assert apart(sample(**tiny.call("sd"), **options)(bare), sample(**tiny.call("sd"))(bare))


def test_a_callback_that_interrupts_leaves_the_next_call_as_it_would_have_been():
    pipe, bare = pair("sd")

    def stop(pipe, step, timestep, inputs):
        pipe._interrupt = step == 0
        return inputs

    with by_hand(pipe, bare, LINEAR):
        mixed = sample(**tiny.call("sd"))(pipe)
    with annealed_guidance(pipe, "linear") as guidance:
        sample(**tiny.call("sd"), callback_on_step_end=stop)(pipe)
        assert guidance.passes == 1
        assert close(sample(**tiny.call("sd"))(pipe), mixed)


def test_a_pipeline_made_from_a_guided_one_shares_its_guidance_until_that_ends():
    """`from_pipe` shares models and scheduler."""
    cls = diffusers.StableDiffusionImg2ImgPipeline
    pipe, bare = pair("sd")
    run = sample(prompt=["red", "blue"], num_inference_steps=6, image=TWO_PICTURES, strength=0.5)
    sibling, base = cls.from_pipe(pipe), cls.from_pipe(bare)
    with by_hand(sibling, base, LINEAR):
        mixed = run(sibling)
    with annealed_guidance(sibling, "linear"):
        assert close(run(sibling), mixed)
    with annealed_guidance(pipe, "linear"):
        later = cls.from_pipe(pipe)
        assert close(run(later), mixed)
    assert torch.equal(run(later), run(sibling)) and apart(run(later), mixed)


def test_guidance_is_refused_for_a_pipeline_whose_denoiser_is_guided_already():
    """It would be blended twice."""
    pipe = tiny.pipeline("sd", lora=True)
    sibling = diffusers.StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    already_on = pytest.raises(RuntimeError, match="already on")
    with annealed_guidance(pipe, "linear"), already_on, annealed_guidance(sibling, "linear"):
        pass
