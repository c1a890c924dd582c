"""LAION's aesthetic predictor: how people rate pictures, whatever they show."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sfumato.rewards.backbone import load_backbone
from sfumato.rewards.base import Device, Source
from sfumato.rewards.info import BUNDLED, RewardInfo
from sfumato.weights import load_weights

KIND = "aesthetic"
BACKBONE = "openai/clip-vit-large-patch14"
LAYERS = ("layers.0", "layers.2", "layers.4", "layers.6", "layers.7")


class LAIONAesthetic:
    """r = w·e + b, with e the unit embedding of the image by CLIP ViT-L/14: LAION's aesthetic predictor V2.

    Schuhmann (2022), github.com/christophschuhmann/improved-aesthetic-predictor, "sac+logos+ava1-l14-linearMSE":
    trained on ratings from 1 to 10, which it means to give. Its five layers have nothing between them, so they are one
    linear map, and conversion multiplies them into w and b. r lies in [b - |w|, b + |w|], which is [-12.8, 23.2]; of
    pictures it is 4 to 7. Images are floats in [0, 1]; the prompt is not looked at. Differentiable. The predictor is
    under Apache-2.0, CLIP under MIT.

    Args:
        weights: what `sfumato convert-weights aesthetic` wrote; or a folder or hub id with it as `model.safetensors`.
        model: folder or hub id of the CLIP ViT-L/14 that it was learned on.
        device: where the model runs.
        dtype: of the CLIP's weights; float32 unless given. The predictor keeps float32.

    Raises:
        OSError: there is no such file or model.
        ValueError: the file is not in safetensors, is damaged or holds other weights, or the CLIP has another width.
    """

    name = "aesthetic"
    differentiable = True

    def __init__(
        self, weights: Source, model: Source = BACKBONE, device: Device = "cpu", dtype: torch.dtype | None = None
    ):
        tensors, _ = load_weights(weights, KIND)
        if not tensors.keys() >= {"weight", "bias"}:
            raise ValueError(f"{weights} is no aesthetic predictor: give what `sfumato convert-weights {KIND}` wrote")
        self.weight, self.bias = (tensors[name].to(device) for name in ("weight", "bias"))
        self.backbone = load_backbone(model, device=device, dtype=dtype)
        if len(self.weight) != self.backbone.width:
            raise ValueError(
                f"the aesthetic predictor in {weights} reads embeddings of {len(self.weight)} numbers, but {model} "
                f"gives {self.backbone.width}: give the CLIP that it was learned on, {BACKBONE}"
            )

    @property
    def range(self) -> tuple[float, float]:
        length, bias = float(self.weight.norm()), float(self.bias)
        return bias - length, bias + length

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        embeds = self.backbone.image_embeds(images)
        return embeds @ self.weight.to(embeds) + self.bias.to(embeds)


def published(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The one linear map, `weight` (D,) and `bias` (), float32, that the published layers are.

    Raises:
        ValueError: these are not the layers of the linear version.
    """
    if set(state) != {f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")}:
        raise ValueError("these are not the five layers of sac+logos+ava1-l14-linearMSE.pth: give that file")
    weight = state["layers.0.weight"].double()
    bias = state["layers.0.bias"].double()
    for layer in LAYERS[1:]:
        weight, bias = (state[f"{layer}.weight"].double() @ part for part in (weight, bias))
        bias = bias + state[f"{layer}.bias"].double()
    return {"weight": weight.squeeze(0).float(), "bias": bias.squeeze(0).float()}


def _aesthetic(
    weights: Source, model: Source = BACKBONE, device: Device = "cpu", dtype: torch.dtype | None = None
) -> LAIONAesthetic:
    from sfumato import emoji64

    if weights == BUNDLED:
        return LAIONAesthetic(emoji64.path("aesthetic"), emoji64.scorer_path(), device, dtype)
    return LAIONAesthetic(weights, model, device, dtype)


INFO = (
    RewardInfo(
        "aesthetic",
        "LAION's aesthetic predictor V2; weights: converted file, or emoji64; model: its CLIP ViT-L/14",
        "[-12.8, 23.2], meant to be 1 to 10",
        True,
        _aesthetic,
        model=BACKBONE,
        licence="MIT; predictor Apache-2.0",
        size="1.7 GB",
        observed="4 to 7",
    ),
)
