"""Preference rewards of the PickScore kind, with or without a head learned from pairs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from sfumato.rewards.backbone import CLIPBackbone, load_backbone
from sfumato.rewards.base import UNBOUNDED, Device, Reward, Source
from sfumato.rewards.compose import Ensemble
from sfumato.rewards.info import BUNDLED, RewardInfo

PREFERENCE_FILE, HEAD_FILE, FINGERPRINT = "preference.json", "head.safetensors", "backbone"


class PreferenceHead(nn.Module):
    """A learned logit of the image alone, and the weight of its match with the prompt.

    The logit is what the raters like whatever was asked for. Untrained, it is zero and the weight is one. The weight
    is learned too: a CLIP's temperature suits telling captions apart, not preferences between images of one caption.

    Args:
        width: D, the length of the backbone's embeddings.
        hidden: units of a hidden layer; 0 is a linear head.
    """

    def __init__(self, width: int, hidden: int = 0):
        super().__init__()
        self.width, self.hidden = width, hidden
        self.features = nn.Sequential(nn.Linear(width, hidden), nn.GELU()) if hidden else nn.Identity()
        self.output = nn.Linear(hidden or width, 1)
        self.match = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, image_embeds: torch.Tensor) -> torch.Tensor:
        """Logits (B,) of unit vectors (B,D)."""
        # scaled to unit variance per coordinate, so that one learning rate suits every width
        return self.output(self.features(image_embeds * math.sqrt(self.width))).squeeze(-1)


class PreferenceReward:
    """A Bradley-Terry preference reward over any CLIP or SigLIP: P(image a is preferred to b) = sigmoid(r_a - r_b).

    r = exp(s) cos(image, text)                      PickScore (Kirstain et al. 2023, arXiv 2305.01569)
    r = w exp(s) cos(image, text) + head(image)      with w and a head learned by `sfumato.preferences`

    r is a logit: only differences for the same prompt mean something, and a negative value is no error. Without a head
    it lies in [-exp(s), exp(s)] (100 for CLIP; PickScore gives 17 to 24). A cosine of fixed temperature cannot grow
    past that, while the head can, as reward models of the ImageReward kind do: it is where over-optimisation shows.
    With one it is unbounded. Images are floats in [0, 1]. Differentiable. The licence is that of the model that is
    given; PickScore's is MIT.

    Args:
        model: folder or hub id of a `CLIPModel` or `SiglipModel`, or a local folder written by `save`.
        processor: folder or hub id of tokenizer and `preprocessor_config.json`, if they are kept elsewhere.
        device: where the model runs.
        dtype: of the backbone's weights; float32 unless given. The head keeps float32.

    Raises:
        OSError: there is no such model, it has no safetensors weights, or the backbone of the folder is not where it
            was.
        ValueError: the weights are damaged, the head was learned on another backbone than the one it refers to, or the
            folder holds an ensemble.
    """

    name = "preference"
    differentiable = True

    def __init__(
        self, model: Source, processor: Source | None = None, device: Device = "cpu", dtype: torch.dtype | None = None
    ):
        folder = Path(model)
        learned = _read_config(folder)
        if learned and "members" in learned:
            raise ValueError(f"{folder} holds an ensemble of {len(learned['members'])} rewards: build_reward loads it")
        if learned:
            model = _resolve(folder, learned["backbone"])
            processor = processor or (learned["processor"] and _resolve(folder, learned["processor"]))
        self.backbone = load_backbone(model, processor, device, dtype)
        self.head = _load_head(folder, learned["hidden"], self.backbone) if learned else None

    @property
    def range(self) -> tuple[float, float]:
        if self.head is not None:
            return UNBOUNDED
        scale = float(self.backbone.logit_scale)
        return (-scale, scale)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return self.logits(self.backbone.image_embeds(images), self.backbone.cached_text_embeds(prompts))

    def logits(self, image_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        """r (B,) from unit vectors (B,D)."""
        match = self.backbone.logit_scale * (image_embeds * text_embeds).sum(-1)
        return match if self.head is None else self.head.match * match + self.head(image_embeds)

    def add_head(self, hidden: int = 0) -> PreferenceHead:
        """Start a head for training; zero at first, it leaves the backbone's own judgement as it is."""
        self.head = PreferenceHead(self.backbone.width, hidden).to(self.backbone.logit_scale)
        return self.head

    @torch.no_grad()
    def rescale(self, factor: float, shift: float = 0.0) -> None:
        """Become factor * r + shift, which keeps the order of images: factor 1 / T calibrates by a temperature T.

        Without a head it is the backbone that changes, so it must be this reward's own.

        Raises:
            ValueError: the factor is not positive, or there is no head, in which alone a shift could be kept.
        """
        if factor <= 0 or (shift and self.head is None):
            raise ValueError("a reward is rescaled by a positive factor, and shifted only if it has a head")
        if self.head is None:
            self.backbone.model.logit_scale.add_(math.log(factor))
            return
        for parameter in (self.head.match, self.head.output.weight, self.head.output.bias):
            parameter.mul_(factor)
        self.head.output.bias.add_(shift)

    def save(self, folder: str | Path, with_backbone: bool) -> None:
        """Write a folder that `PreferenceReward(folder)` reads back exactly; without a head it is a plain CLIP.

        Args:
            folder: where to write.
            with_backbone: store the backbone too (it was trained); else refer to where it came from, a local folder
                by its relative path.

        Raises:
            ValueError: there is nothing to save: no head, and no trained backbone.
        """
        from safetensors.torch import save_file

        from sfumato.runs import atomic_path, write_json

        if self.head is None and not with_backbone:
            raise ValueError("this reward has no head: its whole content is the CLIP it was loaded from")
        folder = Path(folder)
        if with_backbone:
            self.backbone.save(folder)
        if self.head is None:
            return
        facts = {"backbone": ".", "processor": None, "hidden": self.head.hidden}
        if not with_backbone:
            source, processor = self.backbone.source, self.backbone.processor
            facts["backbone"] = _reference(folder, source)
            facts["processor"] = processor and _reference(folder, processor)
        with atomic_path(folder / HEAD_FILE) as temporary:
            save_file({**self.head.state_dict(), FINGERPRINT: _fingerprint(self.backbone)}, temporary)
        write_json(folder / PREFERENCE_FILE, facts)


