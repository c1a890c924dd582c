"""What saves memory does save it, and leaves the gradient as it is."""

import pytest
import torch
from benchmarks.scaling.live import LiveBytes
from torch import nn

from sfumato.training.memory import modules_of
from tests import tiny
from tests.training.common import assert_all_close, brightness, captured_gradients, make_trainer

OPTIONS = {"batch_size": 4, "steps": 2, "regularizers": {"kl": {"coefficient": 0.1}}}


def gradients(folder, family="sd", **changes):
    trainer = make_trainer(folder, family, **{**OPTIONS, **changes})
    found = captured_gradients(trainer)
    return found, trainer.run()


def decoded(pipe, trainer, count=6):
    """A gradient through the decoder, and the bytes that it takes."""
    channels = pipe.vae.config.latent_channels
    latents = torch.randn(count, channels, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with trainer.savings.on(), LiveBytes() as live:
        (gradient,) = torch.autograd.grad(pipe.vae.decode(latents, return_dict=False)[0].square().sum(), latents)
    return gradient, live.peak


@pytest.mark.parametrize(
    ("memory", "most"),
    [({"decode_singly": True}, 0.5), ({"decoder_checkpointing": True}, 0.9)],
)
def test_decoders_take_less_memory_for_the_same_gradient(memory, most, tmp_path):
    found = {}
    for name, section in {"plain": {}, "saving": memory}.items():
        pipe = tiny.pipeline("sd")
        found[name] = decoded(pipe, make_trainer(tmp_path / name, pipe=pipe, memory=section))
    torch.testing.assert_close(found["saving"][0], found["plain"][0], rtol=1e-4, atol=1e-6)
    assert found["saving"][1] < most * found["plain"][1]


@pytest.mark.parametrize("family", ["sd", "sd3"])
@pytest.mark.parametrize(
    "memory",
    [{"decode_singly": True}, {"decoder_checkpointing": True, "decode_singly": True}, {"offload": ["text_encoders"]}],
    ids=str,
)
def test_a_training_is_the_same(family, memory, tmp_path):
    wanted, _ = gradients(tmp_path / "plain", family)
    found, _ = gradients(tmp_path / "saving", family, memory=memory)
    for one, other in zip(found, wanted, strict=True):
        assert_all_close(one, other, rtol=1e-4, atol=1e-7)
    assert any(gradient.any() for gradient in found[0])


class Brightness(nn.Module):
    """A reward that says where it is."""

    name, range, differentiable = "brightness", (0.0, 1.0), True

    def __init__(self, log):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()), requires_grad=False)
        self.log = log

    def to(self, device):
        self.log.append("leaves" if isinstance(device, str) else "comes")
        return self

    def __call__(self, images, prompts):
        self.log.append("scores")
        scores = self.weight * brightness(images, prompts)
        if scores.requires_grad:
            scores.register_hook(lambda _: self.log.append("back"))
        return scores


def test_a_reward_is_there_from_the_call_to_its_gradient(tmp_path):
    log = []
    changes = {"micro_batch_size": 2, "steps": 1, "memory": {"offload": ["reward"]}}
    found, _ = gradients(tmp_path / "saving", reward=Brightness(log), **changes)
    tried = [*(["comes", "scores", "leaves"] * 3), "comes", "scores", "back", "leaves"]
    assert log == ["leaves", *tried, *(["comes", "scores", "back", "leaves"] * 2), "comes"]
    wanted, _ = gradients(tmp_path / "plain", **{**changes, "memory": {}})
    assert_all_close(found[0], wanted[0], rtol=0, atol=0)


def test_a_reward_without_gradient_leaves_at_once_and_a_look_keeps_it(tmp_path):
    log = []
    trainer = make_trainer(tmp_path, reward=Brightness(log), memory={"offload": ["reward"]})
    with trainer.savings.on():
        trainer.savings.reward(torch.rand(2, 3, 8, 8), ["a", "b"])
        assert log == ["leaves", "comes", "scores", "leaves"]
        with trainer.savings.looking():
            trainer.savings.reward(torch.rand(2, 3, 8, 8), ["a", "b"])
    assert log[4:] == ["comes", "scores", "leaves", "comes"]


def test_the_modules_of_a_reward_are_found_wherever_it_keeps_them():
    class Holder:
        name = "holder"

        def __init__(self, **attributes):
            vars(self).update(attributes)

    inner, outer = nn.Linear(2, 2), nn.Linear(3, 3)
    reward = Holder(parts=[Holder(model=inner)], model=outer, torch=torch)
    reward.itself = reward
    assert {id(module) for module in modules_of(reward)} == {id(inner), id(outer)}
    with pytest.raises(ValueError, match="'holder' has no torch modules among its attributes"):
        modules_of(Holder())


def test_text_encoders_come_once_for_all_prompts_and_leave_no_trace(tmp_path):
    pipe = tiny.pipeline("sd")
    trainer = make_trainer(tmp_path, pipe=pipe, memory={"offload": ["text_encoders"]}, **OPTIONS)
    encoder, before, log = pipe.text_encoder, dict(pipe.config), []
    encoder.to = lambda device: log.append("leaves" if isinstance(device, str) else "comes")
    for _ in trainer:
        assert pipe.text_encoder is None
    assert log == ["leaves", "comes", "leaves", "comes"]
    del encoder.to
    assert pipe.text_encoder is encoder and dict(pipe.config) == before and "encode_prompt" not in vars(pipe)


@pytest.mark.parametrize("section", [{"decode_singly": True}, {"decoder_checkpointing": True}])
def test_what_a_pipeline_does_not_have_is_refused(section, tmp_path):
    pipe = tiny.pipeline("sd")
    type(pipe.vae)._supports_gradient_checkpointing, before = False, type(pipe.vae)._supports_gradient_checkpointing
    try:
        if "decoder_checkpointing" in section:
            with pytest.raises(ValueError, match=r"set training\.memory\.decode_singly in its place"):
                make_trainer(tmp_path, pipe=pipe, memory=section)
    finally:
        type(pipe.vae)._supports_gradient_checkpointing = before
    pipe.vae = None
    with pytest.raises(ValueError, match="has no VAE"):
        make_trainer(tmp_path, pipe=pipe, memory=section)
