"""Make rewards_clip.json: what the packages and model cards say of seeded pictures, with seeded weights.

`python -m tests.golden.make_rewards_clip AESTHETIC PICKSCORE`, with clones of christophschuhmann/
improved-aesthetic-predictor and yuvalkirstain/PickScore that have the commits below, makes an environment of its own,
build/peers-rewards-clip, with the packages at their hashes, and goes on there. hpsv2 comes without its vocabulary,
which is made for the small model.
"""

import ast
import gzip
import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = ROOT / "build" / "peers-rewards-clip"
HASHES = {
    "hpsv2==1.2.0": "3ee638b06847bef24e1de43d0b5e3890a4a850034b4bf618e4bb3e78e2d806a1",
    "torchmetrics==1.9.0": "bfdcbff3dd1d96b3374bb2496eb39f23c4b28b8a845b6a18c313688e0d2d9ca1",
    "transformers==4.57.6": "4c9e9de11333ddfe5114bc872c9f370509198acf0b87a832a0ab9458e2bd0550",
}
"""SHA-256 of the wheels."""
COMMITS = ("6934dd81792f086e613a121dbce43082cb8be85e", "f79607ff68609c1e6dfa78cba38afeea4c248df1")
"""Of improved-aesthetic-predictor and PickScore."""
NEEDED = ("torch==2.13.0", "numpy", "pillow", "safetensors", "tokenizers<=0.23.0", "huggingface_hub<1", "regex", "ftfy")
NEEDED += ("requests", "clint", "packaging", "pyyaml", "tqdm", "filelock", "lightning-utilities")
ALONE = "torchvision==0.28.0"
"""Asks for a torch of its own unless it is installed alone."""
DECLARED: list[Any] = []
"""Operators are there as long as what declared them."""


def install() -> Path:
    """The environment's python."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEERS)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *NEEDED], check=True)
        subprocess.run([*pip, "--no-deps", ALONE], check=True)
        hashed = PEERS / "hashed.txt"
        hashed.write_text("".join(f"{name} --hash=sha256:{value}\n" for name, value in HASHES.items()))
        subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(hashed)], check=True)
        (PEERS / "complete").touch()
    return python


def declare_operators() -> None:
    """Let torchvision be imported beside a torch that cannot load its operators, which no transform needs."""
    import torch

    DECLARED.append(torch.library.Library("torchvision", "DEF"))
    for name in ("nms", "qnms"):
        DECLARED[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def pictures(height: int, width: int) -> list[Any]:
    """Three of `seeded.pictures` as PIL."""
    from PIL import Image
    from tests.golden import seeded

    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in seeded.pictures(3, height, width)]


def hpsv2(sizes: list[tuple[int, int]]) -> dict[str, Any]:
    """What `hpsv2.score` gives: by size, for every prompt a score per picture."""
    import torch
    from tests.golden import seeded_clip

    sources = PEERS / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "hpsv2" / "src" / "open_clip"
    with gzip.open(sources / "bpe_simple_vocab_16e6.txt.gz", "wb") as file:
        file.write("\n".join(["header", *seeded_clip.MERGES]).encode())
    small = {
        "embed_dim": seeded_clip.EMBEDDING,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 160, "head_width": 80, "patch_size": 56},
        "text_cfg": {"vocab_size": len(seeded_clip.WORDS), "width": 128, "heads": 2, "layers": 2},
    }
    from hpsv2 import img_score
    from hpsv2.src.open_clip import create_model_and_transforms, factory

    factory._MODEL_CONFIGS["ViT-H-14"] = small
    model, _, preprocess = create_model_and_transforms("ViT-H-14", light_augmentation=True, output_dict=True)
    img_score.model_dict.update(model=model, preprocess_val=preprocess)  # else it downloads what it then overwrites
    with tempfile.NamedTemporaryFile() as checkpoint:
        torch.save({"state_dict": seeded_clip.open_clip()}, checkpoint.name)
        return {
            f"{h}x{w}": [
                [float(score) for score in img_score.score(pictures(h, w), prompt, checkpoint.name)]
                for prompt in seeded_clip.PROMPTS
            ]
            for h, w in sizes
        }


def clips(folder: Path, h: int, w: int, aesthetic: str, pickscore: str) -> dict[str, Any]:
    """CLIPScore by torchmetrics, PickScore's probabilities, and the aesthetic predictor, of one small CLIP."""
    import numpy as np
    import torch
    from tests.golden import seeded, seeded_clip
    from torchmetrics.functional.multimodal import clip_score
    from transformers import CLIPModel, CLIPProcessor

    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder, use_fast=False)
    found: dict[str, Any] = {"clip_score": [], "pickscore": []}
    pick = _defined(pickscore, ["calc_probs"], torch=torch, model=model, processor=processor, device="cpu")
    for prompt in seeded_clip.PROMPTS:
        found["pickscore"].append(pick["calc_probs"](prompt, pictures(h, w)))
    for prompt in seeded_clip.PROMPTS[:2]:  # torchmetrics cuts the end token off the long one
        scores = (clip_score(p, prompt, lambda: (model, processor)) for p in seeded.pictures(3, h, w))
        found["clip_score"].append([score.item() for score in scores])
    lightning = SimpleNamespace(LightningModule=torch.nn.Module)
    theirs = _defined(aesthetic, ["MLP", "normalized"], pl=lightning, nn=torch.nn, np=np)
    predictor = theirs["MLP"](seeded_clip.EMBEDDING)
    predictor.load_state_dict(seeded_clip.aesthetic())
    embeds = model.get_image_features(**processor(images=pictures(h, w), return_tensors="pt"))
    ratings = predictor.eval()(torch.from_numpy(theirs["normalized"](embeds.numpy())))
    return found | {"aesthetic": [ratings.squeeze(1).tolist()]}


