"""Recipes: what to tune on which reward and how to measure it, as typed values. YAML is only their serialisation.

`load_recipe("emoji64-draft", ["training.lr=1e-4"])` reads a shipped recipe by name, or anyone's by path, applies
overrides and checks everything before any work is done.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from sfumato.grids import CLOCKS
from sfumato.schedules import FORMULAS, Schedule, schedule
from sfumato.values import assign, merge, parse_yaml


class RecipeError(ValueError):
    """A recipe or an override that cannot be used; the message says what to change."""


class Strict(BaseModel):
    """Unknown keys are refused; a number where text is wanted, such as `run=2026`, is taken as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)


def read_prompts(value: Any) -> list[str]:
    """Prompts from a list, or from a text file (a path, or one that comes with the recipes) with one on each line.

    Blank ones are skipped.

    Raises:
        ValueError: neither a list nor a path, there is no such file, or no prompt in it.
    """
    if isinstance(value, str):
        path = Path(value)
        bundled = files("sfumato").joinpath("recipes", value)
        if not path.exists() and not bundled.is_file():
            raise ValueError(
                f"there is no prompt file {value!r}: give a text file with a prompt on each line, or a list"
            )
        lines = (path if path.exists() else bundled).read_text(encoding="utf-8").splitlines()
        where = str(value)
    elif isinstance(value, list):
        wrong = [line for line in value if not isinstance(line, str)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} in the list of prompts is not text: put it in quotes")
        lines, where = value, "the list of prompts"
    else:
        raise ValueError(f"prompts are a list of texts, or the path of a text file, not {value!r}")
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{where} is empty: give at least one prompt")
    return prompts


Prompts = Annotated[list[str], BeforeValidator(read_prompts)]


class PipelineConfig(Strict):
    """Which diffusers pipeline to load."""

    path: str = Field("emoji64", description="'emoji64' (bundled), a folder, or a model id on the Hugging Face hub")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of all weights but the LoRA's")
    scheduler: str | None = Field(None, description="class name of a diffusers scheduler to use instead")
    scheduler_arguments: dict[str, Any] = Field({}, description="settings of the scheduler to change")


class SamplingConfig(Strict):
    """How pictures are sampled, in training and in evaluation."""

    num_inference_steps: int = Field(20, ge=1, description="denoising steps")
    guidance_scale: float = Field(5.0, description="of classifier-free guidance")
    arguments: dict[str, Any] = Field({}, description="further arguments of the pipeline's call, such as eta or height")

    def call(self, **changes: Any) -> dict[str, Any]:
        """The pipeline arguments, with changes."""
        own = {"num_inference_steps": self.num_inference_steps, "guidance_scale": self.guidance_scale}
        return {**own, **self.arguments, **changes}


class LoraConfig(Strict):
    """The LoRA that is trained."""

    rank: int = Field(8, ge=1, description="r of the update B A")
    alpha: float | None = Field(None, description="the update is scaled by alpha / rank; null means alpha = rank")
    targets: list[str] | None = Field(None, description="suffixes of layer names; null means the attention projections")


class DraftConfig(Strict):
    """DRaFT-K (arXiv 2309.17400), and DRaFT+ when `kl` > 0."""

    name: Literal["draft"] = Field("draft", description="which objective")
    last_steps: int = Field(1, ge=1, description="K: scheduler steps at the end that carry gradient")
    kl: float = Field(0.0, ge=0, description="coefficient of the KL penalty on the predictions of those steps")


