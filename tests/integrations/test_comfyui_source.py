"""The ComfyUI nodes in a real ComfyUI: its loader of custom nodes, ModelPatcher, LoRA loader, UNet and samplers.

Run by `make comfyui COMFYUI=/path/to/ComfyUI`. What guidance should give is computed beside it, with models into which
ComfyUI itself merged the LoRA and a sampling loop written out here.
"""

import copy
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

COMFYUI = os.environ.get("COMFYUI")
pytestmark = pytest.mark.skipif(not COMFYUI, reason="needs ComfyUI's source: make comfyui COMFYUI=/path/to/ComfyUI")
PACKAGE = Path(__file__).parents[2] / "integrations" / "comfyui"
LAYERS = {  # in diffusers' names: output and input width, kernel
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (32, 32, ()),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0": (32, 32, ()),
    "down_blocks.0.attentions.0.proj_in": (32, 32, (1, 1)),
    "up_blocks.0.resnets.0.conv1": (64, 128, (3, 3)),
}
STEPS = 5


@pytest.fixture(scope="module")
def comfy():
    sys.path.insert(0, COMFYUI)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy.controlnet
    import comfy.model_base
    import comfy.model_patcher
    import comfy.samplers
    import comfy.sd
    import comfy.supported_models

    yield comfy
    sys.path.remove(COMFYUI)


@pytest.fixture(scope="module")
def nodes(comfy):
    """The package as ComfyUI loads a folder of custom_nodes."""
    spec = importlib.util.spec_from_file_location("custom_nodes_x_sfumato", PACKAGE / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.NODE_CLASS_MAPPINGS


def unet(comfy, seed=0, kind="EPS", dtype=torch.float32, manual_cast=None, **changes):
    """A MODEL: a tiny Stable Diffusion 1 with random weights."""
    config = {"image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1]}
    config |= {"channel_mult": [1, 2], "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1]}
    config |= {"transformer_depth_middle": 1, "context_dim": 16, "use_spatial_transformer": True, "legacy": False}
    config |= {"use_linear_in_transformer": False, **changes}
    settings = comfy.supported_models.SD15(config)
    settings.set_inference_dtype(dtype, manual_cast)
    model = comfy.model_base.BaseModel(settings, getattr(comfy.model_base.ModelType, kind), device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.diffusion_model.parameters():
        parameter.data = (0.1 * torch.randn(parameter.shape, generator=generator)).to(dtype)
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def lora_file(path, alpha=8.0, kohya=False, seed=1):
    """A LoRA of rank 4, as sfumato and diffusers write it, or in kohya's names, which ComfyUI reads by itself."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, (rows, columns, kernel) in LAYERS.items():
        down = torch.randn(4, columns, *kernel, generator=generator) / 3
        up = torch.randn(rows, 4, *(1 for _ in kernel), generator=generator) / 3
        if kohya:
            prefix = f"lora_unet_{name.replace('.', '_')}"
            state |= {f"{prefix}.lora_down.weight": down, f"{prefix}.lora_up.weight": up}
            state[f"{prefix}.alpha"] = torch.tensor(alpha)
        else:
            state |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    header = {} if kohya else {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": alpha})}
    save_file(state, path, header)
    return str(path)


@pytest.fixture
def loras(comfy, tmp_path, monkeypatch):
    """A loras folder of ComfyUI with one LoRA in both formats, and another to stack."""
    import folder_paths

    lora_file(tmp_path / "peft.safetensors")
    lora_file(tmp_path / "kohya.safetensors", kohya=True)
    lora_file(tmp_path / "style.safetensors", kohya=True, seed=2)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def with_lora(comfy, model, path, strength=1.0):
    """The MODEL that ComfyUI's own LoRA node gives."""
    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    return comfy.sd.load_lora_for_models(model, None, state, strength, 0)[0]


def blend(nodes, model, tuned, schedule="constant", parameters="w=0.5", cap=1.0, clock="index", blend="predictions"):
    """Either node: `tuned` is a MODEL, or the name of a LoRA file."""
    if isinstance(tuned, str):
        return nodes["SfumatoBlendLora"]().apply(model, tuned, 1.0, schedule, parameters, cap, clock, blend)[0]
    return nodes["SfumatoBlendModels"]().apply(model, tuned, schedule, parameters, cap, clock, blend)[0]


def conds(control=None):
    generator = torch.Generator().manual_seed(3)
    more = {} if control is None else {"control": control, "control_apply_to_uncond": True}
    return [[[torch.randn(1, 7, 16, generator=generator), dict(more)]] for _ in range(2)]


def noise():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))


@torch.inference_mode()
def sample(comfy, model, sampler="euler", scheduler="normal", control=None, cfg=3.0):
    """Latents [2, 4, 8, 8], by ComfyUI's KSampler."""
    runner = comfy.samplers.KSampler(model, STEPS, "cpu", sampler, scheduler, 1.0, model.model_options)
    positive, negative = conds(control)
    start = torch.zeros(2, 4, 8, 8)
    return runner.sample(noise(), positive, negative, cfg, latent_image=start, disable_pbar=True, seed=0)


@pytest.fixture
def forwards(comfy, monkeypatch):
    """Counts the runs of the network."""
    calls = []
    forward = comfy.model_base.UNetModel.forward

    def counted(self, x, *args, **kwargs):
        calls.append(len(x))
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(comfy.model_base.UNetModel, "forward", counted)
    return calls


def merged(comfy, model, path=None, strength=1.0):
    """A BaseModel of its own, with the LoRA merged by ComfyUI."""
    own = with_lora(comfy, model, path, strength) if path else model.clone()
    own.patch_model(torch.device("cpu"))
    twin = copy.deepcopy(own.model)
    own.unpatch_model(torch.device("cpu"))
    return twin


@torch.inference_mode()
def euler_by_hand(comfy, base, tuned, weights, flow=False, cfg=3.0):
    """Euler's method with classifier-free guidance over blended denoised images."""
    patcher = comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))
    sigmas = comfy.samplers.KSampler(patcher, STEPS, "cpu", "euler", "normal").sigmas
    (positive, _), (negative, _) = (cond[0] for cond in conds())
    x = noise() * (1.0 if flow else (1 + sigmas[0] ** 2).sqrt())
    for here, there, g in zip(sigmas, sigmas[1:], weights, strict=False):
        t = torch.full((2,), float(here))
        good, bad = (
            (1 - g) * base.apply_model(x, t, c_crossattn=context.repeat(2, 1, 1))
            + g * tuned.apply_model(x, t, c_crossattn=context.repeat(2, 1, 1))
            for context in (positive, negative)
        )
        denoised = bad + cfg * (good - bad)
        x = x + (x - denoised) / here * (there - here)
    return base.process_latent_out(x)


