"""LoRA adapters: added without side effects, saved and read back exactly, refused before anything is changed."""

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sfumato.pipelines.adapters import (
    METADATA_KEY,
    WEIGHTS_NAME,
    adapter_names,
    add_lora,
    base_weights,
    denoiser,
    load_lora,
    lora_scale,
    save_lora,
    tuned_adapter,
    unload_lora,
)
from tests import tiny


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a LoRA (alpha = 2 r) for each family, and the images it makes."""
    folders = {}
    for family in tiny.FAMILIES:
        pipe = tiny.pipeline(family, lora=True)
        folder = tmp_path_factory.mktemp(family)
        save_lora(pipe, folder)
        folders[family] = folder, tiny.images(pipe, [1, 2], **tiny.call(family))
    return folders


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_diffusers_reads_a_saved_lora_back_exactly(family, saved):
    folder, images = saved[family]
    pipe = tiny.pipeline(family)
    assert not torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), images)
    pipe.load_lora_weights(folder)
    assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), images)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_our_loader_reads_a_saved_lora_back_exactly(family, saved):
    folder, images = saved[family]
    for path in (folder, folder / WEIGHTS_NAME, str(folder))[: 3 if family == "sd" else 1]:
        pipe = tiny.pipeline(family)
        state = torch.get_rng_state()
        assert load_lora(pipe, path, "tuned") == "tuned" == tuned_adapter(pipe)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), images)


@pytest.mark.parametrize("family", ["sd", "pixart"])
def test_a_lora_is_unloaded_without_a_trace(family, saved):
    folder, images = saved[family]
    pipe = tiny.pipeline(family)
    before = tiny.images(pipe, [1, 2], **tiny.call(family))
    for _ in range(2):
        load_lora(pipe, folder, "tuned")
        assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), images)
        unload_lora(pipe, "tuned")
        assert adapter_names(denoiser(pipe)) == []
        assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), before)


def refused(family, path, error, message):
    pipe = tiny.shared(family)
    before, modules = tiny.footprint(pipe), [type(module) for module in denoiser(pipe).modules()]
    with pytest.raises(error, match=message):
        load_lora(pipe, path)
    assert tiny.footprint(pipe) == before
    assert [type(module) for module in denoiser(pipe).modules()] == modules


@pytest.mark.parametrize(
    ("family", "other", "message"),
    [
        ("sd", "sd3", "no weights for the unet of this StableDiffusionPipeline; it has: transformer"),
        ("flux", "sd", "no weights for the transformer of this FluxPipeline; it has: unet"),
        ("sd", "sdxl", "made for another model"),
        ("sdxl", "sd", "made for another model"),
        ("sd3", "flux", "made for another model"),
        ("pixart", "flux", "made for another model"),
    ],
)
def test_a_lora_of_another_architecture_is_refused(family, other, message, saved):
    refused(family, saved[other][0], ValueError, message)


@pytest.mark.parametrize("family", ["sd", "pixart"])
@settings(max_examples=5)
@given(part=st.floats(0, 0.999))
def test_a_truncated_lora_is_refused(family, part, saved, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / WEIGHTS_NAME
    whole = (saved[family][0] / WEIGHTS_NAME).read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    refused(family, path, ValueError, "damaged or not a safetensors file")


@pytest.mark.parametrize("family", ["sd", "pixart"])
def test_a_missing_lora_is_refused(family, tmp_path):
    refused(family, tmp_path, FileNotFoundError, f"no LoRA at .*{WEIGHTS_NAME}")
    refused(family, tmp_path / "other.safetensors", FileNotFoundError, "no LoRA at .*other.safetensors")


def test_a_lora_that_does_not_say_its_alpha_is_refused_where_nobody_could_guess_it(saved, tmp_path):
    save_file(load_file(saved["pixart"][0] / WEIGHTS_NAME), tmp_path / WEIGHTS_NAME)
    refused("pixart", tmp_path, ValueError, "does not say how its LoRA was made")


@pytest.mark.parametrize("family", ["sd", "pixart"])
def test_a_name_that_is_taken_is_refused(family, saved):
    pipe = tiny.shared(family, lora=True)
    before = tiny.footprint(pipe)
    for act in (lambda: load_lora(pipe, saved[family][0]), lambda: add_lora(pipe)):
        with pytest.raises(ValueError, match="has an adapter 'default' already"):
            act()
    assert tiny.footprint(pipe) == before


def test_the_file_says_its_alpha_depends_on_its_content_alone_and_can_be_read_by_all(saved, tmp_path):
    path = saved["sd"][0] / WEIGHTS_NAME
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
    assert (header["unet.r"], header["unet.lora_alpha"]) == (2, 4.0)
    again = save_lora(tiny.shared("sd", lora=True), tmp_path)
    assert again.read_bytes() == path.read_bytes()
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [p.name for p in path.parent.iterdir()] == [WEIGHTS_NAME]


def test_a_failed_save_leaves_the_earlier_file(saved, tmp_path, monkeypatch):
    shutil.copy(saved["sd"][0] / WEIGHTS_NAME, tmp_path)

    def full(path):
        raise OSError("no space left on device")

    monkeypatch.setattr("sfumato.runs.flush", full)
    with pytest.raises(OSError, match="no space"):
        save_lora(tiny.shared("sd", lora=True), tmp_path)
    assert (tmp_path / WEIGHTS_NAME).read_bytes() == (saved["sd"][0] / WEIGHTS_NAME).read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == [WEIGHTS_NAME]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_adding_a_lora_changes_no_image_and_trains_nothing_else(family):
    pipe = tiny.pipeline(family)
    before = tiny.images(pipe, [1, 2], **tiny.call(family))
    state = torch.get_rng_state()
    parameters = add_lora(pipe, rank=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), before)
    found = [
        name
        for part, module in pipe.components.items()
        if isinstance(module, torch.nn.Module)
        for name, parameter in module.named_parameters(part)
        if parameter.requires_grad
    ]
    assert len(found) == len(parameters) > 0
    assert all(".lora_" in name for name in found)


def test_the_seed_decides_the_weights():
    first, again, other = (add_lora(tiny.pipeline("sd"), seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_targets_may_be_convolutions_and_must_exist():
    pipe = tiny.pipeline("sd")
    add_lora(pipe, targets=["to_q", "conv1", "absent"])
    kinds = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, p in pipe.unet.named_parameters() if p.requires_grad}
    assert kinds == {"to_q", "conv1"}
    pipe = tiny.pipeline("sd")
    before = tiny.footprint(pipe)
    with pytest.raises(ValueError, match="no layer named absent"):
        add_lora(pipe, targets=["absent"])
    assert tiny.footprint(pipe) == before


@pytest.mark.parametrize("family", ["sd", "pixart"])
def test_a_second_lora_leaves_the_first_at_work_and_frozen(family, saved):
    pipe = tiny.pipeline(family, lora=True)
    with_first = tiny.images(pipe, [1, 2], **tiny.call(family))
    parameters = add_lora(pipe, rank=2, adapter="second")
    assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), with_first)
    trained = [name for name, p in denoiser(pipe).named_parameters() if p.requires_grad]
    assert len(trained) == len(parameters)
    assert all(".second." in name for name in trained)
    load_lora(pipe, saved[family][0], "third")
    with base_weights(pipe, "third"):
        assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), with_first)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_scale_0_is_base_and_scale_1_is_tuned(family):
    bare, pipe = tiny.shared(family), tiny.pipeline(family, lora=True)
    base, tuned = (tiny.images(p, [1, 2], **tiny.call(family)) for p in (bare, pipe))
    before = tiny.footprint(pipe)
    with base_weights(pipe):
        assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), base)
    with lora_scale(pipe, 0.0):
        assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), base)
    with lora_scale(pipe, 1.0):
        assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), tuned)
    with lora_scale(pipe, 0.5):
        half = tiny.images(pipe, [1, 2], **tiny.call(family))
    assert not torch.equal(half, base) and not torch.equal(half, tuned)
    assert tiny.footprint(pipe)["scaling"] == before["scaling"]
    assert tiny.footprint(pipe)["adapters"] == before["adapters"]
    if hasattr(pipe, "set_adapters"):
        pipe.set_adapters(["default"], [0.5])
        assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), half)


@pytest.mark.parametrize("family", ["sd", "pixart"])
@pytest.mark.parametrize("mode", [base_weights, lambda pipe: lora_scale(pipe, 0.3)])
def test_nothing_is_left_behind(family, mode):
    pipe = tiny.pipeline(family, lora=True)
    denoiser(pipe).requires_grad_(False)
    before = tiny.footprint(pipe)
    with mode(pipe):
        assert tiny.footprint(pipe) != before
    assert tiny.footprint(pipe) == before
    with pytest.raises(ZeroDivisionError), mode(pipe):
        raise ZeroDivisionError
    assert tiny.footprint(pipe) == before


def test_what_cannot_be_switched_off_exactly_is_refused():
    pipe = tiny.pipeline("sd", lora=True)
    pipe.unet.peft_config["default"].bias = "all"
    with pytest.raises(ValueError, match="changes biases or whole modules"), base_weights(pipe):
        pass
    with pytest.raises(TypeError, match="neither a transformer nor a unet"):
        denoiser(object())
