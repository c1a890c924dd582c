"""ImageReward: what people chose among several images of one prompt, learned by a BLIP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sfumato.preprocess import Preprocess
from sfumato.rewards.base import UNBOUNDED, Device, Source
from sfumato.rewards.blip import BLIP, IMAGE, TEXT
from sfumato.rewards.info import RewardInfo
from sfumato.weights import load_weights, naming

WEIGHTS, TOKENIZER = "RE-N-Y/ImageReward", "google-bert/bert-base-uncased"
EDGE, LENGTH = 224, 35
"""Pixels of an image's edge, and tokens of a prompt."""

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the perceptron's output over the authors' test set, as they published them."""

PARTS = (f"blip.{IMAGE}", f"blip.{TEXT}", "mlp.layers.")
"""What the names of the weights begin with that are used; the rest only BLIP's training needed."""

LAYERS = [(f"mlp.layers.{number}.weight", f"mlp.layers.{number}.bias") for number in (0, 2, 4, 6, 7)]
"""Of the perceptron; the numbers between are dropout's."""


@dataclass(frozen=True)
class Square(Preprocess):
    """CLIP's preprocessing, but with torchvision's crop, which rounds half of an odd margin to the even neighbour."""

    def _crop(self, images: torch.Tensor) -> torch.Tensor:
        top, left = (round((edge - EDGE) / 2) for edge in images.shape[-2:])
        return images[..., top : top + EDGE, left : left + EDGE]


class ImageReward:
    """ImageReward v1.0 (Xu et al. 2023, arXiv 2304.05977): r = (f(image, prompt) - 0.1672) / 1.0333.

    BLIP reads the prompt with the image in view (ViT-L/16 at 224, BERT with cross-attention); a perceptron makes a
    number f of its first token. f was learned from rankings of images of one prompt by the loss -log sigmoid(f_a - f_b)
    (equation 1), so it is a logit with no zero of its own. The authors then moved and scaled it so that r has mean 0
    and deviation 1 over their test set: **a negative score is no error**, it says "below the average of that set".
    There is no bound. Of Stable Diffusion v1.4's images for the authors' prompts 62.4 % lie in [-1, 1] and 98.2 % in
    [-2, 2]; tuning on it goes past 2. For one prompt, a is preferred to b with probability sigmoid(1.0333 (r_a - r_b)).

    Images (B,3,H,W) in [0, 1] of any size are resized to 224 along the shorter edge and cropped in the centre, so what
    lies further out along the longer edge is not seen. Of a prompt only the first 35 tokens count, [CLS] and [SEP]
    among them.

    Differentiable, through the preprocessing too; the weights are frozen. The text encoder looks at the image in every
    layer, so nothing of a prompt can be computed beforehand but its tokens, which are kept.

    Code and weights are Apache-2.0.

    Args:
        model: the file of `sfumato convert-weights imagereward`; or a folder or hub id with it as `model.safetensors`.
        tokenizer: folder or hub id of BERT's uncased tokenizer (`vocab.txt` or `tokenizer.json`).
        device: where the model runs.
        dtype: of BLIP's weights; float32 unless given. The perceptron keeps float32.

    Raises:
        OSError: there is no such file or tokenizer.
        ValueError: the file is not in safetensors, is damaged, or holds other weights.
    """

    name = "imagereward"
    range = UNBOUNDED
    differentiable = True

    def __init__(
        self,
        model: Source = WEIGHTS,
        tokenizer: Source = TOKENIZER,
        device: Device = "cpu",
        dtype: torch.dtype | None = None,
    ):
        from transformers import BertTokenizer

        state, _ = load_weights(model, "imagereward")
        weights = published(state)
        blip = {name.removeprefix("blip."): tensor for name, tensor in weights.items()}
        self.blip = BLIP(blip, device, dtype or torch.float32)
        full = torch.float64 if dtype == torch.float64 else torch.float32
        self.weight, self.bias = (part.to(device, full) for part in _head(weights))
        with naming(tokenizer):
            self.tokenizer = BertTokenizer.from_pretrained(str(tokenizer))
        self.preprocess = Square(EDGE)
        self._tokens: dict[str, torch.Tensor] = {}

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return self.pixel_scores(self.preprocess(images.to(self.bias.device)), prompts)

    def pixel_scores(self, pixels: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Scores (B,), float32 (float64 for float64 weights), of pixel values (B,3,224,224) that `preprocess` made."""
        features = self.blip(pixels, *self.tokens(prompts)).to(self.bias.dtype)
        return (F.linear(features, self.weight, self.bias).squeeze(-1) - MEAN) / STD

    def tokens(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and mask of prompts, int64 (B,35) each; each prompt is tokenised once in the life of the reward."""
        if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._tokens]:
            found = self.tokenizer(
                new, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
            ).to(self.bias.device)
            self._tokens.update(zip(new, torch.stack([found.input_ids, found.attention_mask], 1), strict=True))
        tokens, mask = torch.stack([self._tokens[prompt] for prompt in prompts], 1)
        return tokens, mask


def published(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `ImageReward` needs of the authors' state dict, under the same names, float32.

    Raises:
        ValueError: it is another model's.
    """
    kept = {name: tensor.float() for name, tensor in state.items() if name.startswith(PARTS)}
    kept.pop(f"blip.{TEXT}embeddings.position_ids", None)
    first = (f"blip.{IMAGE}pos_embed", f"blip.{TEXT}embeddings.word_embeddings.weight")
    if missing := [name for name in (*first, *(name for layer in LAYERS for name in layer)) if name not in kept]:
        raise ValueError(f"ImageReward lacks {missing[0]}: give the authors' ImageReward.pt")
    return kept


def _head(weights: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The perceptron as one affine map (1,D), (1,), float64: nothing stands between its five layers."""
    (weight, bias), *others = [[weights[name].double() for name in layer] for layer in LAYERS]
    for matrix, offset in others:
        weight, bias = matrix @ weight, matrix @ bias + offset
    return weight, bias


INFO = (
    RewardInfo(
        "imagereward",
        "ImageReward v1.0: what people chose among images of one prompt (BLIP)",
        "unbounded, of mean 0 and deviation 1",
        True,
        ImageReward,
        model=WEIGHTS,
        licence="Apache-2.0",
        size="1.8 GB",
        observed="98 % of Stable Diffusion v1.4's in -2 to 2",
    ),
)