class TrainingConfig(Strict):
    """One training. The same settings give the same weights, however often it is interrupted."""

    objective: DraftConfig = Field(DraftConfig(), description="what is minimised")
    lora: LoraConfig = Field(LoraConfig(), description="what is trained")
    steps: int = Field(100, ge=1, description="optimiser updates")
    batch_size: int = Field(8, ge=1, description="images per update, over all processes")
    micro_batch_size: int | None = Field(None, ge=1, description="images at a time; null means the whole batch")
    lr: float = Field(3e-4, gt=0, description="learning rate of AdamW")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="after the warm-up, down to 0")
    warmup_steps: int = Field(0, ge=0, description="updates in which lr rises from 0")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="longer gradients are clipped to this norm")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="keep and save an exponential moving average")
    gradient_checkpointing: bool = Field(False, description="less memory for a third more compute in the last K steps")
    seed: int = Field(0, ge=0, description="of the LoRA's first weights, the order of prompts and the images")
    checkpoint_every: int = Field(20, ge=1, description="updates between checkpoints; the last update has one too")
    monitor_every: int | None = Field(20, ge=1, description="updates between looks at held-out prompts; null for never")
    monitor_prompts: int = Field(4, ge=1, description="how many of the evaluation prompts the monitor looks at")
    monitor_images: int = Field(4, ge=2, description="images per prompt that the monitor looks at")
    trackers: list[str] = Field([], description="trackers of accelerate beside metrics.jsonl: tensorboard, wandb, ...")

    def saves(self, update: int) -> bool:
        """Whether there is a checkpoint after an update: every `checkpoint_every`-th, and the last."""
        return 0 < update <= self.steps and (update % self.checkpoint_every == 0 or update == self.steps)


class BasePoint(Strict):
    """The model before tuning."""

    kind: Literal["base"] = Field("base", description="base")


class TunedPoint(Strict):
    """A training's result, or one of its checkpoints; optionally sampled at another guidance_scale."""

    kind: Literal["tuned"] = Field("tuned", description="tuned")
    training: str = Field("tuned", description="which training: `tuned` or the name of a variant")
    checkpoint: int | None = Field(None, description="the checkpoint after this update; null means the result")
    guidance_scale: float | None = Field(None, description="instead of `sampling.guidance_scale`")


class LoraScalePoint(Strict):
    """The tuned model with a smaller or larger LoRA, the same at all steps."""

    kind: Literal["lora_scale"] = Field("lora_scale", description="lora_scale")
    scale: float = Field(description="a in base + a ΔW")


class SavingsConfig(Strict):
    """Fewer forwards at less exactness; fields as in `sfumato.Savings`."""

    tolerance: float = Field(0.0, ge=0, lt=0.5, description="a model whose weight is at most this is not run")
    reuse: int = Field(1, ge=1, description="steps for which a difference of tuned and base is used")
    drift: float | None = Field(None, gt=0, description="adapts that number, up to `reuse`, to this relative change")
    share_unconditional: bool = Field(False, description="one model computes the unconditional rows")
    one_forward: bool = Field(False, description="base and tuned rows in one forward")


class GuidancePoint(Strict):
    """Base and tuned blended while sampling; fields as in `sfumato.annealed_guidance`."""

    kind: Literal["guidance"] = Field("guidance", description="guidance")
    schedule: str = Field("power", description=f"g(u): {', '.join(FORMULAS)}")
    parameters: dict[str, float | list[tuple[float, float]]] = Field(
        {}, description="of the schedule: `p` of power, `f` of step, `points` of table, ..."
    )
    cap: float = Field(1.0, description="g is multiplied by this")
    clock: str = Field("index", description=f"what u is: {', '.join(CLOCKS)}")
    blend: Literal["predictions", "weights"] = Field("predictions", description="what is blended")
    savings: SavingsConfig = Field(SavingsConfig(), description="fewer forwards at less exactness")

    @model_validator(mode="after")
    def _schedule_exists(self) -> GuidancePoint:
        self.build()
        return self

    def build(self) -> Schedule:
        return schedule(self.schedule, cap=self.cap, clock=self.clock, **self.parameters)


PointConfig = Annotated[BasePoint | TunedPoint | LoraScalePoint | GuidancePoint, Field(discriminator="kind")]


