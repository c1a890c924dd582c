"""The ComfyUI nodes without ComfyUI: its `apply_model`, `model_sampling` and layers are stood in for by small fakes."""

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from integrations.comfyui.blending import Blender
from integrations.comfyui.clock import SigmaClock
from integrations.comfyui.lora import Factors, LoraLayers, factors, in_comfy_names
from integrations.comfyui.nodes import parse_schedule
from torch import nn

from sfumato.pipelines.clocks import read_grid
from sfumato.schedules import schedule

NONE = (None, None, None, None)
SIGMAS = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])


class Diffusion:
    """`model_sampling` of a diffusion model: x = image + sigma noise, and a table of trained sigmas."""

    def __init__(self):
        alphas = DDIMScheduler().alphas_cumprod.double()
        self.sigmas = ((1 - alphas) / alphas).sqrt()
        self.sigma_min, self.sigma_max = self.sigmas[0], self.sigmas[-1]

    def timestep(self, sigma):
        return (sigma.double()[:, None] - self.sigmas).abs().argmin(1)

    def noise_scaling(self, sigma, noise, latent):
        return noise * sigma.reshape(-1, 1) + latent


class Flow:
    def __init__(self):
        self.sigmas = torch.linspace(0.001, 1, 1000)
        self.sigma_min, self.sigma_max = self.sigmas[0], self.sigmas[-1]

    def timestep(self, sigma):
        return sigma * 1000

    def noise_scaling(self, sigma, noise, latent):
        return noise * sigma.reshape(-1, 1) + (1 - sigma.reshape(-1, 1)) * latent


class Model:
    """Predicts a constant, empties the control's lists as ComfyUI's UNet does and notes what it was called with."""

    def __init__(self, value):
        self.value = value
        self.calls = []
        self.class_obj = SimpleNamespace(model_sampling=Diffusion())

    def __call__(self, x, t, c_concat, c_crossattn, control, transformer_options, **conds):
        popped = control["output"].pop() if control else 0.0
        self.calls.append((popped, transformer_options, conds))
        return torch.full_like(x, self.value)

    apply_model = __call__


def call(blender, base, sigma, **more):
    options = {"sample_sigmas": SIGMAS, "wrappers": {"apply_model": {"sfumato": [blender], "other": ["kept"]}}}
    t = torch.full((2,), float(sigma))
    return blender(base, torch.zeros(2, 3), t, transformer_options=options, **more)


def two_models(*args, **kwargs):
    base, tuned = Model(10.0), Model(20.0)
    return Blender(schedule(*args, **kwargs), second=SimpleNamespace(model=tuned)), base, tuned


def test_the_denoised_images_are_blended_by_the_schedule_and_a_model_of_no_weight_is_not_run():
    blender, base, tuned = two_models("power", p=2)
    for sigma, u in [(8.0, 0.0), (4.0, 1 / 3), (2.0, 2 / 3), (1.0, 1.0)]:
        expected = (1 - u**2) * 10 + u**2 * 20
        assert torch.allclose(call(blender, base, sigma), torch.full((2, 3), expected))
    assert (len(base.calls), len(tuned.calls)) == (3, 3)


def test_weights_outside_0_and_1_extrapolate():
    blender, base, _ = two_models("constant", w=1.5)
    assert call(blender, base, 4.0)[0, 0] == 25.0


def test_progress_depends_on_sigma_alone():
    blender, base, _ = two_models("linear")
    first = [call(blender, base, sigma)[0, 0].item() for sigma in (8.0, 4.0, 4.0, 8.0, math.sqrt(8), 0.5, 9.0)]
    assert first == pytest.approx([10, 10 + 10 / 3, 10 + 10 / 3, 10, 15, 20, 10])


def test_a_level_that_the_sampler_rounded_is_still_the_last():
    blender, base, tuned = two_models("linear")
    call(blender, base, 1.00001)
    assert (len(base.calls), len(tuned.calls)) == (0, 1)


def test_a_new_run_has_its_own_levels():
    blender, base, _ = two_models("linear")
    call(blender, base, 4.0)
    options = {"sample_sigmas": torch.tensor([4.0, 1.0, 0.0]), "wrappers": {"apply_model": {}}}
    assert blender(base, torch.zeros(1, 3), torch.tensor([4.0]), transformer_options=options)[0, 0] == 10


