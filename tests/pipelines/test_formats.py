"""Checkpoints in the formats that people have: loaded like their authors do it, refused before anything is changed."""

import copy
import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from sfumato.pipelines.adapters import (
    WEIGHTS_NAME,
    base_weights,
    denoiser,
    denoiser_name,
    lora_scale,
    save_lora,
    tuned_adapter,
)
from sfumato.pipelines.formats import load_tuned, locate, recognise
from tests import tiny

TARGETS = ["to_q", "to_v", "to_out.0"]


def drawn(family, pipe):
    return tiny.images(pipe, [1], **tiny.call(family, count=1, steps=2))


def noisy_(tensors, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in tensors:
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.3 / tensor.shape[-1] ** 0.5)


def peft_folder(family, folder):
    """An adapter as flow_grpo writes it; returns the images of the pipeline with that PeftModel in it."""
    pipe = tiny.pipeline(family)
    model = get_peft_model(denoiser(pipe), LoraConfig(r=2, lora_alpha=5, target_modules=TARGETS))
    noisy_([p for n, p in model.named_parameters() if "lora_" in n])
    model.save_pretrained(folder)
    fresh = tiny.pipeline(family)
    setattr(fresh, denoiser_name(fresh), PeftModel.from_pretrained(denoiser(fresh), folder))
    return drawn(family, fresh)


@pytest.mark.parametrize("family", ["sd", "sd3", "pixart"])
def test_a_peft_adapter_is_what_its_authors_load(family, tmp_path):
    images = peft_folder(family, tmp_path)
    pipe, base = tiny.pipeline(family), drawn(family, tiny.shared(family))
    assert not torch.equal(images, base)
    assert load_tuned(pipe, tmp_path) is None
    assert tuned_adapter(pipe) == "tuned"
    assert torch.equal(drawn(family, pipe), images)
    with base_weights(pipe):
        assert torch.equal(drawn(family, pipe), base)
    save_lora(pipe, tmp_path / "ours")
    again = tiny.pipeline(family)
    load_tuned(again, tmp_path / "ours")
    assert torch.equal(drawn(family, again), images)


def merged(pipe, part, name, down, up, alpha):
    """The pipeline with W + alpha / r · up down in one layer, by hand."""
    layer = getattr(pipe, part).get_submodule(name)
    with torch.no_grad():
        layer.weight += (alpha / len(down) * up.flatten(1) @ down.flatten(1)).view_as(layer.weight)


KOHYA = {
    "sd": {
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q": (
            "unet",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        ),
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj": (
            "unet",
            "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
        ),
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k": (
            "unet",
            "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
        ),
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (
            "text_encoder",
            "encoder.layers.0.self_attn.q_proj",
        ),
        "lora_te_text_model_encoder_layers_0_self_attn_out_proj": (
            "text_encoder",
            "encoder.layers.0.self_attn.out_proj",
        ),
    },
    "sdxl": {
        "lora_unet_mid_block_attentions_0_transformer_blocks_1_attn2_to_v": (
            "unet",
            "mid_block.attentions.0.transformer_blocks.1.attn2.to_v",
        ),
    },
    "flux": {
        "lora_unet_double_blocks_0_img_attn_proj": ("transformer", "transformer_blocks.0.attn.to_out.0"),
        "lora_unet_single_blocks_0_linear2": ("transformer", "single_transformer_blocks.0.proj_out"),
    },
}


def kohya_file(family, path, alpha=3.0):
    """A file as kohya's scripts write it; returns a pipeline with its change merged into the weights by hand."""
    pipe, state = tiny.pipeline(family), {}
    for seed, (key, (part, name)) in enumerate(KOHYA[family].items()):
        weight = getattr(pipe, part).get_submodule(name).weight
        down, up = torch.zeros(2, weight.shape[1]), torch.zeros(weight.shape[0], 2)
        noisy_([down, up], seed)
        state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(alpha)}
        merged(pipe, part, name, down, up, alpha)
    save_file(state, path)
    return pipe