def _reward_section(value: Any) -> Any:
    parts = value if isinstance(value, list) and value else [value]
    if not all(isinstance(part, str | dict) for part in parts):
        raise ValueError(f"a reward is a name, a name with options, or a list of these, not {value!r}")
    return [{"name": part} if isinstance(part, str) else part for part in parts] if isinstance(value, list) else value


RewardSection = Annotated[str | dict[str, Any] | list[dict[str, Any]], BeforeValidator(_reward_section)]
"""See `sfumato.rewards.build_reward`."""


class EvaluationConfig(Strict):
    """What is sampled and measured after training."""

    prompts: Prompts = Field(description="prompts, or a text file with one on each line")
    images_per_prompt: int = Field(12, ge=2, description="for every point, with the same seeds")
    batch_size: int = Field(12, ge=1, description="images at a time")
    seed: int = Field(1_000_000, ge=0, description="first of the evaluated seeds; the reference uses others")
    features: str = Field("judge", description="'judge' (bundled), or any vision model by folder or hub id")
    gold: RewardSection | None = Field(None, description="a reward that is never trained on")
    diversity: Literal["vendi", "distance", "recall", "style_entropy", "subcategory_entropy"] = Field(
        "vendi", description="the metric on the diversity axis; the entropies need the judge's features"
    )
    neighbours: int = Field(3, ge=1, description="k of precision and recall; less than images_per_prompt")
    points: list[PointConfig] = Field(min_length=2, description="the operating points: base, tuned and any others")

    @field_validator("prompts")
    @classmethod
    def _can_be_compared(cls, prompts: list[str]) -> list[str]:
        twice = sorted({prompt for prompt in prompts if prompts.count(prompt) > 1})
        if twice:
            raise ValueError(f"listed twice: {', '.join(twice)}")
        if len(prompts) < 3:
            raise ValueError(f"a frontier needs at least 3 prompts, to compare methods over; there are {len(prompts)}")
        return prompts

    @model_validator(mode="after")
    def _can_be_measured(self) -> EvaluationConfig:
        if self.images_per_prompt <= self.neighbours:
            raise ValueError(
                f"images_per_prompt is {self.images_per_prompt}, but recall with neighbours: {self.neighbours} needs "
                "more images than that for each prompt: raise the one or lower the other"
            )
        if self.diversity.endswith("_entropy") and self.features != "judge":
            raise ValueError(f"diversity: {self.diversity} is counted by the judge: set features: judge")
        return self


