"""Full fine-tuning: all weights of the denoiser are trained, and the base is the copy that was taken before."""

import pytest
import torch
from safetensors.torch import load_file

from sfumato.config import parse_recipe
from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.formats import load_tuned
from sfumato.pipelines.rollout import replay, rollout
from sfumato.trained import weights_hash, weights_in
from sfumato.training.batches import images_of_update
from sfumato.training.tuned import check_weights
from tests import tiny
from tests.training.common import (
    PROMPTS,
    SAMPLING,
    assert_all_close,
    brightness,
    captured_gradients,
    make_trainer,
    sample,
    settings,
)

FULL = {"lora": None, "lr": 1e-3}
FILE = "diffusion_pytorch_model.safetensors"


def weights(pipe):
    return [parameter.detach().clone() for parameter in denoiser(pipe).parameters()]


def test_updates_are_those_of_adamw_on_the_whole_denoiser(tmp_path):
    """DRaFT+ with AdamW, both written out; in the second update base and tuned differ, so that the penalty counts."""
    pipe = tiny.pipeline("sd")
    coefficient, lr, decay, (b1, b2) = 50.0, 1e-3, 0.1, (0.9, 0.999)
    make_trainer(
        tmp_path,
        pipe=pipe,
        lora=None,
        lr=lr,
        steps=2,
        weight_decay=decay,
        max_grad_norm=1e6,
        regularizers={"kl": {"coefficient": coefficient}},
    ).run()
    ours, base = tiny.pipeline("sd"), tiny.pipeline("sd")
    own = list(ours.unet.requires_grad_(True).parameters())
    m, v = ([torch.zeros_like(p) for p in own] for _ in range(2))
    for update in (1, 2):
        prompts, seeds = images_of_update(PROMPTS, 2, 0, update)
        drawn = rollout(ours, prompt=prompts, seeds=seeds, last_steps=1, record=True, **SAMPLING["sd"].call())
        difference = drawn.steps[-1].prediction - replay(base, drawn, -1).prediction
        loss = coefficient * difference.square().mean() - brightness(drawn.images, prompts).mean()
        gradients = torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            for p, g, mean, square in zip(own, gradients, m, v, strict=True):
                mean.copy_(b1 * mean + (1 - b1) * g)
                square.copy_(b2 * square + (1 - b2) * g**2)
                step = mean / (1 - b1**update) / ((square / (1 - b2**update)).sqrt() + 1e-8)
                p.copy_(p * (1 - lr * decay) - lr * step)
    found, wanted = (torch.cat([w.flatten() for w in weights(each)]) for each in (pipe, ours))
    close = torch.isclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert close.float().mean() > 0.999  # AdamW divides by gradients: of those near 0 it sees the rounding
    moved = [(a - b).abs().max() for a, b in zip(weights(pipe), weights(base), strict=True)]
    assert sum(float(change) > 1e-3 for change in moved) > len(moved) / 2


def test_the_base_is_what_it_was_and_the_tuned_model_comes_back(tmp_path):
    pipe = tiny.pipeline("sd")
    trainer = make_trainer(tmp_path, pipe=pipe, **FULL)
    trainer.run()
    tuned, before = sample(pipe), weights(pipe)
    with trainer.weights.base():
        assert torch.equal(sample(pipe), sample(tiny.shared("sd")))
        assert not torch.equal(sample(pipe), tuned)
    assert torch.equal(sample(pipe), tuned)
    assert all(torch.equal(a, b) for a, b in zip(weights(pipe), before, strict=True))
    assert all(parameter.requires_grad for parameter in denoiser(pipe).parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_belong_to_the_weights_that_they_were_computed_with(checkpointing, tmp_path):
    """A graph of the tuned model outlives a visit of the base, and within that the base has its own gradient."""
    pipe, fresh = tiny.pipeline("sd"), tiny.pipeline("sd")
    trainer = make_trainer(tmp_path, pipe=pipe, gradient_checkpointing=checkpointing, **FULL)
    trainer.run()
    drawn = rollout(pipe, prompt="red", seeds=[1], record=True, **SAMPLING["sd"].call())

    def gradient(pipe):
        x = drawn.steps[-1].sample.clone().requires_grad_()
        return torch.autograd.grad(replay(pipe, drawn, -1, grad=True, sample=x).next_sample.square().sum(), x)[0]

    alone = gradient(pipe)
    x = drawn.steps[-1].sample.clone().requires_grad_()
    after = replay(pipe, drawn, -1, grad=True, sample=x).next_sample.square().sum()
    with trainer.weights.base():
        of_base = gradient(pipe)
    assert_all_close([torch.autograd.grad(after, x)[0], of_base], [alone, gradient(fresh)], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone, of_base, rtol=1e-3)


def test_the_folder_is_what_diffusers_loads(tmp_path):
    pipe = tiny.pipeline("sd")
    make_trainer(tmp_path, pipe=pipe, checkpoint_every=1, steps=3, **FULL).run()
    fresh = tiny.pipeline("sd")
    load_tuned(fresh, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(weights(fresh), weights(pipe), strict=True))
    loaded = type(pipe.unet).from_pretrained(tmp_path / "unet", use_safetensors=True)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), pipe.unet.parameters(), strict=True))
    folders = sorted(tmp_path.glob("checkpoint-*"))
    assert [(folder / "trainer.safetensors").exists() for folder in folders] == [False, True, True]
    assert weights_hash(weights_in(folders[-1])) == weights_hash(weights_in(tmp_path))
    assert weights_hash(weights_in(folders[0])) != weights_hash(weights_in(tmp_path))
    numbers = sum(weight.numel() for weight in weights(pipe))
    headers = 300 * len(weights(pipe))
    assert 0 < (tmp_path / "unet" / FILE).stat().st_size - 4 * numbers < headers
    assert 0 < (folders[-1] / "trainer.safetensors").stat().st_size - 12 * numbers < 3 * headers


