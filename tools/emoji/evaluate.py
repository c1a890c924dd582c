"""Measures all bundled models on held-out artwork and on samples, and draws the picture grids."""

import math

import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from sfumato.judge import Judge, JudgeOutput
from tools.emoji import autoencoder, judge, scorer
from tools.emoji.common import read_json, write_json
from tools.emoji.data import Dataset, load
from tools.emoji.pictures import FLOW, UNET, Bundled
from tools.emoji.words import CATEGORIES, EMOJI, VENDORS, drawn, drawn_answers, entries, styled

SHOWN = [
    "red apple", "banana", "fruit", "vegetable", "rose", "flower", "cat face", "fox face", "panda face", "mammal",
    "penguin", "bird", "butterfly", "fish", "sea creature", "face", "smiling face, noto style",
    "smiling face, twemoji style", "smiling face, fluent style", "sunglasses face", "red heart", "heart", "cupcake",
    "dessert", "beer mug", "drink", "red car", "bus", "vehicle", "airplane", "boat", "soccer ball", "weather",
    "plant", "animal", "food",
]  # fmt: skip


@torch.no_grad()
def judged(model: Judge, images: torch.Tensor) -> JudgeOutput:
    """The judge's output for many images."""
    parts = [model(part) for part in images.split(128)]
    return JudgeOutput(*(torch.cat(field) for field in zip(*parts, strict=True)))


def frechet(x: torch.Tensor, y: torch.Tensor) -> float:
    """Squared Frechet distance of Gaussians fitted to two sets of features (N, D), in float64."""
    x, y = x.double(), y.double()
    shift = (x.mean(0) - y.mean(0)).square().sum()
    values, vectors = torch.linalg.eigh(x.T.cov())
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ y.T.cov() @ root).clamp_min(0).sqrt().sum()
    return float(shift + x.T.cov().trace() + y.T.cov().trace() - 2 * cross)


def entropy(chances: torch.Tensor) -> float:
    """Entropy in units of its maximum, 0 to 1."""
    return max(0.0, float(-(chances * chances.clamp_min(1e-12).log()).sum()) / math.log(len(chances)))


def real(model: Judge, train: Dataset, held: Dataset) -> dict:
    """The judge, the autoencoder and the scorer on real pictures."""
    images = held.floats()
    subcategory, style = judge.labels(held)
    said = judged(model, images)
    shown = torch.tensor([row["caption"] in drawn_answers() for row in held.rows])
    vae = autoencoder.load_trained()
    names = [caption for _, caption, _ in entries()]
    truth = torch.tensor([names.index(row["caption"]) for row in held.rows])
    clip = scorer.load_trained()
    best = scorer.scores(clip, images, names).topk(5).indices
    kinds = scorer.scores(clip, images, list(EMOJI)).argmax(1)
    pairs = [[styled(row["caption"], vendor) for vendor in VENDORS] for row in held.rows]
    vendors = torch.stack([scorer.scores(clip, images[i : i + 1], p)[0] for i, p in enumerate(pairs)]).argmax(1)
    return {
        "held_out_images": len(images),
        "training_images": len(train.images),
        "judge_subcategory_accuracy": float((said.subcategory.argmax(1) == subcategory).float().mean()),
        "judge_style_accuracy": float((said.style.argmax(1) == style).float().mean()),
        "judge_subcategory_accuracy_drawn": float((said.subcategory.argmax(1) == subcategory)[shown].float().mean()),
        "autoencoder_psnr_held_out_db": autoencoder.psnr(images, autoencoder.reconstruct(vae, images)),
        "autoencoder_psnr_training_db": autoencoder.psnr(train.floats(), autoencoder.reconstruct(vae, train.floats())),
        "scorer_name_top1": float((best[:, 0] == truth).float().mean()),
        "scorer_name_top5": float((best == truth[:, None]).any(1).float().mean()),
        "scorer_subcategory_accuracy": float((kinds == subcategory).float().mean()),
        "scorer_style_accuracy": float((vendors == style).float().mean()),
    }


def accuracy(said: JudgeOutput, prompts: list[str]) -> dict:
    """Share of samples with a right subcategory and, where the prompt names one, the right style."""
    answers, kinds = drawn_answers(), list(EMOJI)
    right, style = [], []
    for i, prompt in enumerate(prompts):
        name, _, suffix = prompt.partition(", ")
        right.append(kinds[int(said.subcategory[i].argmax())] in answers[name])
        if suffix:
            style.append(VENDORS[int(said.style[i].argmax())] == suffix.removesuffix(" style"))
    result = {"samples": len(right), "subcategory_accuracy": sum(right) / len(right)}
    return {**result, "style_accuracy": sum(style) / len(style)} if style else result


