"""A denoiser that is compiled while guidance is on; `test_variants_more.py` has those compiled before."""

import pytest
import torch

from sfumato.pipelines.guidance import annealed_guidance
from tests.analytic.bed import run, tuned_pipeline


def as_module(pipe):
    pipe.unet = torch.compile(pipe.unet, backend="eager")


def in_place(pipe):
    pipe.unet.compile(backend="eager")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("compiled", [as_module, in_place])
def test_compilation_during_guidance_changes_nothing_and_keeps_no_forward_of_ours(compiled):
    """On the smallest denoiser there is, since tracing costs seconds."""
    pipe, points = tuned_pipeline("DDIMScheduler"), [0.3, -1.2]
    module, tuned = pipe.unet, run(pipe, points, 3)
    with annealed_guidance(pipe, "linear") as guidance:
        guided = run(pipe, points, 3)
        compiled(pipe)
        assert torch.allclose(run(pipe, points, 3), guided, rtol=0, atol=1e-12)
        assert guidance.passes == 4
    assert "forward" not in vars(module)
    assert torch.allclose(run(pipe, points, 3), tuned, rtol=0, atol=1e-12)
    assert not torch.allclose(guided, tuned, rtol=0, atol=1e-2)


@pytest.mark.parametrize("compiled", [as_module, in_place])
def test_compilation_just_before_guidance_ends_keeps_no_forward_of_ours(compiled):
    pipe = tuned_pipeline("DDIMScheduler")
    module = pipe.unet
    with annealed_guidance(pipe, "linear"):
        compiled(pipe)
    assert "forward" not in vars(module)
