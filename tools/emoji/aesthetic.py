"""Learns the aesthetic reward of the demonstration from raters who like flat, clean pictures, whatever they show.

As LAION's predictor is, it is one linear map of the scorer's image embedding learned from ratings of 1 to 10, here by
ridge regression. A rating is what the picture's style is worth plus the rater's mood. Emoji of which the scorer has
never seen one picture are left for measuring. The judge is not used.
"""

import torch

from sfumato.emoji64 import STYLES
from sfumato.rewards import load_backbone
from sfumato.runs import write_json
from sfumato.weights import save_weights
from tools.emoji import autoencoder
from tools.emoji.augment import augment
from tools.emoji.common import ASSETS, SEED
from tools.emoji.data import load

WORTH = {"twemoji": 7.5, "noto": 5.5, "fluent": 3.5}
MOOD = 1.0
RIDGE = 1e-2
FOLDER = ASSETS / "aesthetic"
VARIANTS = 4


def ratings(vendors: list[str], generator: torch.Generator) -> torch.Tensor:
    """A rating of 1 to 10 for each picture, (N,)."""
    worth = torch.tensor([WORTH[vendor] for vendor in vendors])
    return (worth + MOOD * torch.randn(len(vendors), generator=generator)).clamp(1, 10)


def fit(embeds: torch.Tensor, rated: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The ridge regression w (D,) and b () of ratings on embeddings (N, D)."""
    x, y = embeds.double(), rated.double()
    mean = x.mean(0)
    gram = (x - mean).T @ (x - mean) / len(x)
    spread = RIDGE * gram.trace() / len(gram) * torch.eye(len(gram), dtype=x.dtype)
    weight = torch.linalg.solve(gram + spread, (x - mean).T @ (y - y.mean()) / len(x))
    return weight.float(), (y.mean() - mean @ weight).float()


@torch.no_grad()
def run() -> None:
    """Learn, then write the asset with what it knows of held-out pictures."""
    if (FOLDER / "evaluation.json").exists():
        return
    data = load()
    images = data.floats()
    copies = autoencoder.reconstruct(autoencoder.load_trained(), images)
    generator = torch.Generator().manual_seed(SEED + 8)
    vendors = [row["vendor"] for row in data.rows]
    held = {row["emoji"] for row in data.rows if row["held_out"]}
    measured = torch.tensor([row["emoji"] in held for row in data.rows])
    backbone = load_backbone(ASSETS / "scorer")

    def embeds(batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([backbone.image_embeds(part) for part in batch.split(128)])

    seen = torch.cat([embeds(augment(images, copies, generator))[~measured] for _ in range(VARIANTS)])
    own = [vendor for vendor, left in zip(vendors, measured, strict=True) if not left]
    weight, bias = fit(seen, torch.cat([ratings(own, generator) for _ in range(VARIANTS)]))
    rated = ratings(vendors, generator)[measured]
    facts = {"pictures": int((~measured).sum()), "held_out_pictures": int(measured.sum()), "worth": WORTH, "mood": MOOD}
    for kind, batch in {"drawn": images, "copied": copies}.items():
        said = (embeds(batch) @ weight + bias)[measured]
        kinds = torch.tensor([STYLES.index(v) for v, left in zip(vendors, measured, strict=True) if left])
        facts[kind] = {
            "correlation_with_ratings": float(torch.corrcoef(torch.stack([said, rated]))[0, 1]),
            "means": {style: float(said[kinds == number].mean()) for number, style in enumerate(STYLES)},
        }
    FOLDER.mkdir(parents=True, exist_ok=True)
    tensors = {"weight": weight, "bias": bias}
    save_weights(FOLDER / "model.safetensors", tensors, "aesthetic", [ASSETS / "scorer" / "model.safetensors"])
    write_json(FOLDER / "evaluation.json", facts)
    print(f"aesthetic: correlation {facts['drawn']['correlation_with_ratings']:.2f} with held-out ratings")


if __name__ == "__main__":
    run()