def prompt_sets() -> dict[str, list[str]]:
    """The prompts of the measured groups."""
    names = [caption for _, caption, _ in drawn()]
    known = drawn_answers()
    kinds = [word for word in EMOJI if word in known]
    return {
        "names": names[::3],
        "names_with_style": [styled(name, VENDORS[i % 3]) for i, name in enumerate(names[1::3])],
        "subcategories": [word for word in kinds for _ in range(12)],
        "subcategories_with_style": [styled(word, vendor) for word in kinds for vendor in VENDORS],
        "categories": [word for word in CATEGORIES if word in known for _ in range(12)],
    }


def shares(said: JudgeOutput, prompts: list[str]) -> dict:
    """Per bare prompt: shares of the judged styles and the entropy of style and subcategory."""
    result = {}
    for prompt in dict.fromkeys(prompts):
        rows = [i for i, other in enumerate(prompts) if other == prompt]
        votes = torch.bincount(said.style[rows].argmax(1), minlength=len(VENDORS)) / len(rows)
        kinds = torch.bincount(said.subcategory[rows].argmax(1), minlength=len(EMOJI)) / len(rows)
        styles = {vendor: round(float(share), 3) for vendor, share in zip(VENDORS, votes, strict=True)}
        result[prompt] = {
            "style_shares": styles,
            "style_entropy": entropy(votes),
            "subcategory_entropy": entropy(kinds),
        }
    return result


def grid(bundled: Bundled, columns: int = 6, across: int = 2) -> Image.Image:
    """Captioned samples: ``columns`` per prompt, ``across`` prompts side by side."""
    known = drawn_answers()
    shown = [prompt for prompt in SHOWN if prompt.partition(", ")[0] in known]
    images = bundled.sample(bundled.load(), [p for p in shown for _ in range(columns)], 7)
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    width, height = columns * 66 + 20, 84
    sheet = Image.new("RGB", (width * across, height * math.ceil(len(shown) / across)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, prompt in enumerate(shown):
        x, y = i % across * width, i // across * height
        draw.text((x + 4, y + 2), prompt, fill="black", font_size=13)
        for j in range(columns):
            sheet.paste(Image.fromarray(pixels[i * columns + j]), (x + 66 * j, y + 18))
    return sheet


def sampled(model: Judge, bundled: Bundled, train: Dataset, held: Dataset) -> dict:
    """What the judge says of a pipeline's samples."""
    kept = [i for i, row in enumerate(train.rows) if row["caption"] in drawn_answers()]
    pipe = bundled.load()
    result: dict = {"settings": bundled.call, "samples": {}}
    features, said = [], {}
    for i, (group, prompts) in enumerate(tqdm(prompt_sets().items(), desc=f"evaluate {bundled.folder.name}")):
        said[group] = judged(model, bundled.sample(pipe, prompts, seed=1000 + i))
        result["samples"][group] = accuracy(said[group], prompts)
        features.append(said[group].features if group.startswith("names") else said[group].features[:0])
    pooled, reference = torch.cat(features), judged(model, train.floats()[kept]).features
    few = torch.randperm(len(pooled), generator=torch.Generator().manual_seed(0))[: len(held.images)]
    result["frechet_distance_in_judge_features"] = {
        "samples_to_training": frechet(pooled, reference),
        "as_many_samples_as_held_out_to_training": frechet(pooled[few], reference),
        "held_out_to_training": frechet(judged(model, held.floats()).features, reference),
    }
    bare = ("subcategories", "categories")
    result["diversity"] = {k: v for g in bare for k, v in shares(said[g], prompt_sets()[g]).items()}
    entropies = [row["style_entropy"] for row in result["diversity"].values()]
    result["mean_style_entropy"] = sum(entropies) / len(entropies)
    denoiser = getattr(pipe, bundled.part)
    result[f"{bundled.part}_parameters"] = sum(parameter.numel() for parameter in denoiser.parameters())
    result["training"] = read_json(bundled.folder / "training.json")
    return result


def finished(bundled: Bundled) -> bool:
    """Whether the results beside a pipeline are those of its present weights."""
    file = bundled.folder / "evaluation.json"
    made = file.exists() and (bundled.folder / "grid.png").exists()
    return made and read_json(file)["training"] == read_json(bundled.folder / "training.json")


def run() -> None:
    """Measure what has changed and write evaluation.json and grid.png beside each pipeline."""
    for bundled in (UNET, FLOW):
        if finished(bundled):
            continue
        data, model = load(), judge.load_trained()
        train, held = data.pick(False), data.pick(True)
        result = sampled(model, bundled, train, held)
        if bundled is UNET:
            result["real"] = real(model, train, held)
        grid(bundled).save(bundled.folder / "grid.png", optimize=True)
        write_json(bundled.folder / "evaluation.json", result)
        print(result["samples"])


if __name__ == "__main__":
    run()
