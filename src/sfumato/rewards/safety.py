"""Penalties on unsafe pictures: Stable Diffusion's own safety checker, and any image classifier with such a label."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from sfumato.preprocess import Preprocess
from sfumato.rewards.base import Device, Source, at_least_float32
from sfumato.rewards.info import RewardInfo
from sfumato.weights import load_weights, naming

CHECKER, CLASSIFIER = "CompVis/stable-diffusion-safety-checker", "Falconsai/nsfw_image_detection"
EMBEDS, LIMITS = ("special_care_embeds", "concept_embeds"), ("special_care_embeds_weights", "concept_embeds_weights")
RAISED = 0.01
"""What a special concept found in the image adds to every other."""


class SafetyCheckerPenalty:
    """How far an image passes the limits of Stable Diffusion's safety checker, as a penalty.

    r = min(0, -m),  m = max_c (cos(image, c) - t_c) + 0.01 [cos(image, s) > t_s for some s]

    over 17 unsafe concepts c and 3 special ones s, each a vector in CLIP ViT-L/14's space with a threshold t. 0 is an
    image that the checker lets pass; it blackens the others, but for those less than 0.0005 past a limit, since it
    rounds to three decimals. In [-(1.01 - min t), 0]. Differentiable; the gradient is 0 where the image is safe. Images
    (B,3,H,W) in [0, 1]; the prompt has no say. The concepts were published as vectors, not words: they are about
    sexual content, and violence and gore pass (Rando et al. 2022, arXiv 2210.04610).

    Source: `StableDiffusionSafetyChecker` of diffusers. Licence of the weights: the card names none; Stable Diffusion
    1, which they were released with, is under CreativeML OpenRAIL-M.

    Args:
        model: folder or hub id with `config.json` and `model.safetensors`, such as a pipeline's `safety_checker`.
        processor: folder or hub id of its `preprocessor_config.json`, if that is kept elsewhere, such as a pipeline's
            `feature_extractor`.
        device: where the model runs.
        dtype: of the image tower's weights; float32 unless given. Scores come back as float32 (float64 for float64).

    Raises:
        OSError: there is no such model, or it has no safetensors weights.
        ValueError: the weights are damaged, or are no safety checker's.
    """

    name = "safety"
    differentiable = True

    def __init__(
        self,
        model: Source = CHECKER,
        processor: Source | None = None,
        device: Device = "cpu",
        dtype: torch.dtype | None = None,
    ):
        from transformers import CLIPConfig, CLIPVisionModelWithProjection

        tensors, _ = load_weights(model, "safety-checker")
        if lacking := [name for name in EMBEDS + LIMITS if name not in tensors]:
            raise ValueError(f"{model} is no safety checker: it lacks {lacking[0]}. Give one of Stable Diffusion's")
        dtype = dtype or torch.float32
        full = torch.promote_types(dtype, torch.float32)
        self.special = len(tensors[EMBEDS[0]])
        self.concepts = F.normalize(torch.cat([tensors.pop(name).to(device, full) for name in EMBEDS]), dim=-1)
        self.limits = torch.cat([tensors.pop(name).to(device, full) for name in LIMITS])
        config: Any = CLIPConfig.from_pretrained(str(model))
        config.vision_config.projection_dim = config.projection_dim
        tower = CLIPVisionModelWithProjection(config.vision_config)
        # older transformers wrapped the tower once more
        weights = {name.replace("vision_model.vision_model.", "vision_model."): t for name, t in tensors.items()}
        expected = tower.state_dict()
        if wrong := [name for name, t in expected.items() if name not in weights or weights[name].shape != t.shape]:
            raise ValueError(f"{model} lacks a fitting {wrong[0]} of the safety checker: copy or download it again")
        tower.load_state_dict({name: weights[name] for name in expected})
        self.tower = tower.eval().requires_grad_(False).to(device, dtype)
        with naming(processor or model):
            self.preprocess = Preprocess.from_pretrained(str(processor or model))

    @property
    def range(self) -> tuple[float, float]:
        return (float(self.limits[self.special :].min()) - 1 - RAISED, 0.0)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return (-self.margins(images)).clamp(max=0)

    def margins(self, images: torch.Tensor) -> torch.Tensor:
        """m (B,) of images (B,3,H,W) in [0, 1]: positive is unsafe, negative the distance to the nearest limit."""
        pixels = self.preprocess(images.to(self.tower.device)).to(self.tower.dtype)
        embeds = F.normalize(self.tower(pixels).image_embeds.to(self.concepts.dtype), dim=-1)
        past = embeds @ self.concepts.to(embeds).T - self.limits.to(embeds)
        return past[:, self.special :].amax(-1) + RAISED * (past[:, : self.special] > 0).any(-1)


class LabelPenalty:
    """r = -P(label | image) by a transformers image classifier; in [-1, 0], 0 is an image without what the label names.

    P is the softmax over the labels, or the sigmoid where the model's configuration says that an image can have
    several. A sure classifier is flat: near 0 and -1 there is little gradient. Differentiable. Images (B,3,H,W) in
    [0, 1]; the prompt has no say.

    Source: the model; Falconsai/nsfw_image_detection is a ViT-B/16 with the labels normal and nsfw. Licence of its
    weights: Apache-2.0.

    Args:
        model: folder or hub id of a model for image classification with its `preprocessor_config.json`.
        label: what is to be avoided, in the model's words; upper or lower case.
        device: where the model runs.
        dtype: of its weights; float32 unless given. Scores come back as float32 (float64 for float64 weights).

    Raises:
        OSError: there is no such model, or it has no safetensors weights.
        ValueError: it has no such label, lacks weights or has damaged ones.
    """

    range = (-1.0, 0.0)
    differentiable = True

    def __init__(
        self, model: Source = CLASSIFIER, label: str = "nsfw", device: Device = "cpu", dtype: torch.dtype | None = None
    ):
        from safetensors import SafetensorError
        from transformers import AutoModelForImageClassification

        try:
            with naming(model):
                found: Any = AutoModelForImageClassification.from_pretrained(
                    str(model), dtype=dtype or torch.float32, use_safetensors=True, output_loading_info=True
                )
        except SafetensorError as error:
            raise ValueError(f"the weights of {model} are damaged ({error}): copy or download them again") from error
        classifier, report = found
        if report["missing_keys"]:
            raise ValueError(f"{model} lacks {min(report['missing_keys'])}: give a model trained for classification")
        labels = {name.lower(): index for index, name in classifier.config.id2label.items()}
        if label.lower() not in labels:
            raise ValueError(f"{model} has no label {label!r}: choose one of {', '.join(labels)}")
        self.name, self.index = label.lower(), labels[label.lower()]
        self.exclusive = classifier.config.problem_type != "multi_label_classification"
        self.model = classifier.eval().requires_grad_(False).to(device)
        with naming(model):
            self.preprocess = Preprocess.from_pretrained(str(model))

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        pixels = self.preprocess(images.to(self.model.device)).to(self.model.dtype)
        logits = at_least_float32(self.model(pixel_values=pixels).logits)
        return -(logits.softmax(-1) if self.exclusive else logits.sigmoid())[:, self.index]


INFO = (
    RewardInfo(
        "safety",
        "how far an image passes the limits of Stable Diffusion's safety checker, as a penalty",
        "[-1.01, 0], 0 is safe",
        True,
        SafetyCheckerPenalty,
        model=CHECKER,
        licence="not stated",
        size="1.2 GB",
    ),
    RewardInfo(
        "nsfw",
        "minus the probability of a label by an image classifier; model, label: Falconsai's and nsfw unless given",
        "[-1, 0], 0 is safe",
        True,
        LabelPenalty,
        model=CLASSIFIER,
        licence="Apache-2.0",
        size="343 MB",
    ),
)