def test_both_models_get_the_same_conditions_and_their_own_control_lists():
    blender, base, tuned = two_models("constant", w=0.5)
    control = {"output": [1.0, 2.0]}
    call(blender, base, 4.0, control=control, y="pooled")
    assert [model.calls[0][0] for model in (base, tuned)] == [2.0, 2.0]
    assert [model.calls[0][2] for model in (base, tuned)] == [{"y": "pooled"}] * 2
    assert control == {"output": [1.0, 2.0]}


def test_the_second_model_runs_under_the_other_wrappers_but_not_under_ours():
    blender, base, tuned = two_models("tuned")
    call(blender, base, 4.0)
    assert tuned.calls[0][1]["wrappers"]["apply_model"] == {"other": ["kept"]}


def test_without_a_sampler_there_is_no_progress():
    blender, base, _ = two_models("linear")
    with pytest.raises(RuntimeError, match="use the model with a sampler node"):
        blender(base, torch.zeros(1, 3), torch.tensor([4.0]), transformer_options={})


@pytest.mark.parametrize("clock", ["index", "nemo", "timestep", "sigma", "logsnr"])
@pytest.mark.parametrize("flow", [False, True])
def test_clocks_are_those_of_diffusers(clock, flow):
    scheduler, sampling = (
        (FlowMatchEulerDiscreteScheduler(), Flow())
        if flow
        else (DDIMScheduler(timestep_spacing="trailing"), Diffusion())
    )
    scheduler.set_timesteps(7)
    sigmas = scheduler.sigmas if flow else torch.cat([sampling.sigmas[scheduler.timesteps], torch.zeros(1)])
    ours = SigmaClock(schedule("linear", clock=clock))
    got = [ours.weight(float(sigma), sigmas, sampling) for sigma in sigmas[:-1]]
    assert got == pytest.approx(read_grid(scheduler, clock).progress(clock), abs=1e-6)


def plain_lora(layer, rank=2, alpha=None, **changes):
    torch.manual_seed(0)
    up = torch.randn(layer.weight.shape[0], rank)
    down = torch.randn(rank, layer.weight[0].numel())
    patch = {"strength": 1.0, "weights": (up, down, alpha, None, None, None), "model": 1.0, "offset": None, "f": None}
    patch |= changes
    adapter = SimpleNamespace(name="lora", weights=patch["weights"])
    return (patch["strength"], adapter, patch["model"], patch["offset"], patch["f"]), (up @ down).view_as(layer.weight)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Linear(3, 5), (2, 4, 3)),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 6, 6)),
        (nn.Conv1d(3, 4, 1), (2, 3, 6)),
    ],
)
@torch.no_grad()
def test_an_update_of_the_output_is_one_of_the_weights(layer, shape):
    patch, delta = plain_lora(layer, alpha=6.0, strength=0.5)
    x, model = torch.randn(shape), nn.ModuleDict({"layer": layer})
    lora = LoraLayers({"layer": [factors(patch, "layer.weight", layer)] * 2})
    lora.inject(SimpleNamespace(model=model))
    plain = layer(x)
    with lora.at(0.7):
        guided = layer(x)
    assert torch.equal(layer(x), plain)
    layer.weight += 2 * 0.7 * 0.5 * (6.0 / 2) * delta
    assert torch.allclose(guided, layer(x), atol=1e-5)


@torch.no_grad()
def test_an_update_of_some_rows_leaves_the_others():
    layer, part = nn.Linear(3, 6), nn.Linear(3, 2)
    patch, delta = plain_lora(part, offset=(0, 3, 2), f=lambda up: up.flip(0))
    x = torch.randn(4, 3)
    plain = layer(x)
    guided = factors(patch, "layer.weight", layer).add(layer, x, plain, 1.0)
    layer.weight[3:5] += delta.flip(0)
    assert torch.allclose(guided, layer(x), atol=1e-6)


def test_hooks_are_put_once_and_taken_away_by_their_own_patcher():
    layer = nn.Linear(3, 5)
    lora = LoraLayers({"layer": [Factors(torch.ones(1, 3), torch.ones(5, 1), 1.0)]})
    mine, other = (SimpleNamespace(model=nn.ModuleDict({"layer": layer})) for _ in range(2))
    lora.inject(mine)
    lora.inject(mine)
    lora.eject(other)
    assert len(layer._forward_hooks) == 1
    lora.eject(mine)
    lora.eject(mine)
    assert not layer._forward_hooks


