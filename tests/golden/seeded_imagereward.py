"""ImageReward with seeded weights under the published names, narrow or as large as published, and a small tokenizer."""

from dataclasses import dataclass
from pathlib import Path

import torch
from tests.golden import seeded

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """Of the vision transformer (its inner width is four times its width) and of the text encoder."""

    width: int
    depth: int
    text_width: int
    text_depth: int
    text_inner: int
    context: int
    vocabulary: int


NARROW = Sizes(width=192, depth=3, text_width=128, text_depth=2, text_inner=256, context=48, vocabulary=24)
PUBLISHED = Sizes(1024, 24, 768, 12, 3072, 512, 30524)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("a", "red", "blue", "cat", "dog", "on", "the", "moon", "##s", "photo", "of", "two", ",", ".", "'")

PROMPTS = ["A photo of two cats", "the red dog's moon, on the blue moon.", " ".join(["blue cat on the moon"] * 10)]
PICTURES = [(224, 224), (96, 130), (300, 240)]


def weights(sizes: Sizes = NARROW) -> dict[str, torch.Tensor]:
    """The state dict as the authors' file holds it."""
    shapes = _image(sizes) | _text(sizes)
    shapes |= _linear("blip.vision_proj", 256, sizes.width) | _linear("blip.text_proj", 256, sizes.text_width)
    widths = [sizes.text_width, 1024, 128, 64, 16, 1]
    for number, inputs, outputs in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        shapes |= _linear(f"mlp.layers.{number}", outputs, inputs)
    positions = {"blip.text_encoder.embeddings.position_ids": torch.arange(sizes.context)[None]}
    return {name: seeded.tensor(name, shape) for name, shape in shapes.items()} | positions


def save_tokenizer(folder: Path) -> Path:
    """Write `vocab.txt` and give the folder back."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join((*SPECIAL, *WORDS)) + "\n")
    return folder


def _image(sizes: Sizes) -> Shapes:
    start, width = "blip.visual_encoder.", sizes.width
    shapes: Shapes = {f"{start}cls_token": (1, 1, width), f"{start}pos_embed": (1, 14 * 14 + 1, width)}
    shapes |= {f"{start}patch_embed.proj.weight": (width, 3, 16, 16), f"{start}patch_embed.proj.bias": (width,)}
    for block in [f"{start}blocks.{number}." for number in range(sizes.depth)]:
        shapes |= _linear(f"{block}attn.qkv", 3 * width, width) | _linear(f"{block}attn.proj", width, width)
        shapes |= _linear(f"{block}mlp.fc1", 4 * width, width) | _linear(f"{block}mlp.fc2", width, 4 * width)
        shapes |= _norm(f"{block}norm1", width) | _norm(f"{block}norm2", width)
    return shapes | _norm(f"{start}norm", width)


def _text(sizes: Sizes) -> Shapes:
    start, width = "blip.text_encoder.", sizes.text_width
    shapes: Shapes = {f"{start}embeddings.word_embeddings.weight": (sizes.vocabulary, width)}
    shapes[f"{start}embeddings.position_embeddings.weight"] = (sizes.context, width)
    for layer in [f"{start}encoder.layer.{number}." for number in range(sizes.text_depth)]:
        for attention, seen in {"attention": width, "crossattention": sizes.width}.items():
            shapes |= _linear(f"{layer}{attention}.self.query", width, width)
            shapes |= _linear(f"{layer}{attention}.self.key", width, seen)
            shapes |= _linear(f"{layer}{attention}.self.value", width, seen)
            shapes |= _linear(f"{layer}{attention}.output.dense", width, width)
            shapes |= _norm(f"{layer}{attention}.output.LayerNorm", width)
        shapes |= _linear(f"{layer}intermediate.dense", sizes.text_inner, width)
        shapes |= _linear(f"{layer}output.dense", width, sizes.text_inner) | _norm(f"{layer}output.LayerNorm", width)
    return shapes | _norm(f"{start}embeddings.LayerNorm", width)


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
