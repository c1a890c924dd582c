"""Fetches the artwork, renders it at 64x64 on white, writes captions, split, tokenizer and prompt list."""

import io
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from tools.emoji.common import ASSETS, CACHE, SEED, read_json, write_json
from tools.emoji.words import VENDORS, categories_of, drawn_answers, entries, prompt_answers, styled

PACKAGES = {
    "noto": "emoji-datasource-google@16.0.0",
    "twemoji": "emoji-datasource-twitter@16.0.0",
    "fluent": "@lobehub/fluent-emoji-3d@1.1.0",
}
SIZE = 64
MAX_TOKENS = 12
HELD_OUT = 0.08
IMAGES, TABLE = CACHE / "images.npy", CACHE / "table.json"


@dataclass(frozen=True)
class Dataset:
    """Images (N, 3, 64, 64) uint8 with one row of facts each (caption, subcategory, vendor, held_out)."""

    images: torch.Tensor
    rows: list[dict]

    def pick(self, held_out: bool) -> "Dataset":
        """The training rows or the held-out rows."""
        keep = [i for i, row in enumerate(self.rows) if row["held_out"] == held_out]
        return Dataset(self.images[keep], [self.rows[i] for i in keep])

    def floats(self) -> torch.Tensor:
        """Images as float in [0, 1]."""
        return self.images.float() / 255


def tarball(package: str) -> Path:
    """The package's tarball in the cache, fetched by ``npm pack`` when missing."""
    name, _, version = package.rpartition("@")
    path = CACHE / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        if shutil.which("npm") is None:
            raise RuntimeError("npm is needed to fetch the artwork (npm pack); install Node.js and run again")
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", package], cwd=CACHE, check=True)
    return path


def on_white(data: bytes) -> Image.Image:
    """Decode, composite the alpha on white and bring to 64x64 with antialiasing."""
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    flat = Image.alpha_composite(white, picture).convert("RGB")
    return flat if flat.size == (SIZE, SIZE) else flat.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def code_points(emoji: dict) -> list[str]:
    """The spellings of an emoji's code points that file names use."""
    full = emoji["unified"].lower()
    return [full, full.replace("-fe0f", ""), (emoji.get("non_qualified") or full).lower()]


def pictures(vendor: str, wanted: dict[str, dict]) -> dict[str, bytes]:
    """One vendor's picture files by short name, read in a single pass over the tarball."""
    folder = {"noto": "package/img/google/64", "twemoji": "package/img/twitter/64", "fluent": "package/assets"}[vendor]
    names = {code: short for short, emoji in wanted.items() for code in reversed(code_points(emoji))}
    found = {}
    with tarfile.open(tarball(PACKAGES[vendor])) as archive:
        for member in archive:
            parent, _, file_name = member.name.rpartition("/")
            short = names.get(file_name.rpartition(".")[0])
            if parent == folder and short is not None:
                file = archive.extractfile(member)
                assert file is not None
                found[short] = file.read()
    if missing := wanted.keys() - found.keys():
        raise RuntimeError(f"{vendor} has no pictures of {sorted(missing)}")
    return found


def render() -> tuple[np.ndarray, list[dict]]:
    """All pictures and their rows; the split holds out at most one vendor per emoji."""
    with tarfile.open(tarball(PACKAGES["noto"])) as archive:
        file = archive.extractfile("package/emoji.json")
        assert file is not None
        known = {emoji["short_name"]: emoji for emoji in json.load(file)}
    chosen = entries()
    rng = np.random.default_rng(SEED)
    count = round(HELD_OUT * len(chosen) * len(VENDORS))
    emoji, vendors = rng.permutation(len(chosen))[:count], rng.integers(len(VENDORS), size=count)
    held = dict(zip(emoji.tolist(), vendors.tolist(), strict=True))
    images, rows = [], []
    for v, vendor in enumerate(VENDORS):
        files = pictures(vendor, {short: known[short] for short, _, _ in chosen})
        for i, (short, caption, subcategory) in enumerate(tqdm(chosen, desc=f"data: {vendor}", mininterval=2)):
            images.append(np.asarray(on_white(files[short])))
            rows.append(
                {
                    "emoji": short,
                    "caption": caption,
                    "subcategory": subcategory,
                    "categories": categories_of(subcategory),
                    "vendor": vendor,
                    "held_out": held.get(i) == v,
                }
            )
    return np.stack(images).transpose(0, 3, 1, 2), rows


def all_captions() -> list[str]:
    """Every prompt the models are trained on, sorted: without style and in each style."""
    bare = sorted(prompt_answers())
    return ["", *bare, *(styled(caption, vendor) for caption in bare for vendor in VENDORS)]


def captions_of(row: dict) -> tuple[list[str], list[float]]:
    """The captions that describe a row and how often each is drawn (name, subcategory, category, nothing)."""
    bare = [(row["caption"], 0.5), (row["subcategory"], 0.3)]
    bare += [(word, 0.1 / len(row["categories"])) for word in row["categories"]]
    texts, weights = [""], [0.1 if row["categories"] else 0.2]
    for text, weight in bare:
        texts += [text, styled(text, row["vendor"])]
        weights += [weight / 2, weight / 2]
    return texts, weights


def load() -> Dataset:
    """The prepared data set."""
    return Dataset(torch.from_numpy(np.load(IMAGES)), read_json(TABLE))


def run() -> None:
    """Prepare everything that the other stages read."""
    from tools.emoji.tokens import save_tokenizer

    if not (IMAGES.exists() and TABLE.exists()):
        images, rows = render()
        np.save(IMAGES, images)
        write_json(TABLE, rows)
    write_json(ASSETS / "prompts.json", drawn_answers())
    save_tokenizer(all_captions(), ASSETS / "tokenizer", MAX_TOKENS)
