"""Rewards: callables (images in [0,1] (B,3,H,W), prompts) -> scores (B,), with a name, a range and a word on gradients.

`base` defines what a reward is and the checked way to call it; one file per kind holds the rewards, and says in `INFO`
what is to be known of them; `compose` makes rewards of rewards; `registry` builds any of them, or a user's own, from a
recipe. Nothing here knows a pipeline.
"""

from sfumato.rewards.aesthetic import LAIONAesthetic
from sfumato.rewards.backbone import CLIPBackbone, load_backbone
from sfumato.rewards.base import Reward, RewardError, as_reward, check_prompts, score
from sfumato.rewards.calibration import Normalized, calibrate
from sfumato.rewards.clip import CLIPScore
from sfumato.rewards.compose import Constrained, Ensemble, Minimum, Product, WeightedSum
from sfumato.rewards.gold import JudgeGold
from sfumato.rewards.hps import HPSv2, HPSv21
from sfumato.rewards.image import Brightness, Colourfulness, Sharpness
from sfumato.rewards.image_reward import ImageReward
from sfumato.rewards.info import RewardInfo
from sfumato.rewards.jpeg import (
    JPEGCompressibility,
    JPEGDistance,
    JPEGIncompressibility,
    SoftJPEGCompressibility,
    SoftJPEGIncompressibility,
)
from sfumato.rewards.ocr import OCRAccuracy
from sfumato.rewards.preference import PreferenceHead, PreferenceReward
from sfumato.rewards.registry import build_reward, list_rewards
from sfumato.rewards.safety import LabelPenalty, SafetyCheckerPenalty
from sfumato.rewards.siglip import SigLIPScore

__all__ = [
    "Brightness",
    "CLIPBackbone",
    "CLIPScore",
    "Colourfulness",
    "Constrained",
    "Ensemble",
    "HPSv2",
    "HPSv21",
    "ImageReward",
    "JPEGCompressibility",
    "JPEGDistance",
    "JPEGIncompressibility",
    "JudgeGold",
    "LAIONAesthetic",
    "LabelPenalty",
    "Minimum",
    "Normalized",
    "OCRAccuracy",
    "PreferenceHead",
    "PreferenceReward",
    "Product",
    "Reward",
    "RewardError",
    "RewardInfo",
    "SafetyCheckerPenalty",
    "Sharpness",
    "SigLIPScore",
    "SoftJPEGCompressibility",
    "SoftJPEGIncompressibility",
    "WeightedSum",
    "as_reward",
    "build_reward",
    "calibrate",
    "check_prompts",
    "list_rewards",
    "load_backbone",
    "score",
]