def close(a, b):
    return torch.allclose(a, b, atol=2e-4 * float(b.abs().max()))


def far(a, b):
    return (a - b).abs().max() > 0.01 * b.abs().max()


SAMPLERS = ["euler", "heun", "dpm_2", "dpmpp_2m", "dpmpp_2s_ancestral", "dpmpp_sde", "uni_pc", "lcm", "dpm_adaptive"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_g_0_is_the_base_and_g_1_the_lora_as_comfyui_loads_it(comfy, nodes, loras, sampler):
    model = unet(comfy)
    base = sample(comfy, model, sampler)
    tuned = sample(comfy, with_lora(comfy, model, loras / "kohya.safetensors"), sampler)
    assert far(tuned, base)
    for name in ("peft.safetensors", "kohya.safetensors"):
        assert torch.equal(sample(comfy, blend(nodes, model, name, "base", ""), sampler), base)
        assert close(sample(comfy, blend(nodes, model, name, "tuned", ""), sampler), tuned)
    assert torch.equal(sample(comfy, model, sampler), base), "the MODEL that was blended has changed"


def test_a_schedule_is_the_mix_computed_by_hand(comfy, nodes, loras):
    model = unet(comfy)
    by_hand = euler_by_hand(
        comfy, merged(comfy, model), merged(comfy, model, loras / "kohya.safetensors"), [0, 1 / 16, 1 / 4, 9 / 16, 1]
    )
    assert close(sample(comfy, blend(nodes, model, "peft.safetensors", "power", "p=2")), by_hand)


@pytest.mark.parametrize("strength, g", [(1.0, 0.5), (2.0, 1.5)])
def test_weights_annealed_to_a_constant_are_a_lora_of_that_strength(comfy, nodes, loras, strength, g):
    model = unet(comfy)
    tuned = with_lora(comfy, model, loras / "kohya.safetensors", strength)
    expected = sample(comfy, with_lora(comfy, model, loras / "kohya.safetensors", strength * g))
    assert close(sample(comfy, blend(nodes, model, tuned, parameters=f"w={g}", blend="weights")), expected)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"schedule": "linear", "parameters": ""}, 2 * STEPS - 2),
        ({"schedule": "step", "parameters": "f=0.5"}, STEPS),
        ({"parameters": "w=0.5"}, 2 * STEPS),
        ({"schedule": "linear", "parameters": "", "blend": "weights"}, STEPS),
    ],
)
def test_a_model_of_no_weight_is_not_run(comfy, nodes, loras, forwards, options, expected):
    sample(comfy, blend(nodes, unet(comfy), "peft.safetensors", **options))
    assert forwards == [4] * expected, "one batch of conditional and unconditional rows a forward"