@pytest.mark.parametrize("family", KOHYA)
def test_a_kohya_file_changes_what_it_says(family, tmp_path):
    path = tmp_path / "kohya.safetensors"
    wanted = drawn(family, kohya_file(family, path))
    pipe, base = tiny.pipeline(family), drawn(family, tiny.shared(family))
    assert load_tuned(pipe, path) is None
    images = drawn(family, pipe)
    torch.testing.assert_close(images, wanted, rtol=0, atol=2e-6)
    assert (images - base).abs().max() > 1e-4
    save_lora(pipe, tmp_path / "ours")
    again = tiny.pipeline(family)
    load_tuned(again, tmp_path / "ours")
    assert torch.equal(drawn(family, again), images)


def test_the_names_of_older_diffusers_are_read(tmp_path):
    pipe = tiny.pipeline("sd", lora=True)
    save_lora(pipe, tmp_path)
    new = load_file(tmp_path / WEIGHTS_NAME)
    names = {"lora_A": "lora.down", "lora_B": "lora.up"}
    old = {key.replace(new_name, names[new_name]): t for key, t in new.items() for new_name in names if new_name in key}
    assert len(old) == len(new) and not old.keys() & new.keys()
    save_file(old, tmp_path / "old.safetensors")
    again = tiny.pipeline("sd")
    load_tuned(again, tmp_path / "old.safetensors")
    with lora_scale(pipe, 0.5):  # the tiny LoRA has alpha = 2 r, of which the old format knows nothing
        torch.testing.assert_close(drawn("sd", again), drawn("sd", pipe), rtol=0, atol=1e-6)


