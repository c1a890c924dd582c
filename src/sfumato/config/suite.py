"""A suite: one experiment in many settings, each of which is a recipe and a run of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from sfumato.config.recipe import Recipe, RecipeError, explain, override, parse_recipe, read_values
from sfumato.config.strict import Strict
from sfumato.values import assign, merge

FILE = "suite.yaml"


class Repeat(Strict):
    """A cell once more, with changes."""

    of: str = Field(description="the cell")
    changes: dict[str, Any] = Field(description="keys of its recipe, such as training.seed: 1")


class Suite(Strict):
    """A recipe in every combination of some settings. A cell is called after its settings: "unet-preference-mild"."""

    name: str = Field(description="what the results page calls it")
    description: str = Field("", description="one line")
    run: str | None = Field(None, description="the folder of the cells' run folders; null means runs/NAME")
    recipe: dict[str, Any] = Field(description="what all cells share: keys of a recipe, but for name and run")
    grid: dict[str, dict[str, dict[str, Any]]] = Field(description="axis -> setting -> changes to the recipe")
    repeats: dict[str, Repeat] = Field({}, description="further cells by name, such as one with another training seed")
    overrides: list[str] = Field([], description="key=value texts, which change every cell after all else")
    short: dict[str, Any] = Field(
        {}, description="dotted keys of this file and the values that make the suite short, for a first look"
    )

    @model_validator(mode="after")
    def _has_cells(self) -> Suite:
        if not self.grid or not all(self.grid.values()):
            raise ValueError("grid: a suite has an axis at least, and each axis a setting")
        for name in [*(setting for axis in self.grid.values() for setting in axis), *self.repeats]:
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
                raise ValueError(f"a setting or a cell cannot be named {name!r}: it is unfit for a folder's name")
        for name, repeat in self.repeats.items():
            if repeat.of not in self._grid_cells() or name in self._grid_cells():
                known = ", ".join(self._grid_cells())
                raise ValueError(f"repeats.{name}: `of` is one of {known}, and its own name another, not {repeat.of!r}")
        return self

    @property
    def folder(self) -> Path:
        return Path(self.run or f"runs/{self.name}")

    def cells(self) -> dict[str, Recipe]:
        """Every cell's recipe by name, in the order of the grid; raises RecipeError if one is not valid."""
        values = self._grid_cells()
        for name, repeat in self.repeats.items():
            values[name] = deepcopy(values[repeat.of])
            _merge(values[name], repeat.changes, name)
        for name, cell in values.items():
            override(cell, self.overrides)
            cell |= {"name": f"{self.name}/{name}", "run": str(self.folder / name)}
        return {name: parse_recipe(cell, f"cell {name}") for name, cell in values.items()}

    def _grid_cells(self) -> dict[str, dict[str, Any]]:
        found = {}
        for settings in product(*(axis.items() for axis in self.grid.values())):
            name = "-".join(setting for setting, _ in settings)
            found[name] = deepcopy(self.recipe)
            for _, changes in settings:
                _merge(found[name], changes, name)
        return found


def load_suite(source: str | Path, overrides: Sequence[str] = (), short: bool = False) -> Suite:
    """Read a suite by name or path, or from its folder.

    Args:
        source: the name of a shipped suite, the path of a YAML file, or the folder of a suite that is continued.
        overrides: `run=DIR` for the suite, any other `key=value` for the recipe of every cell.
        short: make the changes that the suite says would make it short; the folder is then called NAME-short.

    Raises:
        RecipeError: no such suite, broken YAML, or an unknown key.
    """
    values = read_values(_in_folder(source))
    if _in_folder(source) != source:
        values["run"] = str(source)
    elif short:
        values["run"] = f"{values.get('run') or 'runs/' + str(values.get('name'))}-short"
    if short:
        _assign(values, values.pop("short", {}))
    own = [text for text in overrides if text.startswith("run=")]
    override(values, own)
    values["overrides"] = [*values.get("overrides", []), *(text for text in overrides if text not in own)]
    try:
        suite = Suite.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{source}: " + "; ".join(explain(error, Suite))) from None
    return suite


def is_suite(source: str | Path) -> bool:
    """Whether a source of `load_recipe` or `load_suite` is a suite; False if there is no such source."""
    try:
        return "grid" in read_values(_in_folder(source))
    except RecipeError:
        return False


def _in_folder(source: str | Path) -> str | Path:
    inside = Path(source) / FILE
    return inside if inside.is_file() else source


def _assign(values: dict[str, Any], changes: dict[str, Any]) -> None:
    try:
        for key, value in changes.items():
            assign(values, key, value)
    except (ValueError, AttributeError) as error:
        raise RecipeError(f"short: {error}") from None


def _merge(values: dict[str, Any], changes: dict[str, Any], where: str) -> None:
    try:
        merge(values, changes)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from None
