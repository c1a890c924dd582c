"""A planted preference: of two pictures the less red one is liked better, while the untrained CLIP likes red."""

from pathlib import Path

import torch

from sfumato.images import save_png
from sfumato.preferences import Pair, save_pairs

PROMPTS = [first + second for first in "abcdefgh" for second in "ijkl"]


def red_pictures(count, seed=0):
    """Pictures (count,3,16,16) and how red each is."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(count, 3, 16, 16, generator=generator) * 0.2
    redness = torch.rand(count, generator=generator)
    pictures[:, 0] += 0.8 * redness[:, None, None]
    return pictures, redness


def write_pairs(folder: Path, count: int, seed: int = 0, prompts: list[str] = PROMPTS, name: str = "pairs") -> Path:
    """Write pairs with their pictures as PNG; the first two are ties, then image 1 and 0 are preferred by turns."""
    pictures, redness = red_pictures(2 * count, seed)
    pairs = []
    for i in range(count):
        paths = [folder / name / f"{2 * i + j}.png" for j in (0, 1)]
        first_liked = redness[2 * i] < redness[2 * i + 1]
        swapped = first_liked == (i % 2 == 0)
        for j, path in enumerate(paths):
            save_png(pictures[2 * i + (j ^ int(swapped))], path)
        pairs.append(Pair(prompts[i % len(prompts)], *map(str, paths), 0.5 if i < 2 else float(i % 2)))
    save_pairs(folder / f"{name}.jsonl", pairs)
    return folder / f"{name}.jsonl"
