"""A whole recipe: its parts checked together, its file, its overrides, and errors that name the nearest right key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from sfumato.config.evaluation import EvaluationConfig
from sfumato.config.points import GuidancePoint, TunedPoint
from sfumato.config.prompts import Prompts
from sfumato.config.sections import PipelineConfig, RewardSection, SamplingConfig, TrainingConfig
from sfumato.config.strict import Strict
from sfumato.values import assign, merge, parse_yaml


class RecipeError(ValueError):
    """A recipe or an override that cannot be used; the message says what to change."""


class Recipe(Strict):
    """Everything that `sfumato run` does, from the model to the report."""

    name: str = Field(description="what reports call it")
    description: str = Field("", description="one line")
    run: str | None = Field(None, description="the run folder; null means runs/NAME")
    pipeline: PipelineConfig = Field(PipelineConfig(), description="the model")
    sampling: SamplingConfig = Field(SamplingConfig(), description="how it samples")
    reward: RewardSection = Field(description="what is maximised: a name, or its options, or a list to be added up")
    prompts: Prompts = Field(description="training prompts, a file of them, or a set: docs/prompts.md")
    training: TrainingConfig = Field(TrainingConfig(), description="the training, which is called `tuned`")
    variants: dict[str, dict[str, Any]] = Field({}, description="further trainings: name -> changes to `training`")
    evaluation: EvaluationConfig | None = Field(None, description="what is measured; null for training only")

    @model_validator(mode="after")
    def _variants_fit(self) -> Recipe:
        for name in self.variants:
            if name in ("base", "tuned", "reference") or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
                raise ValueError(f"a variant cannot be named {name!r}: it is taken, or unfit for a folder's name")
        tuned_on = set(self.prompts) & set((self.evaluation and self.evaluation.unrelated) or [])
        if tuned_on:
            raise ValueError(f"evaluation.unrelated: {min(tuned_on)!r} is a training prompt, so no drift shows on it")
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

    @model_validator(mode="after")
    def _points_fit(self) -> Recipe:
        points = self.evaluation.points if self.evaluation else []
        forward = [point for point in points if isinstance(point, GuidancePoint) and point.savings.one_forward]
        if forward and self.training.lora is None:
            raise ValueError(
                "a point has savings.one_forward, which is for LoRAs, but training.lora: null trains the whole "
                "denoiser: leave it out"
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
                raise ValueError(f"variant {name!r}: " + "; ".join(explain(error, TrainingConfig))) from None
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
    return _names(_folder())


def shipped_suites() -> list[str]:
    """Names of the suites that come with the package."""
    return _names(_folder().joinpath("suites"))


def shipped_text(name: str) -> str:
    """The YAML of a shipped recipe or suite."""
    folder = _folder().joinpath("suites") if name in shipped_suites() else _folder()
    return folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, apply `key=value` overrides, and check it.

    Args:
        source: the name of a shipped recipe, the path of a YAML file, or a run folder, which is then continued.
        overrides: such as `"training.lr=1e-4"`; the key is a dotted path, the value is read as YAML.

    Raises:
        RecipeError: no such recipe, broken YAML, an unknown key (the nearest right one is named), or a wrong value.
    """
    values = read_values(source)
    if "grid" in values:
        raise RecipeError(f"{source} is a suite of recipes: only `sfumato run {source}` takes it")
    override(values, overrides)
    return parse_recipe(values, str(source))