def test_a_second_lora_keeps_the_first_at_work_in_the_text_encoder_too(tmp_path):
    kohya_file("sd", tmp_path / "style.safetensors")
    pipe = tiny.pipeline("sd")
    load_tuned(pipe, tmp_path / "style.safetensors", "style")
    style = drawn("sd", pipe)
    kohya_file("sd", tmp_path / "zero.safetensors", alpha=0.0)
    load_tuned(pipe, tmp_path / "zero.safetensors")
    torch.testing.assert_close(drawn("sd", pipe), style, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A tuned SD pipeline on the disk, its images, and the same denoiser in the ways that people publish it."""
    folder = tmp_path_factory.mktemp("full")
    pipe = tiny.pipeline("sd")
    noisy_([p for n, p in pipe.unet.named_parameters() if "weight" in n])
    pipe.save_pretrained(folder / "pipeline")
    pipe.unet.save_pretrained(folder / "unet-alone")
    pipe.unet.save_pretrained(folder / "repository" / "unet", max_shard_size="40KB")
    pipe.unet.save_pretrained(folder / "variant", variant="fp16")
    (folder / "weights-alone").mkdir()
    shutil.copy(folder / "unet-alone" / "diffusion_pytorch_model.safetensors", folder / "weights-alone")
    return folder, drawn("sd", pipe)


@pytest.mark.parametrize("name", ["pipeline", "unet-alone", "repository", "variant", "weights-alone"])
def test_a_whole_denoiser_takes_the_place_of_the_base(name, full):
    pipe, base = tiny.pipeline("sd"), drawn("sd", tiny.shared("sd"))
    before = pipe.unet
    assert load_tuned(pipe, full[0] / name) is before
    assert torch.equal(drawn("sd", pipe), full[1])
    assert not pipe.unet.training
    pipe.unet = before
    assert torch.equal(drawn("sd", pipe), base)


def test_a_lora_on_the_base_would_be_lost_and_is_refused(full):
    with pytest.raises(ValueError, match="carries LoRAs, which a whole tuned denoiser would not"):
        load_tuned(tiny.shared("sd", lora=True), full[0] / "unet-alone")


def test_the_shards_were_shards(full):
    assert len(recognise(full[0] / "repository").files) > 1


@pytest.mark.parametrize("family", ["sd3", "flux", "pixart"])
def test_a_whole_transformer_is_loaded_with_its_buffers_and_in_the_precision_of_the_base(family, tmp_path):
    tuned = tiny.pipeline(family)
    noisy_([p for n, p in denoiser(tuned).named_parameters() if "attn" in n and "weight" in n])
    denoiser(tuned).save_pretrained(tmp_path)
    pipe = tiny.pipeline(family)
    load_tuned(pipe, tmp_path)
    assert torch.equal(drawn(family, pipe), drawn(family, tuned))
    half = tiny.pipeline(family)
    denoiser(half).to(torch.bfloat16)
    wanted = copy.deepcopy(denoiser(tuned)).to(torch.bfloat16).state_dict()
    load_tuned(half, tmp_path)
    found = denoiser(half).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) and found[key].dtype == wanted[key].dtype for key in wanted)


def refused(family, path, message, error=ValueError):
    pipe = tiny.shared(family)
    before, modules = tiny.footprint(pipe), [type(module) for module in denoiser(pipe).modules()]
    with pytest.raises(error, match=message):
        load_tuned(pipe, path)
    assert tiny.footprint(pipe) == before
    assert [type(module) for module in denoiser(pipe).modules()] == modules
    assert not hasattr(getattr(pipe, "text_encoder", None), "peft_config")


def test_what_was_made_for_another_model_is_refused_and_nothing_is_changed(full, tmp_path):
    peft_folder("sd3", tmp_path / "peft")
    refused("sd", tmp_path / "peft", "made for another model: transformer_blocks.* no such layer")
    kohya_file("sd", tmp_path / "kohya.safetensors")
    refused("sdxl", tmp_path / "kohya.safetensors", "made for another model: .* inputs in the file")
    refused("sd3", tmp_path / "kohya.safetensors", "no weights for the transformer .* it has: lora")
    refused("pixart", tmp_path / "kohya.safetensors", "PixArtSigmaPipeline cannot read")
    refused("sdxl", full[0] / "weights-alone", "made for another model: .*add_embedding.* is None in the file")
    refused("flux", full[0] / "unet-alone", "describes a UNet2DConditionModel, the pipeline's .* FluxTransformer")
    refused("flux", full[0] / "weights-alone", "names its weights differently .*from_single_file")


def test_a_text_encoder_that_does_not_fit_is_refused_and_nothing_is_left_behind(tmp_path):
    kohya_file("sd", tmp_path / "kohya.safetensors")
    state = load_file(tmp_path / "kohya.safetensors")
    wide = next(key for key in state if key.startswith("lora_te_") and "down" in key)
    save_file({**state, wide: torch.zeros(2, 77)}, tmp_path / "kohya.safetensors")
    refused("sd", tmp_path / "kohya.safetensors", "made for another model: .*self_attn.* 77 inputs")


def test_another_prediction_type_or_latent_scale_is_refused(full, tmp_path):
    for name, key, value in (
        ("scheduler/scheduler_config.json", "prediction_type", "v_prediction"),
        ("vae/config.json", "scaling_factor", 0.5),
    ):
        folder = tmp_path / key
        shutil.copytree(full[0] / "pipeline", folder)
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**config, key: value}))
        refused("sd", folder, f"{key} = {value}, the pipeline .* cannot be mixed")


def damaged(folder, full):
    """Broken checkpoints and what is said of them."""
    peft_folder("sd", folder / "peft")
    yield "", folder / "peft" / "adapter_config.json", b'{"peft_type": "LORA"', "adapter_config.json is damaged"
    yield "", folder / "peft" / "adapter_model.safetensors", None, "damaged or not a safetensors file"
    shutil.copytree(full / "unet-alone", folder / "unet")
    yield "", folder / "unet" / "diffusion_pytorch_model.safetensors", None, "damaged or not a safetensors file"
    yield "", folder / "unet" / "config.json", b"[1]", "config.json is damaged"
    shutil.copytree(full / "repository", folder / "shards")
    yield "gone", next((folder / "shards" / "unet").glob("*.safetensors")), None, "is incomplete: it has"


def test_a_damaged_checkpoint_is_refused(full, tmp_path):
    for how, path, content, message in damaged(tmp_path, full[0]):
        whole = path.read_bytes()
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(content if content is not None else whole[:-10])
        folder = path.parent.parent if path.parent.parent.name == "shards" else path.parent
        refused("sd", folder, message)
        path.write_bytes(whole)


def test_a_peft_adapter_that_disagrees_with_its_configuration_is_refused(tmp_path):
    peft_folder("sd", tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for change, message in (
        ({"target_modules": ["to_q"]}, "disagree about the layers they adapt, for example .*to_"),
        ({"bias": "all"}, "cannot be switched off"),
        ({"peft_type": "LOHA"}, "is a .*LOHA adapter"),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **change}))
        refused("sd", tmp_path, message)


@pytest.mark.parametrize("name", ["model.ckpt", "pytorch_lora_weights.bin", "unet/diffusion_pytorch_model.bin"])
def test_pickles_are_refused_by_name_and_never_opened(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refused("sd", tmp_path, f"pickles .*{name}.* reads none")
    refused("sd", path, "reads none")


def test_a_folder_must_leave_no_doubt(tmp_path):
    refused("sd", tmp_path, "holds no LoRA, no unet")
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    refused("sd", tmp_path, "several checkpoints .a.safetensors, b.safetensors.: give the path of one")
    refused("sd", tmp_path / "c.safetensors", "no checkpoint at", FileNotFoundError)


def test_a_name_that_is_taken_is_refused(tmp_path):
    peft_folder("sd", tmp_path)
    pipe = tiny.pipeline("sd")
    load_tuned(pipe, tmp_path)
    images = drawn("sd", pipe)
    with pytest.raises(ValueError, match="has an adapter 'tuned' already"):
        load_tuned(pipe, tmp_path)
    assert torch.equal(drawn("sd", pipe), images)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub of one model with these files; `asked` lists what was downloaded of it."""
    asked = []

    def make(names):
        def download(repository, allow_patterns=None, local_files_only=False):
            assert repository == "owner/model" and not local_files_only
            asked[:] = allow_patterns
            return str(tmp_path)

        monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda self, repository: names)
        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        return asked

    return make


