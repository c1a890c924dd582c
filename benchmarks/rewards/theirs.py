"""hpsv2's own way, and its model in a loop that reads the weights once."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bed import CHECKPOINT, SIZES, Bed
from tests.golden.make_rewards_clip import declare_operators

LIBRARY = declare_operators()  # while it lives, torchvision can be imported

import hpsv2  # noqa: E402
from hpsv2 import img_score  # noqa: E402
from hpsv2.src.open_clip import create_model_and_transforms, factory, get_tokenizer  # noqa: E402
from PIL import Image  # noqa: E402
from tests.golden import seeded_clip  # noqa: E402


def ways(bed: Bed) -> dict[str, Callable[[], list[float]]]:
    """Name -> cosines of all pictures with their prompts; in "one prompt" with the first one."""
    warnings.simplefilter("ignore")
    checkpoint = str(Path(bed.folder) / CHECKPOINT)
    model, preprocess = network(bed.size)
    img_score.model_dict.update(model=model, preprocess_val=preprocess)  # else it makes a ViT-H/14
    images, prompts = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in bed.pictures()], bed.prompts()

    def score(some: list[Image.Image], prompt: str) -> list[float]:
        return [float(value) for value in img_score.score(some, prompt, checkpoint)]

    def loop() -> list[float]:
        found = []
        for image, prompt in zip(images, prompts, strict=True):
            with torch.no_grad():
                output = model(preprocess(image)[None], tokenizer([prompt]))
                found.append(float((output["image_features"] * output["text_features"]).sum()))
        return found

    score(images[:1], prompts[0])  # puts the weights into the model
    tokenizer = get_tokenizer("ViT-H-14")
    return {
        "hpsv2.score": lambda: [score([i], p)[0] for i, p in zip(images, prompts, strict=True)],
        "hpsv2.score, one prompt": lambda: score(images, prompts[0]),
        "loop, loaded once": loop,
    }


def network(size: str) -> tuple[Any, Any]:
    """hpsv2's model in another size, random, and its preprocessing of pictures."""
    vocabulary = Path(hpsv2.__file__).parent / "src" / "open_clip" / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(vocabulary, "wb") as file:
        file.write("\n".join(["header", *seeded_clip.MERGES]).encode())
    factory._MODEL_CONFIGS["ViT-H-14"] = SIZES[size].open_clip(len(seeded_clip.WORDS))
    model, _, preprocess = create_model_and_transforms("ViT-H-14", light_augmentation=True, output_dict=True)
    return model.eval(), preprocess


def save(bed: Bed) -> None:
    """Write a seeded network as hpsv2's checkpoints are written."""
    torch.manual_seed(0)
    torch.save({"state_dict": network(bed.size)[0].state_dict()}, Path(bed.folder) / CHECKPOINT)
