"""Classifier-free guidance whose unconditional half is run in some of the steps."""

import pytest
import torch

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.halves import unconditional_seldom
from sfumato.pipelines.rollout import rollout
from sfumato.pipelines.trees import leaves
from tests import tiny

STEPS = 6


def halves(tensor, prompts_first=False):
    first, second = tensor.chunk(2)
    return (second, first) if prompts_first else (first, second)


def watched(pipe, family, every, steps=STEPS, **arguments):
    """For every denoiser call what it gave, what the module itself gives for the same input, and rows it was run on."""
    calls, run = [], []
    module = denoiser(pipe)
    forward = module.forward
    inner = module.register_forward_hook(
        lambda m, args, kwargs, output: calls.append(
            (leaves(output)[0], leaves(type(m).forward(m, *args, **kwargs))[0])
        ),
        with_kwargs=True,
    )

    def counted(*args, **kwargs):
        output = forward(*args, **kwargs)
        run.append(len(leaves(output)[0]))
        return output

    module.forward = counted
    try:
        with unconditional_seldom(pipe, every):
            images = rollout(pipe, seeds=[1, 2], **{**tiny.call(family, steps=steps), **arguments}).images
    finally:
        inner.remove()
        del module.forward
    return images, calls, run


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("family", ["sd", "sd3", "pixart", "lumina"])
def test_between_two_steps_the_difference_goes_on_at_half_its_pace(family, every):
    _, calls, run = watched(tiny.shared(family), family, every)
    assert run == {2: [4, 4, 2, 4, 2, 4], 3: [4, 4, 2, 2, 4, 2]}[every]
    known = {}
    for i, ((got, true), rows) in enumerate(zip(calls, run, strict=True)):
        unconditional, conditional = halves(true, prompts_first=family == "lumina")
        if rows == 4:
            assert torch.equal(got, true)
            known[i] = unconditional - conditional
            continue
        before, last = sorted(known)[-2:]
        slope = (known[last] - known[before]) / (last - before)
        ours, own = halves(got, prompts_first=family == "lumina")
        torch.testing.assert_close(own, conditional, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours, own + known[last] + slope * (i - last) / 2, rtol=1e-4, atol=1e-5)


def test_images_are_nearly_those_of_all_halves():
    pipe = tiny.shared("sd")
    plain = rollout(pipe, seeds=[1, 2], **tiny.call("sd", steps=STEPS)).images
    without = rollout(pipe, seeds=[1, 2], **tiny.call("sd", steps=STEPS), guidance_scale=1.0).images
    errors = [(watched(pipe, "sd", every)[0] - plain).abs().mean() for every in (1, 2, 6)]
    assert errors[0] == 0 < errors[1] < errors[2] < (without - plain).abs().mean()


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        ("flux", {}),
        ("flux", {"true_cfg_scale": 2.0, "negative_prompt": "dull"}),
        ("z-image", {}),
        ("sd", {"guidance_scale": 1.0}),
    ],
    ids=["no guidance", "two calls a step", "lists of images", "guidance is off"],
)
def test_nothing_changes_where_there_is_no_doubled_batch(family, arguments):
    pipe = tiny.shared(family)
    plain = rollout(pipe, seeds=[1, 2], **tiny.call(family), **arguments).images
    assert torch.equal(watched(pipe, family, 2, steps=3, **arguments)[0], plain)


def test_nothing_is_left_behind_also_after_an_exception():
    pipe = tiny.pipeline("sd")
    before = tiny.footprint(pipe)
    with pytest.raises(RuntimeError, match="stop"), unconditional_seldom(pipe, 2):
        assert tiny.footprint(pipe) != before
        raise RuntimeError("stop")
    assert tiny.footprint(pipe) == before
