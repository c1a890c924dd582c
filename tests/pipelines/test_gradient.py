"""The gradient of a rollout against central differences that change the weights in the last K steps only."""

from contextlib import contextmanager

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.patching import patched
from sfumato.pipelines.rollout import rollout
from tests import tiny

DOUBLE, SINGLE = (2e-5, 1e-4), (1e-3, 1e-2)
"""Size of the difference and relative tolerance. Models are float64, but many schedulers round samples to float32."""

CASES = [
    ("sd", "ddim", DOUBLE),
    ("sd", "ddim-eta-1", DOUBLE),
    ("sd", "pndm", DOUBLE),
    ("sd", "dpm++2m", SINGLE),
    ("sd", "heun", DOUBLE),
    ("sdxl", "ddim", DOUBLE),
    ("sdxl", "euler-ancestral", SINGLE),
    ("sd3", "flow", SINGLE),
    ("sd3", "flow-stochastic", SINGLE),
    ("flux", "flow", SINGLE),
    ("pixart", "ddim", DOUBLE),
]


@contextmanager
def moved_late(pipe, parameters, direction, size, last_steps):
    """Add `size` · `direction` to the parameters once only `last_steps` scheduler steps are left."""
    scheduler, state = pipe.scheduler, {"taken": 0, "moved": False}
    set_timesteps, step = scheduler.set_timesteps, scheduler.step
    saved = parameters_to_vector(parameters).detach()

    def move_in_time():
        if state["taken"] == len(scheduler.timesteps) - last_steps:
            vector_to_parameters(parameters_to_vector(parameters).detach() + size * direction, parameters)
            state["moved"] = True

    def set_and_move(*args, **kwargs):
        set_timesteps(*args, **kwargs)
        move_in_time()

    def step_and_move(*args, **kwargs):
        result = step(*args, **kwargs)
        state["taken"] += 1
        move_in_time()
        return result

    set_and_move.__wrapped__, step_and_move.__wrapped__ = set_timesteps, step
    with patched(scheduler, "set_timesteps", set_and_move), patched(scheduler, "step", step_and_move):
        yield
    assert state["moved"]
    vector_to_parameters(saved, parameters)


def check(pipe, parameters, last_steps, size, tolerance, **arguments):
    generator = torch.Generator().manual_seed(3)
    images = rollout(pipe, seeds=[1, 2], last_steps=last_steps, **arguments).images
    weights = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    assert 0 < images.min() < images.max() < 1
    (images * weights).sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in parameters])
    noise = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype)
    direction = gradient / gradient.norm() + noise / noise.norm()
    exact = gradient @ direction
    ends = []
    for sign in (1, -1):
        with moved_late(pipe, parameters, direction, sign * size, last_steps):
            ends.append((rollout(pipe, seeds=[1, 2], **arguments).images * weights).sum())
    assert torch.allclose((ends[0] - ends[1]) / (2 * size), exact, rtol=tolerance, atol=0)
    return exact


@pytest.mark.parametrize(("family", "scheduler", "precision"), CASES)
@pytest.mark.parametrize("last_steps", [1, 3])
def test_the_gradient_is_that_of_the_last_steps(family, scheduler, precision, last_steps):
    size, tolerance = precision
    pipe = tiny.pipeline(family, lora=True, scheduler=scheduler).to(torch.float64)
    parameters = [p for p in denoiser(pipe).parameters() if p.requires_grad]
    arguments = tiny.call(family, steps=4, **tiny.SCHEDULERS[scheduler][2])
    check(pipe, parameters, last_steps, size, tolerance, **arguments)
    for name, parameter in denoiser(pipe).named_parameters():
        if parameter.requires_grad and not (family == "sd3" and "1.attn.add_q_proj" in name):
            assert parameter.grad.abs().max() > 0, f"no gradient reaches {name}"


def test_sd3_has_one_projection_that_nothing_depends_on():
    """Why the test above leaves it out: SD3 throws the text stream away after its last block."""
    pipe = tiny.pipeline("sd3", lora=True)
    before = rollout(pipe, seeds=[1], **tiny.call("sd3", count=1)).images
    with torch.no_grad():
        pipe.transformer.transformer_blocks[1].attn.add_q_proj.lora_B["default"].weight.mul_(3)
    assert torch.equal(rollout(pipe, seeds=[1], **tiny.call("sd3", count=1)).images, before)


def test_fewer_steps_give_another_gradient():
    """So that agreement above says something about K."""
    pipe = tiny.pipeline("sd", lora=True)
    gradients = []
    for last_steps in (1, 3):
        pipe.unet.zero_grad()
        rollout(pipe, seeds=[1], last_steps=last_steps, **tiny.call("sd", count=1)).images.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in pipe.unet.parameters() if p.requires_grad]))
    assert (gradients[0] - gradients[1]).norm() > 0.1 * gradients[1].norm()


@pytest.mark.parametrize("blend", ["predictions", "weights"])
def test_the_gradient_goes_through_a_blend(blend):
    pipe = tiny.pipeline("sd", lora=True).to(torch.float64)
    parameters = [p for p in pipe.unet.parameters() if p.requires_grad]
    with annealed_guidance(pipe, "constant", w=0.5, blend=blend):
        blended = check(pipe, parameters, 2, *DOUBLE, **tiny.call("sd", steps=3))
    pipe.unet.zero_grad()
    assert not torch.isclose(check(pipe, parameters, 2, *DOUBLE, **tiny.call("sd", steps=3)), blended)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_gradient_checkpointing_changes_nothing(family):
    pipe = tiny.pipeline(family, lora=True)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            denoiser(pipe).enable_gradient_checkpointing()
            denoiser(pipe).train()
        rollout(pipe, seeds=[1, 2], last_steps=2, **tiny.call(family)).images.square().sum().backward()
        gradients.append([p.grad for p in denoiser(pipe).parameters() if p.requires_grad])
        denoiser(pipe).zero_grad()
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*gradients, strict=True))
