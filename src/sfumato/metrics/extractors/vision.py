"""Features of any transformers vision model."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError

from sfumato.metrics.features import Distance, fingerprint
from sfumato.preprocess import Preprocess


class VisionFeatures:
    """Features of any transformers vision model, or of the image tower of a CLIP-like one, preprocessed as it asks.

    CLIP, SigLIP and their kin give their joint-space embedding; others their pooled output (DINOv2 and DINOv3 the
    normalised first token, ConvNeXt and ResNet the mean over positions), or the normalised first token where a
    checkpoint comes without weights for its pooler (such as DINO's and most ViTs').

    Args:
        model: a local folder or a hub id with `config.json` and `preprocessor_config.json`.
        device: where to run.

    Raises:
        OSError: there is no such model, or it has no safetensors weights.
        ValueError: the checkpoint lacks weights, so that features would be partly random, or is damaged; or its
            preprocessing is more than `Preprocess` does.
    """

    distance: Distance = "cosine"

    def __init__(self, model: str | Path, device: torch.device | str = "cpu") -> None:
        from transformers import AutoModel

        self.preprocess = replace(Preprocess.from_pretrained(str(model)), rounds=True)
        try:
            loaded, report = AutoModel.from_pretrained(
                str(model), dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
        except SafetensorError as error:
            raise ValueError(f"the weights of {model} are damaged ({error}): copy or download them again") from error
        missing = set(report["missing_keys"])
        if missing and all(".pooler." in f".{key}" for key in missing):
            loaded.pooler = None
        elif missing:
            raise ValueError(f"{model} lacks weights for {sorted(missing)[0]} and {len(missing) - 1} more")
        self.model = loaded.eval().requires_grad_(False).to(device)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(f"{type(self.model).__name__} {self.preprocess!r}", self.model.state_dict())

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B,D) of images (B,3,H,W) in [0, 1].

        Raises:
            ValueError: the model has no pooled output.
        """
        pixels = self.preprocess(images.to(self.model.device, torch.float32))
        if hasattr(self.model, "get_image_features"):
            output = self.model.get_image_features(pixel_values=pixels)
        else:
            output = self.model(pixel_values=pixels)
        if "pooler_output" not in type(output).__dataclass_fields__:
            raise ValueError(f"{type(self.model).__name__} has no pooled output: take another model for features")
        pooled = output.pooler_output
        return output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