def save_ensemble(folder: str | Path, members: Sequence[str], penalty: float) -> None:
    """Make a folder one reward, the ensemble of those in its subfolders: mean - penalty * deviation."""
    from sfumato.runs import write_json

    write_json(Path(folder) / PREFERENCE_FILE, {"members": list(members), "penalty": penalty})


def _read_config(folder: Path) -> dict | None:
    path = folder / PREFERENCE_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _reference(folder: Path, source: str) -> str:
    """What `folder` writes down for a local folder (its relative path) or a hub id (itself)."""
    return os.path.relpath(source, folder) if Path(source).is_dir() else source


def _resolve(folder: Path, reference: str) -> str:
    """The local folder or hub id that `_reference` wrote down.

    Raises:
        FileNotFoundError: the local folder is not there.
    """
    if (folder / reference).is_dir():
        return str((folder / reference).resolve())
    if reference.startswith(".."):
        raise FileNotFoundError(
            f"the reward in {folder} was learned on the model in {os.path.normpath(folder / reference)}, which is not "
            "there: keep the two in the same place relative to each other"
        )
    return reference


def _fingerprint(backbone: CLIPBackbone) -> torch.Tensor:
    """A row of weights (V,) that no other training of the same architecture shares."""
    named = backbone.model.named_parameters()
    last = [weight for name, weight in named if name.startswith("vis") and weight.ndim == 2][-1]  # of the image tower
    return last.detach()[0].float().cpu().contiguous()


def _load_head(folder: Path, hidden: int, backbone: CLIPBackbone) -> PreferenceHead:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / HEAD_FILE)
    except SafetensorError as error:
        raise ValueError(f"{folder / HEAD_FILE} is damaged ({error}): copy it or learn the reward again") from error
    known, found = weights.pop(FINGERPRINT), _fingerprint(backbone)
    if known.shape != found.shape or not torch.allclose(known, found, rtol=1e-2, atol=1e-4):
        raise ValueError(
            f"the reward in {folder} was learned on another CLIP than {backbone.source} holds now: "
            "put that one back, or learn the reward again"
        )
    head = PreferenceHead(backbone.width, hidden)
    head.load_state_dict(weights)
    return head.eval().requires_grad_(False).to(backbone.logit_scale)


def _preference(
    model: Source, processor: Source | None = None, device: Device = "cpu", dtype: torch.dtype | None = None
) -> Reward:
    from sfumato import emoji64

    folder = emoji64.path("preference") if model == BUNDLED else model
    learned = _read_config(Path(folder)) or {}
    if "members" not in learned:
        return PreferenceReward(folder, processor, device, dtype)
    members = [PreferenceReward(Path(folder) / name, processor, device, dtype) for name in learned["members"]]
    return Ensemble(members, learned["penalty"])


PICKSCORE, PICKSCORE_PROCESSOR = "yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


def _pickscore(
    model: Source = PICKSCORE,
    processor: Source = PICKSCORE_PROCESSOR,
    device: Device = "cpu",
    dtype: torch.dtype | None = None,
) -> Reward:
    reward = PreferenceReward(model, processor, device, dtype)
    reward.name = "pickscore"
    return reward


INFO = (
    RewardInfo(
        "preference",
        "logit of a reward learned from pairs; model: folder, hub id or emoji64",
        "unbounded logit, [-100, 100] without a head",
        True,
        _preference,
    ),
    RewardInfo(
        "pickscore",
        "PickScore v1: what people chose on Pick-a-Pic (CLIP-H)",
        "[-100, 100]",
        True,
        _pickscore,
        model=PICKSCORE,
        licence="MIT",
        size="3.9 GB",
        observed="17 to 24",
    ),
)