def override(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Write `key=value` texts into plain values; raises RecipeError."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise RecipeError(f"cannot read {text!r}: overrides are written key=value, such as training.lr=1e-4")
        try:
            assign(values, key, parse_yaml(value))
        except (ValueError, yaml.YAMLError) as error:
            raise RecipeError(f"cannot read {text!r}: {' '.join(str(error).split())}") from None


def parse_recipe(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Check plain values and turn them into a Recipe; raises RecipeError."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + "; ".join(explain(error, Recipe))) from None


def _folder() -> Any:
    return files("sfumato").joinpath("recipes")


def _names(folder: Any) -> list[str]:
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def read_values(source: str | Path) -> dict[str, Any]:
    """The plain values of a recipe or suite by name or path, or of a run folder's; raises RecipeError."""
    name, path = str(source), Path(source)
    run = path if (path / "run.json").exists() else None
    path = path / "recipe.yaml" if run else path
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif name in (shipped := [*shipped_recipes(), *shipped_suites()]):
        text = shipped_text(name)
    else:
        near = difflib.get_close_matches(name, shipped, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RecipeError(
            f"there is no recipe {name!r}: {hint}Give the path of a YAML file, a run folder, or one of the shipped "
            f"recipes ({', '.join(shipped)})"
        )
    values = parse_mapping(text, name)
    return {**values, "run": str(run)} if run else values


def parse_mapping(text: str, name: str) -> dict[str, Any]:
    """The keys and values of a YAML text; raises RecipeError, by the name of its file."""
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{name} is empty or not a mapping of keys to values")
    return values


def read_arguments(arguments: Sequence[str], read: Callable[[Path], dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """The values that a command's arguments give, and the file that they come from, empty if there is none.

    Args:
        arguments: the path of a file, if any; then `key=value`.
        read: gives the values of the file.

    Raises:
        RecipeError: an argument that cannot be read, or as `read`.
    """
    files, overrides = list(arguments[:1]), list(arguments[1:])
    if files and "=" in files[0]:
        files, overrides = [], list(arguments)
    values = read(Path(files[0])) if files else {}
    override(values, overrides)
    return values, files[0] if files else ""


def explain(error: ValidationError, root: type[BaseModel]) -> Iterator[str]:
    """A sentence for each problem of values that do not fit a group of keys."""
    for problem in error.errors():
        path, models, siblings = _followed(root, problem["loc"])
        if problem["type"] == "extra_forbidden" and any(path[-1] in model.model_fields for model in siblings):
            yield (
                f"{'.'.join(path)!r} is no key of {_kinds(models[0])[0]!r}: to change from one to another, replace "
                f"the whole section, '{'.'.join(path[:-1])}={{...}}'"
            )
        elif problem["type"] == "extra_forbidden":
            known = [key for model in models for key in model.model_fields]
            near = difflib.get_close_matches(path[-1], known, 1, cutoff=0.5)
            hint = f"did you mean {'.'.join([*path[:-1], *near])!r}?" if near else f"known here: {', '.join(known)}"
            yield f"unknown key {'.'.join(path)!r}: {hint}"
        elif problem["type"] == "missing":
            yield f"{'.'.join(path)!r} is missing"
        elif problem["type"] == "union_tag_invalid":
            key, kind, known = (problem["ctx"][name] for name in ("discriminator", "tag", "expected_tags"))
            near = difflib.get_close_matches(kind, re.findall("'([^']*)'", known), 1)
            hint = f"did you mean {near[0]!r}? There are" if near else "there are"
            yield f"{'.'.join(path)}: no {key[1:-1]} is {kind!r}: {hint} {known}"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            yield f"{'.'.join(path)}: {message}" if path else message


def _followed(
    root: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[list[str], list[type[BaseModel]], list[type[BaseModel]]]:
    """The location of a validation error as a path of keys, the groups of keys in which it ends, and their other kinds.

    Where a group is one of several kinds, pydantic puts the kind into the location; a recipe has no such key.
    """
    path: list[str] = []
    models, inner, siblings = [root], [root], []
    for part in location:
        kinds = [model for model in inner if part in _kinds(model) and part not in model.model_fields]
        if kinds:
            siblings = [model for model in inner if model not in kinds]
            models = inner = kinds
            continue
        siblings = [] if models is not inner else siblings
        path.append(str(part))
        models = inner if inner else models
        fields = [model.model_fields[str(part)] for model in models if str(part) in model.model_fields]
        inner = [t for field in fields for t in _types(field.annotation) if issubclass(t, BaseModel)] or (
            inner if isinstance(part, int) else []
        )
    return path, models, siblings


def _kinds(model: type[BaseModel]) -> list[Any]:
    """What a group's `name` or `kind` can be, where it tells the group from others."""
    return [field.default for key in ("name", "kind") if (field := model.model_fields.get(key)) and field.default]


def _types(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    return [t for argument in getattr(annotation, "__args__", ()) for t in _types(argument)]