def test_only_what_is_needed_is_downloaded(hub, tmp_path):
    asked = hub(
        ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/big.safetensors"]
    )
    assert locate("owner/model") == tmp_path
    assert "unet/diffusion_pytorch_model.safetensors" in asked and "unet/config.json" in asked
    assert not any("big" in name or "*" in name for name in asked)
    asked = hub(["a/lora/adapter_model.safetensors", "a/lora/adapter_config.json", "b.safetensors"])
    assert locate("owner/model/a/lora") == tmp_path / "a" / "lora"
    assert {"a/lora/adapter_model.safetensors", "a/lora/adapter_config.json"} <= set(asked)
    assert "b.safetensors" not in asked
    assert locate("owner/model/b.safetensors") == tmp_path / "b.safetensors"
    assert asked[0] == "b.safetensors"
    asked = hub(["sfumato.json", "pytorch_lora_weights.safetensors", "README.md"])
    locate("owner/model")
    assert set(asked) == {"*.json", "*.safetensors"}
    hub(["unet/diffusion_pytorch_model.bin"])
    with pytest.raises(ValueError, match="owner/model has its weights in pickles"):
        locate("owner/model")


def test_what_is_nowhere_is_said(tmp_path, monkeypatch):
    assert locate(tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match="there is no file or folder '/nonexistent'"):
        locate("/nonexistent")
    with pytest.raises(FileNotFoundError, match=r"'owner/none' here, and it cannot be had from the hub: .*offline"):
        locate("owner/none")


def test_a_diffusers_lora_needs_no_folder(tmp_path):
    pipe = tiny.pipeline("sd", lora=True)
    save_lora(pipe, tmp_path)
    shutil.copy(tmp_path / WEIGHTS_NAME, tmp_path / "renamed.safetensors")
    again = tiny.pipeline("sd")
    load_tuned(again, tmp_path / "renamed.safetensors")
    assert torch.equal(drawn("sd", again), drawn("sd", pipe))