def siglip(folder: Path, h: int, w: int) -> list[list[float]]:
    """Probabilities as in the model card of SigLIP: for every prompt one per picture."""
    from tests.golden import seeded_clip
    from transformers import AutoTokenizer, SiglipImageProcessor, SiglipModel

    model, tokenizer = SiglipModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    texts = [prompt.lower() for prompt in seeded_clip.PROMPTS]
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    pixels = SiglipImageProcessor.from_pretrained(folder)(pictures(h, w), return_tensors="pt").pixel_values
    return model(input_ids=tokens, pixel_values=pixels).logits_per_text.sigmoid().tolist()


def _defined(source: str, names: list[str], **given: Any) -> dict[str, Any]:
    """Classes and functions of a source text, made where `given` is known; the rest of it does not run."""
    wanted = [node for node in ast.parse(source).body if getattr(node, "name", None) in names]
    exec(compile(ast.Module(wanted, []), "reference", "exec"), given)
    return given


def main(aesthetic: str, pickscore: str) -> None:
    import torch

    declare_operators()
    from tests.golden import seeded_clip

    def read(clone: str, commit: str, file: str) -> str:
        return subprocess.check_output(["git", "-C", clone, "show", f"{commit}:{file}"], text=True)

    predictor = read(aesthetic, COMMITS[0], "simple_inference.py")
    readme = read(pickscore, COMMITS[1], "README.md")
    card = next(code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "calc_probs" in code)
    found: dict[str, Any] = {"hpsv2": hpsv2([(224, 224), (64, 64), (60, 100), (300, 170)])}
    with torch.no_grad(), tempfile.TemporaryDirectory() as name:
        for kind in ("clip", "siglip"):
            (Path(name) / kind).mkdir()
            getattr(seeded_clip, kind)(Path(name) / kind)
        for h, w in [(32, 32), (60, 100)]:
            found[f"{h}x{w}"] = clips(Path(name) / "clip", h, w, predictor, card)
            found[f"{h}x{w}"]["siglip"] = siglip(Path(name) / "siglip", h, w)
    versions = {name: metadata.version(name) for name in ("torch", "torchvision", "pillow", "tokenizers")}
    made_with = {"versions": versions, "sha256": HASHES, "commits": COMMITS}
    (HERE / "rewards_clip.json").write_text(json.dumps({"made_with": made_with, **found}, indent=1) + "\n")


if __name__ == "__main__":
    if Path(sys.prefix) == PEERS:
        main(*sys.argv[1:])
    else:
        subprocess.run([install(), "-m", "tests.golden.make_rewards_clip", *sys.argv[1:]], cwd=ROOT, check=True)
