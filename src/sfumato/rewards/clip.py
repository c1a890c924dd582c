"""A frozen CLIP with its tokenizer and preprocessing, and the reward that is nothing but its cosine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from sfumato.preprocess import Preprocess
from sfumato.rewards.base import Reward
from sfumato.rewards.info import BUNDLED, RewardInfo


class CLIPBackbone:
    """Embeddings of images and prompts by any transformers `CLIPModel`.

    The weights are frozen and read from safetensors only. Gradients reach the images, through the preprocessing too.

    Args:
        model: folder or hub id of a `CLIPModel`.
        processor: folder or hub id of its tokenizer and `preprocessor_config.json`, if they are kept elsewhere.
        device: where the model runs.
        dtype: of the weights; float32 unless given. Embeddings come back as float32 (float64 for float64 weights).

    Raises:
        OSError: there is no such model, or it has no safetensors weights.
        ValueError: the weights are damaged, or some are missing, so that embeddings would be partly random.
    """

    def __init__(
        self,
        model: str | Path,
        processor: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ):
        from safetensors import SafetensorError
        from transformers import AutoTokenizer, CLIPModel

        self.source, self.processor = str(model), str(processor) if processor else None
        try:
            found: Any = CLIPModel.from_pretrained(
                self.source, dtype=dtype or torch.float32, use_safetensors=True, output_loading_info=True
            )
        except SafetensorError as error:
            raise ValueError(f"the weights of {model} are damaged ({error}): copy or download them again") from error
        clip, report = found
        if report["missing_keys"]:
            raise ValueError(
                f"{model} is not a whole CLIPModel: it lacks {min(report['missing_keys'])} and would be partly random. "
                "Give a model with image and text tower and both projections"
            )
        self.model = clip.eval().requires_grad_(False).to(device)
        self.tokenizer = AutoTokenizer.from_pretrained(self.processor or self.source)
        self.preprocess = Preprocess.from_pretrained(self.processor or self.source)
        self._texts: dict[str, torch.Tensor] = {}

    @property
    def width(self) -> int:
        """D, the length of the embeddings."""
        return self.model.config.projection_dim

    @property
    def logit_scale(self) -> torch.Tensor:
        """The learned inverse temperature exp(s), a scalar on the model's device, float32 or float64."""
        return _full(self.model.logit_scale).exp()

    def image_embeds(self, images: torch.Tensor) -> torch.Tensor:
        """Unit vectors (B,D) of images (B,3,H,W) in [0, 1]."""
        return self.pixel_embeds(self.preprocess(images.to(self.model.device)))

    def pixel_embeds(self, pixels: torch.Tensor) -> torch.Tensor:
        """Unit vectors (B,D) of pixel values (B,3,h,w) that `preprocess` made."""
        return _unit(self.model.get_image_features(pixel_values=pixels.to(self.model.dtype)).pooler_output)

    def text_embeds(self, prompts: list[str]) -> torch.Tensor:
        """Unit vectors (B,D) of prompts; what exceeds the model's context length is cut off."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(prompts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        return _unit(self.model.get_text_features(tokens.input_ids, tokens.attention_mask).pooler_output)

    @torch.no_grad()
    def cached_text_embeds(self, prompts: list[str]) -> torch.Tensor:
        """The same without gradient; each prompt is encoded once in the life of the backbone."""
        if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]:
            self._texts.update(zip(new, self.text_embeds(new), strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def forget_texts(self) -> None:
        """Empty the cache of prompt embeddings; needed after the weights were changed."""
        self._texts.clear()

    def save(self, folder: str | Path) -> None:
        """Write weights, tokenizer and preprocessing as a folder that `CLIPBackbone` and transformers load."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.preprocess.save_pretrained(folder)


def _full(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _unit(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(_full(features), dim=-1)


class CLIPScore:
    """CLIPScore = 100 max(cos(image, text), 0) of Hessel et al. (2021, arXiv 2104.08718); in [0, 100].

    The paper writes 2.5 for the 100 and puts "A photo depicts" before captions; 100 and the bare prompt are what the
    text-to-image literature reports (20 to 35 with CLIP ViT-L/14). Differentiable; where the cosine is negative the
    gradient is zero.

    Args:
        model: folder or hub id of a `CLIPModel` with tokenizer and `preprocessor_config.json`.
        device: where the model runs.
        dtype: of its weights; float32 unless given.
    """

    name = "clip_score"
    range = (0.0, 100.0)
    differentiable = True

    def __init__(self, model: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None):
        self.backbone = CLIPBackbone(model, device=device, dtype=dtype)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        cosine = (self.backbone.image_embeds(images) * self.backbone.cached_text_embeds(prompts)).sum(-1)
        return 100 * cosine.clamp(min=0)


def _clip_score(model: str, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Reward:
    from sfumato import emoji64

    return CLIPScore(emoji64.scorer_path() if model == BUNDLED else model, device, dtype)


INFO = (
    RewardInfo(
        "clip_score",
        "100 max(cos(image, text), 0); model: folder, hub id or emoji64",
        "[0, 100], observed 15 to 40",
        True,
        _clip_score,
    ),
)
