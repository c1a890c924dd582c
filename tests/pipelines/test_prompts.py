"""The prompt cache gives what the pipeline would have encoded, and asks for it once."""

import functools

import pytest
import torch

from sfumato.pipelines.patching import patched
from sfumato.pipelines.prompts import PromptCache
from sfumato.pipelines.rollout import rollout
from tests import tiny


def counting(pipe):
    """Count the prompts that the pipeline's own `encode_prompt` is given."""
    encode, seen = pipe.encode_prompt, []

    @functools.wraps(encode)
    def counted(*args, **kwargs):
        seen.append(kwargs.get("prompt", args[0] if args else None))
        return encode(*args, **kwargs)

    return patched(pipe, "encode_prompt", counted), seen


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_images_stay_the_same_and_each_prompt_is_encoded_once(family):
    pipe = tiny.shared(family)
    arguments = tiny.call(family, count=3)
    arguments["prompt"][2] = arguments["prompt"][0]
    expected = rollout(pipe, seeds=[1, 2, 3], **arguments).images
    cache, before = PromptCache(), tiny.footprint(pipe)
    counter, seen = counting(pipe)
    with counter:
        for _ in range(2):
            with cache.on(pipe):
                images = rollout(pipe, seeds=[1, 2, 3], **arguments).images
            assert torch.allclose(images, expected, atol=1e-5)
        assert seen == [[prompt] for prompt in arguments["prompt"][:2]]
    assert tiny.footprint(pipe) == before


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_prompts_embedding_does_not_depend_on_its_batch(family):
    pipe = tiny.shared(family)
    alone, cache = {}, PromptCache()
    for prompt in ("a", "bb", "ccc"):
        alone[prompt] = tiny.embedded(pipe, family, tiny.call(family, prompt=[prompt]))
    with cache.on(pipe):
        together = tiny.embedded(pipe, family, tiny.call(family, prompt=["ccc", "a", "bb"]))
    for name, value in together.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, torch.cat([alone[prompt][name] for prompt in ("ccc", "a", "bb")]))


def test_fluxs_text_ids_are_not_joined():
    pipe = tiny.shared("flux")
    arguments = {"prompt_2": None, "max_sequence_length": tiny.TOKENS}
    expected = pipe.encode_prompt(prompt=["a", "b"], **arguments)[2]
    with PromptCache().on(pipe):
        ids = pipe.encode_prompt(prompt=["a", "b"], **arguments)[2]
    assert torch.equal(ids, expected)


@pytest.mark.parametrize("negative", ["bad", ["bad", "worse"], None])
@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3"])
def test_negative_prompts_are_part_of_the_memory(family, negative):
    pipe, cache = tiny.shared(family), PromptCache()
    for other in (negative, "something else"):
        arguments = tiny.call(family, negative_prompt=other)
        expected = rollout(pipe, seeds=[1, 2], **arguments).images
        with cache.on(pipe):
            images = rollout(pipe, seeds=[1, 2], **arguments).images
        assert torch.allclose(images, expected, atol=1e-5)


def test_what_else_encoding_depends_on_is_part_of_the_memory():
    pipe, cache = tiny.shared("flux"), PromptCache()
    for length in (tiny.TOKENS, 8):
        arguments = tiny.call("flux") | {"max_sequence_length": length}
        with cache.on(pipe):
            images = rollout(pipe, seeds=[1, 2], **arguments).images
        assert torch.allclose(images, rollout(pipe, seeds=[1, 2], **arguments).images, atol=1e-5)
    assert len(cache.memory) == 4


def test_embeddings_pass_through():
    pipe, cache = tiny.shared("sd"), PromptCache()
    arguments = tiny.embedded(pipe, "sd", tiny.call("sd"))
    expected = rollout(pipe, seeds=[1, 2], **arguments).images
    with cache.on(pipe):
        assert torch.equal(rollout(pipe, seeds=[1, 2], **arguments).images, expected)
    assert cache.memory == {}


def test_rows_of_unequal_length_are_encoded_together():
    class Padding:
        """Encodes like a pipeline that pads to the longest prompt of the batch."""

        def encode_prompt(self, prompt):
            width = max(len(p) for p in prompt)
            return (torch.tensor([[float(len(p))] * width for p in prompt]),)

    pipe = Padding()
    expected = pipe.encode_prompt(["a", "bb"])[0]
    with PromptCache().on(pipe):
        assert torch.equal(pipe.encode_prompt(["a", "bb"])[0], expected)
        assert torch.equal(pipe.encode_prompt(["aa", "bb"])[0], torch.full((2, 2), 2.0))


def test_pipelines_without_encode_prompt_are_left_alone():
    pipe = type("Unconditional", (), {})()
    with PromptCache().on(pipe):
        assert vars(pipe) == {}


def test_nothing_is_left_behind_after_an_exception():
    pipe = tiny.shared("sd")
    before = tiny.footprint(pipe)
    with pytest.raises(ZeroDivisionError), PromptCache().on(pipe):
        raise ZeroDivisionError
    assert tiny.footprint(pipe) == before


def test_what_does_not_fit_is_encoded_anew():
    pipe = tiny.shared("sd")
    call = functools.partial(rollout, pipe, seeds=[1], num_inference_steps=1, guidance_scale=1.0)
    with PromptCache().on(pipe):
        expected = [call(prompt=prompt).images for prompt in "abab"]
        size = pipe.encode_prompt("a", "cpu", 1, False)[0].nbytes
    counter, seen = counting(pipe)
    with counter, PromptCache(limit=size).on(pipe):
        images = [call(prompt=prompt).images for prompt in "abab"]
    assert seen == [["a"], ["b"], ["b"]]
    assert all(torch.equal(a, b) for a, b in zip(images, expected, strict=True))
