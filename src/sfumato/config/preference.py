"""How a reward is learned from preferences: what `sfumato preference train` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from sfumato.config.recipe import RecipeError, explain, parse_mapping, read_arguments
from sfumato.config.strict import Strict

RECIPE = "recipe.yaml"
HEAD_LR, FULL_LR = 3e-3, 3e-6


class PreferenceTraining(Strict):
    """How a preference reward is trained. The same settings give the same reward, however often it is interrupted."""

    trainable: Literal["head", "full"] = Field(
        "head", description="head: a logit on the frozen backbone's embeddings; full: the backbone moves too"
    )
    hidden: int | None = Field(
        0, ge=0, description="units of the head's hidden layer; 0: a linear head; null: no head, which is PickScore"
    )
    lr: float | None = Field(
        None, gt=0, description=f"learning rate of AdamW; null: {HEAD_LR:g} for a head alone, {FULL_LR:g} for full"
    )
    warmup_steps: int = Field(0, ge=0, description="steps in which lr rises from 0")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    batch_size: int = Field(32, ge=1, description="pairs per step, over all processes")
    micro_batch_size: int | None = Field(None, ge=1, description="pairs at a time; null: the whole batch")
    autocast: Literal["bfloat16"] | None = Field(None, description="compute the backbone in this dtype")
    steps: int = Field(1000, ge=1, description="at most so many")
    evaluate_every: int = Field(50, ge=1, description="steps between looks at the held-out pairs, and checkpoints")
    patience: int = Field(5, ge=1, description="stop after so many looks without a lower held-out loss")
    calibrate: bool = Field(True, description="divide by the held-out temperature, and let the mean logit be 0")
    members: int = Field(1, ge=1, description="rewards of an ensemble, each with a seed of its own")
    bootstrap: bool = Field(True, description="members learn from samples of the prompts with replacement")
    disagreement: float = Field(1.0, ge=0, description="l in an ensemble's reward, mean - l * deviation of the members")
    curve: list[Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        None,
        description="shares of the pairs for the learning curve; null: 1/8, 1/4, 1/2 for a head alone, none for full",
    )
    seed: int = Field(0, ge=0, description="of the head and the order of pairs")

    @model_validator(mode="after")
    def _something_is_trained(self) -> PreferenceTraining:
        if self.hidden is None and self.trainable == "head":
            raise ValueError("hidden: null leaves no head to train: set trainable: full, or hidden: 0")
        return self

    @property
    def full(self) -> bool:
        """Whether the backbone is trained."""
        return self.trainable == "full"

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 1."""
        lr = self.lr or (FULL_LR if self.full else HEAD_LR)
        return lr * min(1.0, step / self.warmup_steps) if self.warmup_steps else lr

    @property
    def shares(self) -> list[float]:
        """Of the learning curve, without the whole."""
        usual = [] if self.full else [1 / 8, 1 / 4, 1 / 2]
        return sorted(usual if self.curve is None else self.curve)


def _files(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _share_or_files(value: Any) -> Any:
    value = _files(value)
    if (isinstance(value, list) and value) or (isinstance(value, float | int) and 0 < value < 1):
        return value
    raise ValueError(f"give files, or a share between 0 and 1, not {value!r}")


Files = Annotated[list[str], Field(min_length=1), BeforeValidator(_files)]


class PreferenceRecipe(Strict):
    """A reward to be learned: from what, on which model, and where it goes."""

    model: str = Field(description="folder or hub id of a CLIP or SigLIP of transformers")
    processor: str | None = Field(None, description="of its tokenizer and preprocessing, if they are kept elsewhere")
    pairs: Files = Field(description="files or folders of pairs to learn from, .jsonl or .parquet")
    held_out: Annotated[float | list[str], BeforeValidator(_share_or_files)] = Field(
        0.1, description="pairs to stop by and to calibrate on: files, or a share to be taken from `pairs`"
    )
    test: Files | None = Field(None, description="pairs to report on, which decide nothing; null: the held-out ones")
    ordered: bool = Field(False, description="allow that image_0 is the preferred one in all pairs")
    images: str | None = Field(
        None, description="folder for images that lie in Parquet as bytes; null: NAME.images beside NAME.parquet"
    )
    training: PreferenceTraining = Field(PreferenceTraining(), description="how it is trained")
    folder: str = Field(description="where the reward goes; a training found there is continued")

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain values; the folder is left out, as it may be moved."""
        return self.model_dump(mode="json", exclude={"folder"})


def load_preference_recipe(arguments: Sequence[str]) -> PreferenceRecipe:
    """Read a recipe of a preference reward.

    Args:
        arguments: the path of a YAML file, or the folder of a reward to be continued, if any; then `key=value`.

    Raises:
        RecipeError: no such file, broken YAML, an unknown or missing key, or a wrong value.
    """
    values, file = read_arguments(arguments, _read)
    try:
        return PreferenceRecipe.model_validate(values)
    except ValidationError as error:
        where = f"{file}: " if file else ""
        raise RecipeError(where + "; ".join(explain(error, PreferenceRecipe))) from None


def _read(path: Path) -> dict[str, Any]:
    file = path / RECIPE if path.is_dir() else path
    if not file.is_file():
        raise RecipeError(f"there is no {file}: give a YAML file, a folder begun before, or key=value settings alone")
    values = parse_mapping(file.read_text(encoding="utf-8", errors="replace"), str(file))
    return {**values, "folder": str(path)} if path.is_dir() else values
