"""Trains the judge, the classifier of subcategory and style that no other model sees."""

import os

import torch
import torch.nn.functional as F
from tqdm import tqdm

from sfumato.judge import Judge
from tools.emoji.augment import augment
from tools.emoji.autoencoder import load_trained as load_autoencoder
from tools.emoji.autoencoder import reconstruct
from tools.emoji.common import ASSETS, CACHE, SEED, Trainee, batches, cosine, replace_folder, step_generator
from tools.emoji.data import Dataset, load
from tools.emoji.words import EMOJI, VENDORS

STEPS, BATCH, PEAK = int(os.environ.get("SFUMATO_EMOJI_JUDGE_STEPS", 1500)), 64, 2e-3
FOLDER = ASSETS / "judge"


def labels(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Class indices (N,) of subcategory and style."""
    kinds = list(EMOJI)
    subcategory = torch.tensor([kinds.index(row["subcategory"]) for row in data.rows])
    return subcategory, torch.tensor([VENDORS.index(row["vendor"]) for row in data.rows])


def run() -> None:
    """Train (or continue), then write the asset."""
    if (FOLDER / "model.safetensors").exists():
        return
    data = load().pick(held_out=False)
    images, (subcategory, style) = data.floats(), labels(data)
    copies = reconstruct(load_autoencoder(), images)
    torch.manual_seed(SEED + 2)
    model = Judge(list(EMOJI), list(VENDORS)).to(memory_format=torch.channels_last)
    trainee = Trainee(model, CACHE / "judge.safetensors", PEAK, decay=0.99, weight_decay=0.05)
    trainee.load()
    start = trainee.facts["step"]
    rows = batches(len(images), BATCH, SEED + 2, start)
    for step in (bar := tqdm(range(start, STEPS), desc="judge", initial=start, total=STEPS, mininterval=5)):
        generator, chosen = step_generator(SEED + 2, step), next(rows)
        pixels = augment(images[chosen], copies[chosen], generator, shift=0.1, zoom=0.2)
        output = model(pixels.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(output.subcategory, subcategory[chosen], label_smoothing=0.1)
        loss = loss + 0.5 * F.cross_entropy(output.style, style[chosen], label_smoothing=0.05)
        trainee.update(loss, cosine(step, STEPS, PEAK, warmup=100))
        if step % 200 == 199 or step == STEPS - 1:
            trainee.save()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    trainee.copy_average(model)
    made = CACHE / "judge"
    model.half().save_pretrained(made)
    replace_folder(made, FOLDER)


def load_trained() -> Judge:
    """The trained judge in float32."""
    return Judge.from_pretrained(FOLDER)


if __name__ == "__main__":
    run()
