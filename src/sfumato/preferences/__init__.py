"""Reward models learned from pairs of images of which somebody preferred one.

`rows` and `pairs` read what was asked and answered, `check` finds what is wrong with it, `split` cuts it up. `fit`
trains one `PreferenceReward` by the Bradley-Terry loss; `train` makes the reward of one fit or several, with
`calibration` and `evaluate` saying how far it can be believed; `learn` does all of it for a recipe. What comes out is a
folder that the registry of rewards loads.
"""

from sfumato.config.preference import PreferenceRecipe, PreferenceTraining, load_preference_recipe
from sfumato.preferences.calibration import calibration_error, describe_calibration, fit_temperature, reliability
from sfumato.preferences.check import Finding, Split, check_preferences
from sfumato.preferences.evaluate import (
    PreferenceAccuracy,
    bradley_terry_loss,
    evaluate_preference,
    interval_by_prompt,
    wilson_interval,
)
from sfumato.preferences.fit import PreferenceFit
from sfumato.preferences.learn import learn_preference
from sfumato.preferences.pairs import Captioned, Pair, load_captioned, load_pairs, save_pairs
from sfumato.preferences.split import split_pairs
from sfumato.preferences.train import train_preference

__all__ = [
    "Captioned",
    "Finding",
    "Pair",
    "PreferenceAccuracy",
    "PreferenceFit",
    "PreferenceRecipe",
    "PreferenceTraining",
    "Split",
    "bradley_terry_loss",
    "calibration_error",
    "check_preferences",
    "describe_calibration",
    "evaluate_preference",
    "fit_temperature",
    "interval_by_prompt",
    "learn_preference",
    "load_captioned",
    "load_pairs",
    "load_preference_recipe",
    "reliability",
    "save_pairs",
    "split_pairs",
    "train_preference",
    "wilson_interval",
]
