"""A frozen CLIP or SigLIP with its tokenizer and preprocessing, loaded once for all rewards that are made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F

from sfumato.preprocess import Preprocess
from sfumato.rewards.base import Device, Source, at_least_float32
from sfumato.rewards.sharing import once
from sfumato.weights import naming


class CLIPBackbone:
    """Embeddings of images and prompts by any transformers `CLIPModel` or `SiglipModel`.

    The weights are frozen and read from safetensors only. Gradients reach the images, through the preprocessing too.
    Rewards share backbones, see `load_backbone`: who trains one makes a new one or a deep copy.

    Args:
        model: folder or hub id of a `CLIPModel` or `SiglipModel`.
        processor: folder or hub id of its tokenizer and `preprocessor_config.json`, if they are kept elsewhere.
        device: where the model runs.
        dtype: of the weights; float32 unless given. Embeddings come back as float32 (float64 for float64 weights), and
            the temperature is never of less: rounded to bfloat16 it would move all scores by up to 1.5 %.
        preprocess: from images in [0, 1] to pixel values, if it is not what `preprocessor_config.json` says.

    Raises:
        OSError: there is no such model or processor, or it has no safetensors weights.
        ValueError: it is another kind of model, its weights are damaged, or some are missing, so that embeddings would
            be partly random.
    """

    def __init__(
        self,
        model: Source,
        processor: Source | None = None,
        device: Device = "cpu",
        dtype: torch.dtype | None = None,
        preprocess: Preprocess | None = None,
    ):
        from transformers import AutoTokenizer

        self.source, self.processor = str(model), str(processor) if processor else None
        for source in filter(None, (self.source, self.processor)):
            _check_there(source)
        with naming(self.processor or self.source):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(self.processor or self.source)
            self.preprocess = preprocess or Preprocess.from_pretrained(self.processor or self.source)
        with naming(self.source):
            self.model = _load(self.source, dtype or torch.float32).eval().requires_grad_(False).to(device)
        self._texts: dict[str, torch.Tensor] = {}

    @property
    def width(self) -> int:
        """D, the length of the embeddings."""
        config = self.model.config
        return config.projection_dim if hasattr(config, "projection_dim") else config.text_config.projection_size

    @property
    def logit_scale(self) -> torch.Tensor:
        """The learned inverse temperature exp(s), a scalar on the model's device, float32 or float64."""
        return at_least_float32(self.model.logit_scale).exp().reshape(())

    @property
    def logit_bias(self) -> torch.Tensor | None:
        """The learned offset b of a SigLIP's logit exp(s) cos + b, a scalar like `logit_scale`; None for a CLIP."""
        return at_least_float32(self.model.logit_bias).reshape(()) if hasattr(self.model, "logit_bias") else None

    def image_embeds(self, images: torch.Tensor) -> torch.Tensor:
        """Unit vectors (B,D) of images (B,3,H,W) in [0, 1]; rewards of the same images share one pass."""
        return once(self, images, lambda: self.pixel_embeds(self.preprocess(images.to(self.model.device))))

    def pixel_embeds(self, pixels: torch.Tensor) -> torch.Tensor:
        """Unit vectors (B,D) of pixel values (B,3,h,w) that `preprocess` made."""
        return _unit(self.model.get_image_features(pixel_values=pixels).pooler_output)

    def text_embeds(self, prompts: list[str]) -> torch.Tensor:
        """Unit vectors (B,D) of prompts; what exceeds the model's context length is cut off."""
        ids, mask = (part if part is None else part.to(self.model.device) for part in self._tokens(prompts))
        return _unit(self.model.get_text_features(ids, mask).pooler_output)

    @torch.no_grad()
    def cached_text_embeds(self, prompts: list[str]) -> torch.Tensor:
        """The same without gradient; each prompt is encoded once in the life of the backbone."""
        if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]:
            self._texts.update(zip(new, self.text_embeds(new), strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def cosines(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """cos(image, prompt) (B,) of images (B,3,H,W) in [0, 1] and a prompt for each, with gradient to the images."""
        return (self.image_embeds(images) * self.cached_text_embeds(prompts)).sum(-1)

    def forget_texts(self) -> None:
        """Empty the cache of prompt embeddings; needed after the weights were changed."""
        self._texts.clear()

    def save(self, folder: str | Path) -> None:
        """Write weights, tokenizer and preprocessing as a folder that `CLIPBackbone` and transformers load."""
        self.model.save_pretrained(folder)
        for weights in Path(folder).glob("*.safetensors"):  # safetensors makes files that only their owner can read
            weights.chmod((Path(folder) / "config.json").stat().st_mode)
        self.tokenizer.save_pretrained(folder)
        self.preprocess.save_pretrained(folder)

    def _tokens(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Token ids (B,L) and their mask.

        SigLIPs read the last position, and were trained on lower case, padded to the full length, without a mask.
        """
        length = self.model.config.text_config.max_position_embeddings
        if self.logit_bias is None:
            tokens = self.tokenizer(prompts, padding=True, truncation=True, max_length=length, return_tensors="pt")
            return tokens.input_ids, tokens.attention_mask
        lower = [prompt.lower() for prompt in prompts]
        tokens = self.tokenizer(lower, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return tokens.input_ids, None


_loaded: WeakValueDictionary[tuple[object, ...], CLIPBackbone] = WeakValueDictionary()


def load_backbone(
    model: Source,
    processor: Source | None = None,
    device: Device = "cpu",
    dtype: torch.dtype | None = None,
    preprocess: Preprocess | None = None,
) -> CLIPBackbone:
    """A backbone that all who ask for the same one share, for as long as one of them lives.

    The arguments and what is raised are those of `CLIPBackbone`. Its weights must not be changed.
    """
    key = (_address(model), processor and _address(processor), str(device), dtype or torch.float32, preprocess)
    if (backbone := _loaded.get(key)) is None:
        backbone = _loaded[key] = CLIPBackbone(model, processor, device, dtype, preprocess)
    return backbone


def _address(source: Source) -> str:
    """One spelling of a local folder; a hub id as it is."""
    return str(Path(source).resolve()) if Path(source).is_dir() else str(source)


def _check_there(source: str) -> None:
    if Path(source).is_file():
        raise ValueError(f"{source} is a file: give the folder of a CLIP or SigLIP (see `sfumato convert-weights`)")
    if not Path(source).is_dir() and source.count("/") != 1:
        raise FileNotFoundError(f"there is no folder {source}: give that of a CLIP or SigLIP, or a hub id, owner/name")


def _load(source: str, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModel

    full = torch.promote_types(dtype, torch.float32)
    try:
        found: Any = AutoModel.from_pretrained(source, dtype=full, use_safetensors=True, output_loading_info=True)
    except SafetensorError as error:
        raise ValueError(f"the weights of {source} are damaged ({error}): copy or download them again") from error
    model, report = found
    if not hasattr(model, "get_text_features") or not hasattr(model, "logit_scale"):
        raise ValueError(f"{source} is a {type(model).__name__}: give a CLIPModel or a SiglipModel")
    if report["missing_keys"]:
        raise ValueError(
            f"{source} is not a whole {type(model).__name__}: it lacks {min(report['missing_keys'])} and would be "
            "partly random. Give a model with image and text tower and all that follows them"
        )
    for part in model.children():  # all but the temperature and the bias
        part.to(dtype)
    return model


def _unit(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(at_least_float32(features), dim=-1)
