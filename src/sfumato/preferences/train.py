"""Fits a preference reward to pairs by the Bradley-Terry loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sfumato.images import load_image
from sfumato.preferences.evaluate import PreferenceAccuracy, bradley_terry_loss
from sfumato.preferences.pairs import Pair
from sfumato.rewards import PreferenceReward
from sfumato.runs import write_json

ReadImage = Callable[[str], torch.Tensor]


@dataclass(frozen=True)
class PreferenceTraining:
    """How a preference reward is trained.

    Attributes:
        trainable: "head" learns a logit on the frozen backbone's image embeddings; "full" moves the backbone too.
        hidden: units of the head's hidden layer; 0 is a linear head.
        lr: AdamW's learning rate.
        weight_decay: AdamW's weight decay.
        batch_size: pairs per step.
        steps: at most so many.
        evaluate_every: steps between looks at the held-out pairs.
        patience: stop after so many looks without a lower held-out loss.
        seed: of the head and the order of pairs.
    """

    trainable: Literal["head", "full"] = "head"
    hidden: int = 0
    lr: float = 3e-3
    weight_decay: float = 0.0
    batch_size: int = 32
    steps: int = 1000
    evaluate_every: int = 50
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trainable not in ("head", "full"):
            raise ValueError(f"trainable is 'head' or 'full', not {self.trainable!r}")
        if min(self.steps, self.batch_size, self.evaluate_every, self.patience) < 1:
            raise ValueError("steps, batch_size, evaluate_every and patience are at least 1")


def fit_preference(
    reward: PreferenceReward,
    pairs: Sequence[Pair],
    held_out: Sequence[Pair],
    config: PreferenceTraining,
    read: ReadImage = load_image,
) -> Iterator[dict[str, float]]:
    """Train `reward` in place and leave it, frozen, at the step of the lowest held-out loss.

    Args:
        reward: gets a new head.
        pairs: to learn from.
        held_out: to stop by and to report on; they should share no image with `pairs`.
        config: how.
        read: image (3,H,W) in [0, 1] of a pair's `image_0` or `image_1`; with "full" training it is called anew each
            time and may augment.

    Yields:
        A record per look at the held-out pairs: step, train_loss, and those of `PreferenceAccuracy`.

    Raises:
        ValueError: one of the two lists of pairs is empty.
    """
    if not pairs or not held_out:
        raise ValueError(f"training needs pairs on both sides: {len(pairs)} to learn from, {len(held_out)} held out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        head = reward.add_head(config.hidden)
    full = config.trainable == "full"
    trained = torch.nn.ModuleList([head, reward.backbone.model] if full else [head]).requires_grad_(True)
    embed = _Embedder(reward, full, read)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(config.seed)
    best, best_loss, waited = _copy(trained), float("inf"), 0
    losses: list[float] = []
    try:
        for step, batch in enumerate(_batches(pairs, config, generator), 1):
            loss = bradley_terry_loss(*embed.margins(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if step % config.evaluate_every and step != config.steps:
                continue
            result = embed.evaluate(held_out, config.batch_size)
            yield {"step": step, "train_loss": sum(losses) / len(losses), **asdict(result)}
            losses.clear()
            waited += 1
            if result.loss < best_loss:
                best, best_loss, waited = _copy(trained), result.loss, 0
            if waited == config.patience:
                break
    finally:
        trained.load_state_dict(best)
        trained.requires_grad_(False)
        reward.backbone.forget_texts()


def train_preference(
    model: str | Path,
    pairs: Sequence[Pair],
    held_out: Sequence[Pair],
    folder: str | Path,
    config: PreferenceTraining | None = None,
    read: ReadImage = load_image,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Train a preference reward on a CLIP and write the folder that `PreferenceReward` loads.

    Args:
        model: folder or hub id of a transformers `CLIPModel`.
        pairs: to learn from.
        held_out: to stop by and to report on.
        folder: gets the head (with "full" training also the backbone) and `evaluation.json`.
        config: how; the defaults of `PreferenceTraining` unless given.
        read: as in `fit_preference`.
        device: where to train.

    Returns:
        What `evaluation.json` holds: held-out accuracy with its 95 % Wilson interval, loss, step, numbers of pairs,
        the configuration.
    """
    from tqdm.auto import tqdm

    config = config or PreferenceTraining()
    reward = PreferenceReward(model, device=device)
    records = []
    with tqdm(total=config.steps, desc="preference") as bar:
        for record in fit_preference(reward, pairs, held_out, config, read):
            records.append(record)
            bar.update(int(record["step"]) - bar.n)
            bar.set_postfix(accuracy=f"{record['accuracy']:.3f}", loss=f"{record['loss']:.4f}")
    best = min(records, key=lambda record: record["loss"])
    evaluation = {**best, "pairs": len(pairs), "held_out": len(held_out), "training": asdict(config)}
    reward.save(folder, with_backbone=config.trainable == "full")
    write_json(Path(folder) / "evaluation.json", evaluation)
    return evaluation


class _Embedder:
    """Rewards of pairs. With a frozen backbone, every image and prompt goes through it only once."""

    def __init__(self, reward: PreferenceReward, full: bool, read: ReadImage):
        self.reward, self.full, self.read = reward, full, read
        self.cache: dict[str, torch.Tensor] = {}

    def margins(self, pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
        """r_0 - r_1 (B,) and labels (B,)."""
        backbone = self.reward.backbone
        texts = (backbone.text_embeds if self.full else backbone.cached_text_embeds)([p.prompt for p in pairs])
        images = self._images([p.image_0 for p in pairs] + [p.image_1 for p in pairs])
        reward_0, reward_1 = self.reward.logits(images, torch.cat([texts, texts])).chunk(2)
        return reward_0 - reward_1, reward_0.new_tensor([pair.label for pair in pairs])

    @torch.no_grad()
    def evaluate(self, pairs: Sequence[Pair], batch_size: int) -> PreferenceAccuracy:
        parts = [self.margins(pairs[start : start + batch_size]) for start in range(0, len(pairs), batch_size)]
        margins, labels = (torch.cat(column) for column in zip(*parts, strict=True))
        return PreferenceAccuracy.from_margins(margins, labels)

    def _images(self, keys: list[str]) -> torch.Tensor:
        """Embeddings (N,D) of images by key."""
        backbone = self.reward.backbone
        wanted = keys if self.full else [key for key in dict.fromkeys(keys) if key not in self.cache]
        if wanted:
            images = (self.read(key)[None].to(backbone.model.device) for key in wanted)
            embeds = backbone.pixel_embeds(torch.cat([backbone.preprocess(image) for image in images]))
            if self.full:
                return embeds
            self.cache.update(zip(wanted, embeds, strict=True))
        return torch.stack([self.cache[key] for key in keys])


def _batches(pairs: Sequence[Pair], config: PreferenceTraining, generator: torch.Generator) -> Iterator[list[Pair]]:
    """`config.steps` batches; every pair is seen once before any is seen again."""
    order: list[int] = []
    for _ in range(config.steps):
        while len(order) < config.batch_size:
            order += torch.randperm(len(pairs), generator=generator).tolist()
        chosen, order = order[: config.batch_size], order[config.batch_size :]
        yield [pairs[index] for index in chosen]


def _copy(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
