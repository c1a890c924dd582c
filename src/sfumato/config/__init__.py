"""Recipes: what to tune on which reward and how to measure it, as typed values. YAML is only their serialisation.

`load_recipe("emoji64-draft", ["training.lr=1e-4"])` reads a shipped recipe by name, or anyone's by path, applies
overrides and checks everything before any work is done.
"""

from sfumato.config.evaluation import EvaluationConfig
from sfumato.config.memory import MemoryConfig
from sfumato.config.objectives import DraftConfig, ObjectiveConfig
from sfumato.config.points import (
    BasePoint,
    BestOfPoint,
    GuidancePoint,
    LoraScalePoint,
    PointConfig,
    SavingsConfig,
    TunedPoint,
)
from sfumato.config.prompts import Prompts, read_prompts
from sfumato.config.recipe import (
    Recipe,
    RecipeError,
    load_recipe,
    parse_recipe,
    read_values,
    shipped_recipes,
    shipped_suites,
    shipped_text,
)
from sfumato.config.regularizers import KLConfig, RegularizersConfig, ShapingConfig
from sfumato.config.sections import (
    LoraConfig,
    PipelineConfig,
    PrefixConfig,
    RewardSection,
    SamplingConfig,
    TrainingConfig,
)
from sfumato.config.strict import Strict
from sfumato.config.suite import Suite, is_suite, load_suite
from sfumato.config.watching import FloorConfig, WatchConfig

__all__ = [
    "BasePoint",
    "BestOfPoint",
    "DraftConfig",
    "EvaluationConfig",
    "FloorConfig",
    "GuidancePoint",
    "KLConfig",
    "LoraConfig",
    "LoraScalePoint",
    "MemoryConfig",
    "ObjectiveConfig",
    "PipelineConfig",
    "PointConfig",
    "PrefixConfig",
    "Prompts",
    "Recipe",
    "RecipeError",
    "RegularizersConfig",
    "RewardSection",
    "SamplingConfig",
    "SavingsConfig",
    "ShapingConfig",
    "Strict",
    "Suite",
    "TrainingConfig",
    "TunedPoint",
    "WatchConfig",
    "is_suite",
    "load_recipe",
    "load_suite",
    "parse_recipe",
    "read_prompts",
    "read_values",
    "shipped_recipes",
    "shipped_suites",
    "shipped_text",
]
