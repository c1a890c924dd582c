"""Reward models learned from pairs of images of which somebody preferred one.

`pairs` holds what was asked and answered, `train` fits a `PreferenceReward` to it by the Bradley-Terry loss, `evaluate`
says how often the result agrees with held-out answers. What comes out is a folder that the registry of rewards loads.
"""

from sfumato.preferences.evaluate import PreferenceAccuracy, bradley_terry_loss, evaluate_preference, wilson_interval
from sfumato.preferences.pairs import Captioned, Pair, load_captioned, load_pairs, save_pairs
from sfumato.preferences.train import PreferenceTraining, fit_preference, train_preference

__all__ = [
    "Captioned",
    "Pair",
    "PreferenceAccuracy",
    "PreferenceTraining",
    "bradley_terry_loss",
    "evaluate_preference",
    "fit_preference",
    "load_captioned",
    "load_pairs",
    "save_pairs",
    "train_preference",
    "wilson_interval",
]