def test_heun_is_guided_at_both_calls_of_a_step(comfy, nodes, loras, forwards):
    sample(comfy, blend(nodes, unet(comfy), "peft.safetensors"), "heun")
    assert len(forwards) == 2 * (2 * STEPS - 1)


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION"])
def test_two_checkpoints_are_the_mix_computed_by_hand(comfy, nodes, loras, kind):
    base, tuned = unet(comfy), with_lora(comfy, unet(comfy, seed=9, kind=kind), loras / "style.safetensors")
    expected = euler_by_hand(comfy, merged(comfy, base), merged(comfy, tuned), [0, 0.25, 0.5, 0.75, 1])
    guided = blend(nodes, base, tuned, "linear", "")
    assert close(sample(comfy, guided), expected)
    assert close(sample(comfy, guided.clone()), expected)
    with pytest.raises(ValueError, match="blend their predictions"):
        blend(nodes, base, tuned, blend="weights")


def test_flow_matching_and_a_physical_clock(comfy, nodes):
    base, tuned = unet(comfy, kind="FLOW"), unet(comfy, seed=9, kind="FLOW")
    sigmas = comfy.samplers.KSampler(base, STEPS, "cpu", "euler", "normal").sigmas
    weights = [*(1 - sigmas[:-2]), 1.0]
    by_hand = euler_by_hand(comfy, merged(comfy, base), merged(comfy, tuned), weights, flow=True)
    assert close(sample(comfy, blend(nodes, base, tuned, "linear", "", clock="sigma")), by_hand)


def test_a_controlnet_acts_in_both_models(comfy, nodes, loras):
    class Control(comfy.controlnet.ControlBase):
        def get_control(self, x, t, cond, batched, options):
            return {"output": [torch.full((len(x), 64, 4, 4), 3.0)], "middle": [torch.full((len(x), 64, 4, 4), 3.0)]}

        def inference_memory_requirements(self, dtype):
            return 0

    model = unet(comfy)
    twice = with_lora(comfy, model, loras / "kohya.safetensors", 1e-6)
    plain = sample(comfy, model, control=Control())
    assert far(plain, sample(comfy, model))
    assert close(sample(comfy, blend(nodes, model, twice), control=Control()), plain)


def test_a_lora_that_the_base_has_stays_on_in_both(comfy, nodes, loras):
    model = unet(comfy)
    styled = with_lora(comfy, model, loras / "style.safetensors")
    both = with_lora(comfy, styled, loras / "kohya.safetensors")
    assert torch.equal(sample(comfy, blend(nodes, styled, "peft.safetensors", "base", "")), sample(comfy, styled))
    assert close(sample(comfy, blend(nodes, styled, both, "tuned", "")), sample(comfy, both))


def test_a_lora_that_is_loaded_after_the_node_acts_in_both(comfy, nodes, loras):
    model = unet(comfy)
    later = with_lora(comfy, blend(nodes, model, "peft.safetensors", "base", ""), loras / "style.safetensors")
    assert close(sample(comfy, later), sample(comfy, with_lora(comfy, model, loras / "style.safetensors")))


def test_models_take_turns_on_the_same_weights(comfy, nodes, loras):
    model = unet(comfy)
    makers = [
        lambda: model.clone(),
        lambda: blend(nodes, model, "peft.safetensors"),
        lambda: with_lora(comfy, model, loras / "kohya.safetensors"),
        lambda: blend(nodes, model, "style.safetensors", blend="weights"),
    ]
    alone = [sample(comfy, maker()) for maker in makers]
    kept = [maker() for maker in makers]
    for index in (1, 0, 1, 2, 3, 1, 2, 0, 3):
        assert close(sample(comfy, kept[index]), alone[index]), index
        assert close(sample(comfy, kept[index].clone()), alone[index]), index
    del kept
    assert torch.equal(sample(comfy, model), alone[0])
    assert not any(layer._forward_hooks for layer in model.model.modules())