def test_a_lora_whose_layers_do_not_run_is_no_silent_base_model():
    lora = LoraLayers({"layer": [Factors(torch.ones(1, 3), torch.ones(5, 1), 1.0)]})
    blender = Blender(schedule("tuned"), lora=lora)
    with pytest.raises(RuntimeError, match="had no effect"):
        call(blender, Model(10.0), 4.0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"weights": (torch.ones(5, 2), torch.ones(2, 3), None, None, torch.ones(5), None)}, "DoRA"),
        (
            {"weights": (torch.ones(5, 2), torch.ones(2, 4), None, None, None, None)},
            "it is 5 x 4 there, the layer 5 x 3",
        ),
        (
            {"weights": (torch.ones(4, 2), torch.ones(2, 3), *NONE)},
            "it is 4 x 3 there",
        ),
        ({"model": 0.5}, "not a plain LoRA"),
        ({"offset": (1, 0, 2)}, "part of the layer's inputs"),
    ],
)
def test_what_is_no_plain_lora_of_this_layer_is_refused(changes, message):
    layer = nn.Linear(3, 5)
    with pytest.raises(ValueError, match=message):
        factors(plain_lora(layer, **changes)[0], "layer.weight", layer)


def test_a_merge_is_refused():
    with pytest.raises(ValueError, match="this is a merge"):
        factors((1.0, [(torch.ones(5, 3), None)], 0.0, None, None), "layer.weight", nn.Linear(3, 5))


def test_peft_names_become_names_that_comfyui_knows_and_alpha_is_kept():
    known = {"lora_unet_down_blocks_0_attn1_to_q": 1, "transformer.blocks.0.to_out.0": 1, "blocks_native": 1}
    state = {
        "unet.down_blocks.0.attn1.to_q.lora_A.weight": torch.ones(4, 3),
        "base_model.model.blocks.0.to_out.0.lora_A.default.weight": torch.ones(4, 3),
        "base_model.model.blocks.0.to_out.0.lora_B.default.weight": torch.ones(5, 4),
        "blocks_native.lora_up.weight": torch.ones(2, 2),
    }
    named = in_comfy_names(state, known, {"lora_alpha": 8, "alpha_pattern": {"to_q": 2}})
    assert {key: tensor.item() for key, tensor in named.items() if key.endswith("alpha")} == {
        "lora_unet_down_blocks_0_attn1_to_q.alpha": 2.0,
        "transformer.blocks.0.to_out.0.alpha": 8.0,
    }
    assert named.keys() >= {
        "lora_unet_down_blocks_0_attn1_to_q.lora_A.weight",
        "transformer.blocks.0.to_out.0.lora_A.weight",
        "transformer.blocks.0.to_out.0.lora_B.weight",
        "blocks_native.lora_up.weight",
    }


def test_rank_stabilised_scaling_is_kept_and_dora_refused():
    state = {"a.lora_A.weight": torch.ones(4, 3)}
    assert in_comfy_names(state, {"a": 1}, {"lora_alpha": 8, "use_rslora": True})["a.alpha"] == 8 / math.sqrt(4) * 4
    with pytest.raises(ValueError, match="DoRA"):
        in_comfy_names(state, {"a": 1}, {"lora_alpha": 8, "use_dora": True})


def test_a_peft_file_that_hides_its_alpha_is_warned_about(caplog):
    in_comfy_names({"a.lora_A.weight": torch.ones(4, 3)}, {"a": 1}, {})
    assert "does not say its alpha" in caplog.text


def test_widgets_make_schedules():
    assert parse_schedule("power", "p=2", 0.5, "sigma") == schedule("power", p=2, cap=0.5, clock="sigma")
    assert parse_schedule("sigmoid", " k=10, m=0.5 ", 1.0, "index") == schedule("sigmoid", k=10, m=0.5)
    points = [[0, 0], [0.5, 0.1], [1, 0.4]]
    assert parse_schedule("table", "points=0:0 0.5:0.1 1:0.4", 1.0, "index") == schedule("table", points=points)
    assert parse_schedule("linear", "", 1.0, "index") == schedule("linear")
    for parameters in ("p", "p=two", "2"):
        with pytest.raises(ValueError, match="cannot read the parameter"):
            parse_schedule("power", parameters, 1.0, "index")


def test_the_package_needs_none_of_sfumatos_dependencies_but_torch():
    absent = ("diffusers", "transformers", "peft", "accelerate", "kornia", "pydantic", "yaml", "typer", "jinja2")
    script = f"import sys; sys.modules.update(dict.fromkeys({absent})); import integrations.comfyui as c; "
    script += "print(*c.NODE_CLASS_MAPPINGS)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.split() == ["SfumatoBlendLora", "SfumatoBlendModels"], result.stderr
