"""Rewards of pairs while a preference reward is trained, on one process or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from sfumato.config.preference import PreferenceTraining
from sfumato.preferences.pairs import Pair
from sfumato.rewards import PreferenceReward

ReadImage = Callable[[str], torch.Tensor]
READERS = 4


class Embedder:
    """Embeds images and prompts of pairs.

    With a frozen backbone each goes through it once, in batches that do not depend on the number of processes, which
    share them out; 2 N D numbers are kept for N pairs.

    Args:
        reward: whose backbone embeds.
        config: how it is trained.
        read: image (3,H,W) in [0, 1] of a pair's `image_0` or `image_1`; called from several threads. With full
            training it is called anew each time and may augment.
        accelerator: the processes.
    """

    def __init__(self, reward: PreferenceReward, config: PreferenceTraining, read: ReadImage, accelerator: Accelerator):
        self.backbone, self.config, self.read, self.accelerator = reward.backbone, config, read, accelerator
        self._readers = ThreadPoolExecutor(READERS)
        self._images, self._prompts = _Table(self.embed_images, self), _Table(self.embed_prompts, self)

    def remember(self, pairs: Sequence[Pair]) -> None:
        """Embed what the pairs have that is new, if the backbone is frozen."""
        if not self.config.full:
            self._prompts.add((pair.prompt for pair in pairs), "embedding prompts")
            self._images.add((image for pair in pairs for image in (pair.image_0, pair.image_1)), "embedding images")

    def rewards(self, reward: PreferenceReward, pairs: Sequence[Pair]) -> torch.Tensor:
        """r_0 and r_1 (B,2), with gradient to what is trained."""
        prompts = [pair.prompt for pair in pairs]
        images = [pair.image_0 for pair in pairs] + [pair.image_1 for pair in pairs]
        if self.config.full:
            texts, pictures = self.embed_prompts(prompts), self.embed_images(images)
        else:
            texts, pictures = self._prompts[prompts], self._images[images]
        return reward.logits(pictures, torch.cat([texts, texts])).view(2, -1).T

    @torch.no_grad()
    def all_rewards(self, reward: PreferenceReward, pairs: Sequence[Pair]) -> torch.Tensor:
        """The same (N,2) of many pairs, in batches that the processes share out."""
        found = torch.zeros(len(pairs), 2, device=self.accelerator.device)
        size, processes = self.config.micro_batch_size or self.config.batch_size, self.accelerator.num_processes
        for start in range(self.accelerator.process_index * size, len(pairs), size * processes):
            found[start : start + size] = self.rewards(reward, pairs[start : start + size])
        return self.accelerator.reduce(found, reduction="sum")

    def embed_prompts(self, prompts: list[str]) -> torch.Tensor:
        """Unit vectors (B,D)."""
        with self._autocast():
            return self.backbone.text_embeds(prompts)

    def embed_images(self, keys: list[str]) -> torch.Tensor:
        """Unit vectors (B,D) of images by key."""
        images = (image[None].to(self.backbone.model.device) for image in self._readers.map(self.read, keys))
        pixels = torch.cat([self.backbone.preprocess(image) for image in images])
        with self._autocast():
            return self.backbone.pixel_embeds(pixels)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.config.autocast is not None)


class _Table:
    """Embeddings (N,D) by key."""

    def __init__(self, embed: Callable[[list[str]], torch.Tensor], embedder: Embedder):
        self.embed, self.embedder = embed, embedder
        self.places: dict[str, int] = {}
        self.rows = torch.empty(0)

    @torch.no_grad()
    def add(self, keys: Iterable[str], what: str) -> None:
        accelerator, config = self.embedder.accelerator, self.embedder.config
        new = [key for key in dict.fromkeys(keys) if key not in self.places]
        size, rank, processes = config.batch_size, accelerator.process_index, accelerator.num_processes
        found = [self.rows] if self.places else []
        bar = tqdm(total=len(new), desc=what, disable=not accelerator.is_main_process or not new)
        for start in range(0, len(new), size * processes):
            mine = new[start + rank * size : start + (rank + 1) * size]
            rows = torch.zeros(size, self.embedder.backbone.width, device=accelerator.device)
            if mine:
                rows[: len(mine)] = self.embed(mine)
            count = min(size * processes, len(new) - start)
            found.append(accelerator.gather(rows)[:count])
            bar.update(count)
        bar.close()
        self.places |= {key: len(self.places) + i for i, key in enumerate(new)}
        self.rows = torch.cat(found) if found else self.rows

    def __getitem__(self, keys: list[str]) -> torch.Tensor:
        return self.rows[[self.places[key] for key in keys]]
