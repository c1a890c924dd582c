"""Make rewards_imagereward.json: what the package image-reward says of seeded pictures, with seeded weights.

`python -m tests.golden.make_rewards_imagereward` makes an environment of its own, build/peers-rewards-imagereward, with
the package at its hash, and goes on there. Of the package only the reward is imported: its `__init__` files ask for
trainers and other scores, and these for much else.
"""

import functools
import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from tests.golden import seeded
from tests.golden.seeded_imagereward import NARROW, PICTURES, PROMPTS, PUBLISHED, Sizes, save_tokenizer, weights
from transformers import BertTokenizer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = ROOT / "build" / "peers-rewards-imagereward"
PACKAGE, SHA256 = "image-reward==1.5", "b4917a680c3caa68a1ce3847cebab3ae6d5b4c409d7f8804f537b9d42662cf12"
NEEDED = ("torch==2.13.0", "numpy==2.4.6", "pillow==13.0.0", "transformers==4.44.2", "pyyaml")
ALONE = ("torchvision==0.28.0", "timm==0.6.13", "fairscale==0.4.13")


def environment() -> Path:
    """The python of an environment with the package, made unless it is there."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *NEEDED], check=True)
        subprocess.run([*pip, "--no-deps", *ALONE], check=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            print(f"{PACKAGE} --hash=sha256:{SHA256}", file=file, flush=True)
            subprocess.run([*pip, "--no-deps", "--require-hashes", "--requirement", file.name], check=True)
    return python


@functools.cache
def package() -> Any:
    """The package's module of the reward."""
    (site,) = PEERS.glob("lib/*/site-packages")
    try:
        torch.ops.load_library(str(site / "torchvision" / "_C.so"))
    except OSError:  # built for another torch; no operator of it is used, but the names of two are asked for
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in ("ImageReward", "ImageReward.models"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(site / name.replace(".", "/"))]
    return importlib.import_module("ImageReward.ImageReward")


def model(folder: Path, sizes: Sizes) -> Any:
    """The package's reward of the given sizes, with seeded weights and the small tokenizer."""
    config = {
        "hidden_size": sizes.text_width,
        "intermediate_size": sizes.text_inner,
        "num_attention_heads": sizes.text_width // 64,
        "num_hidden_layers": sizes.text_depth,
        "max_position_embeddings": sizes.context,
        "vocab_size": sizes.vocabulary,
        "layer_norm_eps": 1e-12,
        "add_cross_attention": True,
    }
    (folder / "med_config.json").write_text(json.dumps(config))
    module, perceptron = package(), package().MLP
    blip, pretrain = (importlib.import_module(f"ImageReward.models.BLIP.{name}") for name in ("blip", "blip_pretrain"))
    image = blip.VisionTransformer(embed_dim=sizes.width, depth=sizes.depth, num_heads=sizes.width // 64)
    tokenizer = BertTokenizer(str(save_tokenizer(folder) / "vocab.txt"))
    with (
        patch.object(pretrain, "create_vit", lambda *_: (image, sizes.width)),
        patch.object(module, "MLP", lambda _: perceptron(sizes.text_width)),
        patch.object(blip.BertTokenizer, "from_pretrained", lambda _: tokenizer),
    ):
        made = module.ImageReward(med_config=str(folder / "med_config.json"))
    made.load_state_dict(weights(sizes))
    return made.eval()


def scores(model: Any, height: int, width: int) -> list[list[float]]:
    """One row per prompt, one column per picture."""
    pictures = seeded.pictures(len(PROMPTS), height, width).permute(0, 2, 3, 1).numpy()
    images = [Image.fromarray(picture) for picture in pictures]
    return [[model.score(prompt, image) for image in images] for prompt in PROMPTS]


def main() -> None:
    if Path(sys.prefix) != PEERS:
        subprocess.run([str(environment()), "-m", "tests.golden.make_rewards_imagereward"], cwd=ROOT, check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        narrow = model(Path(folder), NARROW)
        found = {f"{height}x{width}": scores(narrow, height, width) for height, width in PICTURES}
        found["published sizes"] = scores(model(Path(folder), PUBLISHED), *PICTURES[0])
    facts = {"package": PACKAGE, "sha256": SHA256, "beside it": [*NEEDED, *ALONE], "scores": found}
    (HERE / "rewards_imagereward.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