def test_chained_nodes_blend_the_blend(comfy, nodes, loras):
    model = unet(comfy)
    inner = blend(nodes, model, "peft.safetensors", "tuned", "")
    outer = blend(nodes, inner, "style.safetensors", "tuned", "")
    both = with_lora(comfy, with_lora(comfy, model, loras / "kohya.safetensors"), loras / "style.safetensors")
    assert close(sample(comfy, outer), sample(comfy, both))


def test_a_cache_that_mixes_up_the_models_is_refused_and_one_around_them_is_not(comfy, nodes, loras):
    from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode

    model = unet(comfy)
    cached = {  # a threshold of 0 reuses nothing
        (node, kind): node.execute(blend(nodes, model, "peft.safetensors", blend=kind), 0.0, 0.0, 1.0, False).args[0]
        for node in (EasyCacheNode, LazyCacheNode)
        for kind in ("predictions", "weights")
    }
    with pytest.raises(RuntimeError, match="use LazyCache, or blend weights"):
        sample(comfy, cached.pop((EasyCacheNode, "predictions")))
    for (_, kind), guided in cached.items():
        assert close(sample(comfy, guided), sample(comfy, blend(nodes, model, "peft.safetensors", blend=kind)))


@pytest.mark.parametrize("blend_in", ["predictions", "weights"])
def test_low_precision_and_offloaded_weights_take_the_lora_unrounded(comfy, nodes, loras, blend_in):
    """Stored in bfloat16, used in float32, patched by another LoRA, and streamed to the device layer by layer."""
    exact, coarse = unet(comfy), unet(comfy, dtype=torch.bfloat16, manual_cast=torch.float32)
    for mine, its in zip(exact.model.parameters(), coarse.model.parameters(), strict=True):
        mine.data = its.data.float()
    expected = sample(comfy, blend(nodes, exact, "peft.safetensors", blend=blend_in))
    patched = with_lora(comfy, coarse, loras / "style.safetensors", 0.0)
    guided = blend(nodes, patched, "peft.safetensors", blend=blend_in)
    comfy.model_management.load_models_gpu([guided])
    guided.partially_unload(torch.device("cpu"), guided.model_size())
    assert guided.model.lowvram_patch_counter > 0
    assert close(sample(comfy, guided), expected)


@pytest.mark.parametrize("changes, message", [
    ({"kind": "FLOW"}, "add noise differently"),
    ({"context_dim": 24}, "different architectures"),
])  # fmt: skip
def test_models_that_do_not_match_are_refused(comfy, nodes, changes, message):
    with pytest.raises(ValueError, match=message):
        blend(nodes, unet(comfy), unet(comfy, **changes))


def test_a_tuned_model_that_lacks_the_bases_lora_or_is_the_base_is_refused(comfy, nodes, loras):
    model = unet(comfy)
    styled = with_lora(comfy, model, loras / "style.safetensors")
    with pytest.raises(ValueError, match="lacks some of the base's"):
        blend(nodes, styled, model)
    with pytest.raises(ValueError, match="the same weights"):
        blend(nodes, model, model.clone())


def test_a_merge_and_a_lora_for_another_model_are_refused(comfy, nodes, loras):
    model, other = unet(comfy), unet(comfy, seed=9)
    merge = model.clone()
    merge.add_patches(other.get_key_patches("diffusion_model."), 0.5, 0.5)
    with pytest.raises(ValueError, match="this is a merge"):
        blend(nodes, model, merge)
    save_file({"unet.no.such.layer.lora_A.weight": torch.ones(2, 2)}, loras / "foreign.safetensors")
    with pytest.raises(ValueError, match="no weights for this BaseModel"):
        blend(nodes, model, "foreign.safetensors")


def test_the_nodes_declare_what_they_take(comfy, nodes, loras):
    for node in nodes.values():
        required = node.INPUT_TYPES()["required"]
        assert list(required)[-5:] == ["schedule", "parameters", "cap", "clock", "blend"]
        assert node.RETURN_TYPES == ("MODEL",) and hasattr(node(), node.FUNCTION)
        assert node.VALIDATE_INPUTS("power", "p=2", 1.0, "index") is True
        assert "takes p" in node.VALIDATE_INPUTS("power", "", 1.0, "index")
    names = nodes["SfumatoBlendLora"].INPUT_TYPES()["required"]["lora_name"][0]
    assert sorted(names) == ["kohya.safetensors", "peft.safetensors", "style.safetensors"]