class Recipe(Strict):
    """Everything that `sfumato run` does, from the model to the report."""

    name: str = Field(description="what reports call it")
    description: str = Field("", description="one line")
    run: str | None = Field(None, description="the run folder; null means runs/NAME")
    pipeline: PipelineConfig = Field(PipelineConfig(), description="the model")
    sampling: SamplingConfig = Field(SamplingConfig(), description="how it samples")
    reward: RewardSection = Field(description="what is maximised: a name, or its options, or a list to be added up")
    prompts: Prompts = Field(description="training prompts, or a text file with one on each line")
    training: TrainingConfig = Field(TrainingConfig(), description="the training, which is called `tuned`")
    variants: dict[str, dict[str, Any]] = Field({}, description="further trainings: name -> changes to `training`")
    evaluation: EvaluationConfig | None = Field(None, description="what is measured; null for training only")

    @model_validator(mode="after")
    def _variants_fit(self) -> Recipe:
        for name in self.variants:
            if name in ("base", "tuned", "reference") or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
                raise ValueError(f"a variant cannot be named {name!r}: it is taken, or unfit for a folder's name")
        known = self.trainings
        for point in self.evaluation.points if self.evaluation else []:
            if not isinstance(point, TunedPoint):
                continue
            if point.training not in known:
                raise ValueError(f"a point names training {point.training!r}; there are: {', '.join(known)}")
            if point.checkpoint is not None and not known[point.training].saves(point.checkpoint):
                raise ValueError(
                    f"a point names checkpoint {point.checkpoint}, but training {point.training!r} is saved every "
                    f"{known[point.training].checkpoint_every} updates up to {known[point.training].steps}"
                )
        return self

    @property
    def trainings(self) -> dict[str, TrainingConfig]:
        """Every training of the recipe by name; `tuned` first."""
        found = {"tuned": self.training}
        for name, changes in self.variants.items():
            values = self.training.model_dump()
            try:
                merge(values, changes)
                found[name] = TrainingConfig.model_validate(values)
            except ValidationError as error:
                raise ValueError(f"variant {name!r}: " + "; ".join(_explain(error, TrainingConfig))) from None
            except ValueError as error:
                raise ValueError(f"variant {name!r}: {error}") from None
        return found

    @property
    def folder(self) -> Path:
        return Path(self.run or f"runs/{self.name}")

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain values, which load again to an equal recipe wherever the run folder is moved."""
        return self.model_dump(mode="json", exclude={"run"})


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml"))


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, apply `key=value` overrides, and check it.

    Args:
        source: the name of a shipped recipe, the path of a YAML file, or a run folder, which is then continued.
        overrides: such as `"training.lr=1e-4"`; the key is a dotted path, the value is read as YAML.

    Raises:
        RecipeError: no such recipe, broken YAML, an unknown key (the nearest right one is named), or a wrong value.
    """
    values = _read_yaml(source)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"cannot read {override!r}: overrides are written key=value, such as training.lr=1e-4")
        try:
            assign(values, key, parse_yaml(text))
        except (ValueError, yaml.YAMLError) as error:
            raise RecipeError(f"cannot read {override!r}: {' '.join(str(error).split())}") from None
    return parse_recipe(values, str(source))


def parse_recipe(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Check plain values and turn them into a Recipe; raises RecipeError."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + "; ".join(_explain(error, Recipe))) from None


def _folder() -> Any:
    return files("sfumato").joinpath("recipes")


def _read_yaml(source: str | Path) -> dict[str, Any]:
    name, path = str(source), Path(source)
    run = path if (path / "run.json").exists() else None
    path = path / "recipe.yaml" if run else path
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif name in shipped_recipes():
        text = _folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    else:
        near = difflib.get_close_matches(name, shipped_recipes(), 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RecipeError(
            f"there is no recipe {name!r}: {hint}Give the path of a YAML file, a run folder, or one of the shipped "
            f"recipes ({', '.join(shipped_recipes())})"
        )
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{name} is empty or not a mapping of keys to values")
    return {**values, "run": str(run)} if run else values


def _explain(error: ValidationError, root: type[BaseModel]) -> Iterator[str]:
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        if problem["type"] == "extra_forbidden":
            known = _keys_at(root, problem["loc"][:-1])
            near = difflib.get_close_matches(path[-1], known, 1, cutoff=0.5)
            hint = f"did you mean {'.'.join([*path[:-1], *near])!r}?" if near else f"known here: {', '.join(known)}"
            yield f"unknown key {'.'.join(path)!r}: {hint}"
        elif problem["type"] == "missing":
            yield f"{'.'.join(path)!r} is missing"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            yield f"{'.'.join(path)}: {message}" if path else message


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that are known at a location of a validation error."""
    models: dict[str, type[BaseModel]] = {
        "base": BasePoint, "tuned": TunedPoint, "lora_scale": LoraScalePoint, "guidance": GuidancePoint,
    }  # fmt: skip
    for part in location:
        if str(part) in models and model is EvaluationConfig:
            model = models[str(part)]
        elif part in model.model_fields:
            inner = [t for t in _types(model.model_fields[str(part)].annotation) if issubclass(t, BaseModel)]
            model = inner[0] if len(inner) == 1 else model
    return list(model.model_fields)


def _types(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    return [t for argument in getattr(annotation, "__args__", ()) for t in _types(argument)]
