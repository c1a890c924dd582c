"""Trains the preference reward of the demonstration: raters who like the house style better, on top of the scorer.

Every pair shows one emoji by the house's vendor and by another. A tenth of the labels are wrong, as raters' are.
Emoji of which the scorer has never seen one picture are left for measuring. The judge is not used.
"""

from dataclasses import asdict

import torch

from sfumato.emoji64 import HOUSE_STYLE
from sfumato.preferences import Pair, PreferenceTraining, evaluate_preference, train_preference
from sfumato.rewards import PreferenceReward
from sfumato.runs import write_json
from tools.emoji import autoencoder
from tools.emoji.augment import augment
from tools.emoji.common import ASSETS, SEED
from tools.emoji.data import Dataset, load

NOISE = 0.1
FOLDER = ASSETS / "preference"
VARIANTS = 4
TRAINING = PreferenceTraining(lr=1e-2, steps=2000, patience=10, calibrate=False, curve=[], seed=SEED + 4)


def pictures(data: Dataset) -> dict[str, torch.Tensor]:
    """Every picture by name: as drawn, through the autoencoder, and in augmented variants that resemble samples."""
    images = data.floats()
    copies = autoencoder.reconstruct(autoencoder.load_trained(), images)
    generator = torch.Generator().manual_seed(SEED + 7)
    kinds = {"drawn": images, "copied": copies}
    kinds |= {str(number): augment(images, copies, generator) for number in range(VARIANTS)}
    return {
        name(row["emoji"], row["vendor"], kind): picture
        for kind, batch in kinds.items()
        for row, picture in zip(data.rows, batch, strict=True)
    }


def name(emoji: str, vendor: str, kind: str) -> str:
    """What pairs call a picture."""
    return f"{emoji}, {vendor}, {kind}"


def split(data: Dataset) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn from and held-out pairs, rightly labelled, the house style first or second by turns.

    A held-out pair contains a picture of the held-out split; its emoji occurs in no pair to learn from.
    """
    held = {row["emoji"]: row["vendor"] for row in data.rows if row["held_out"]}
    learn: list[Pair] = []
    measure: list[Pair] = []
    for i, row in enumerate(row for row in data.rows if row["vendor"] != HOUSE_STYLE):
        if row["emoji"] in held and held[row["emoji"]] not in (row["vendor"], HOUSE_STYLE):
            continue
        names = [name(row["emoji"], vendor, "{}") for vendor in (HOUSE_STYLE, row["vendor"])]
        pair = Pair(row["caption"], names[i % 2], names[1 - i % 2], float(i % 2 == 0))
        (measure if row["emoji"] in held else learn).append(pair)
    return learn, measure


def with_noise(pairs: list[Pair], seed: int) -> list[Pair]:
    """The same pairs with a tenth of the labels turned round."""
    wrong = torch.rand(len(pairs), generator=torch.Generator().manual_seed(seed)) < NOISE
    return [
        Pair(p.prompt, p.image_0, p.image_1, 1 - p.label if w else p.label) for p, w in zip(pairs, wrong, strict=True)
    ]


def of_kind(pairs: list[Pair], kind: str) -> list[Pair]:
    """The same pairs with both pictures in one kind."""
    return [Pair(p.prompt, p.image_0.format(kind), p.image_1.format(kind), p.label) for p in pairs]


def run() -> None:
    """Train, then write the asset with its held-out accuracy."""
    if (FOLDER / "evaluation.json").exists():
        return
    data = load()
    read = pictures(data).__getitem__
    learn, measure = split(data)
    noisy = with_noise(learn, SEED + 5)
    report = train_preference(
        ASSETS / "scorer",
        [pair for number in range(VARIANTS) for pair in of_kind(noisy, str(number))],
        of_kind(with_noise(measure, SEED + 6), "drawn"),
        FOLDER,
        TRAINING,
        read,
    )
    reward = PreferenceReward(FOLDER)
    report["true_labels"] = {
        kind: asdict(evaluate_preference(reward, of_kind(measure, kind), read)) for kind in ("drawn", "copied", "0")
    }
    write_json(FOLDER / "evaluation.json", report)
    print(f"preference: {report['accuracy']:.3f} of the held-out pairs ({report['low']:.3f} to {report['high']:.3f})")


if __name__ == "__main__":
    run()