def test_the_average_is_what_is_saved(tmp_path):
    pipe = tiny.pipeline("sd")
    trainer = make_trainer(tmp_path, pipe=pipe, ema_decay=0.6, **FULL)
    average = weights(pipe)
    for _ in trainer:
        average = [0.6 * a + 0.4 * w for a, w in zip(average, weights(pipe), strict=True)]
    saved = tiny.pipeline("sd")
    load_tuned(saved, tmp_path)
    assert_all_close(weights(saved), average, rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(a, b) for a, b in zip(weights(saved), weights(pipe), strict=True))


def test_a_pipeline_in_bfloat16_is_trained_in_float32(tmp_path):
    """Steps of 1e-4 are lost on most weights in bfloat16, of which one has 8 bits, but add up in float32."""
    options = {**FULL, "lr": 1e-4, "steps": 6, "ema_decay": 0.5, "micro_batch_size": 1, "checkpoint_every": 2}
    pipe = tiny.pipeline("sd").to(torch.bfloat16)
    first = weights(pipe)
    trainer = make_trainer(tmp_path / "plain", pipe=pipe, **options)
    gradients = captured_gradients(trainer)
    trainer.run()
    assert {g.dtype for g in gradients[0]} == {p.dtype for p in trainer.state.parameters} == {torch.float32}
    assert all(parameter.grad is None for parameter in denoiser(pipe).parameters())
    moved = torch.cat([(p - f).flatten() for p, f in zip(trainer.state.parameters, first, strict=True)]).abs()
    assert moved.median() > 2e-4
    rounded = [parameter.to(torch.bfloat16) for parameter in trainer.state.parameters]
    assert all(torch.equal(a, b) for a, b in zip(weights(pipe), rounded, strict=True))
    saved = load_file(tmp_path / "plain" / "unet" / FILE)
    wanted = dict(zip(dict(pipe.unet.named_parameters()), trainer.state.average, strict=True))
    assert all(torch.equal(saved[name], average.to(torch.bfloat16)) for name, average in wanted.items())
    for record in make_trainer(tmp_path / "killed", pipe=tiny.pipeline("sd").to(torch.bfloat16), **options):
        if record["update"] == 3:
            break
    again = tiny.pipeline("sd").to(torch.bfloat16)
    make_trainer(tmp_path / "killed", pipe=again, **options).run()
    assert all(torch.equal(a, b) for a, b in zip(weights(again), weights(pipe), strict=True))
    assert weights_hash(weights_in(tmp_path / "killed")) == weights_hash(weights_in(tmp_path / "plain"))


def test_a_transformer_learns_too(tmp_path):
    pipe = tiny.pipeline("sd3")
    before = sample(pipe, "sd3").mean()
    make_trainer(tmp_path, "sd3", pipe=pipe, **{**FULL, "steps": 5}).run()
    assert sample(pipe, "sd3").mean() > before + 0.005
    assert weights_in(tmp_path) == tmp_path / "transformer"


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the whole unet, but that carries LoRAs \(default\): first remove"):
        check_weights(tiny.shared("sd", lora=True), settings(lora=None))
    with pytest.raises(ValueError, match="shard shares frozen weights out"):
        check_weights(tiny.shared("sd"), settings(lora=None, memory={"shard": True}))
    pipe = tiny.pipeline("sd")
    make_trainer(tmp_path, pipe=pipe, **FULL)
    with pytest.raises(ValueError, match="has been trained already, so it is not the base model"):
        make_trainer(tmp_path, pipe=pipe, **FULL)
    pipe = tiny.pipeline("sd")
    pipe.unet.conv_in.weight = torch.nn.Parameter(pipe.unet.conv_in.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="but that is quantised"):
        check_weights(pipe, settings(lora=None))


def test_a_point_for_loras_alone_is_refused_with_the_recipe():
    guidance = {"kind": "guidance", "schedule": "linear", "savings": {"one_forward": True}}
    evaluation = {"prompts": ["a", "b", "c"], "points": [{"kind": "base"}, {"kind": "tuned"}, guidance]}
    recipe = {"name": "a", "reward": "gold", "prompts": ["a"], "evaluation": evaluation}
    parse_recipe(recipe)
    with pytest.raises(ValueError, match=r"one_forward, which is for LoRAs, but training.lora: null"):
        parse_recipe({**recipe, "training": {"lora": None}})
