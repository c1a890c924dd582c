"""Write the tables of docs/recipes.md from the typed recipe: `python -m tools.recipe_table`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sfumato.config import BasePoint, BestOfPoint, GuidancePoint, LoraScalePoint, Recipe, TunedPoint

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
BEGIN, END = "<!-- tables: python -m tools.recipe_table -->\n", "<!-- end of tables -->\n"


def tables() -> str:
    """Every key of a recipe in Markdown: a table for the top level, one for each section and each kind of point."""
    parts = ["### Top level\n", *table(Recipe)]
    for name, model, which in sections(Recipe):
        heading = f"\n### `{name}`: `name: {which}`\n" if which else f"\n### `{name}`\n"
        parts += [heading, f"{summary(model)}\n", *table(model, name, leave_out="name" if which else "")]
    for model in (BasePoint, TunedPoint, LoraScalePoint, GuidancePoint, BestOfPoint):
        kind = model.model_fields["kind"].default
        parts += [f"\n### A point of `evaluation.points`: `kind: {kind}`\n", f"{summary(model)}\n"]
        parts += table(model, leave_out="kind") if len(model.model_fields) > 1 else []
        for name, inner, _ in sections(model):
            parts += [f"\n`{name}`: {summary(inner)}\n", *table(inner, name)]
    return "\n".join(parts) + "\n"


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """Groups of keys by their dotted name, an outer one before those in it, and the kind where there are several."""
    for name, field in model.model_fields.items():
        inner = inner_models(field)
        for each in inner:
            which = each.model_fields["name"].default if "name" in each.model_fields else ""
            yield f"{prefix}{name}", each, which
            yield from sections(each, f"{prefix}{name}.")


def table(model: type[BaseModel], prefix: str = "", leave_out: str = "") -> list[str]:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name != leave_out:
            key = f"{prefix}.{name}" if prefix else name
            lines.append(f"| `{key}` | {kind(field)} | {default(field)} | {field.description} |")
    return lines


def summary(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def inner_models(field: FieldInfo) -> list[type[BaseModel]]:
    options = [field.annotation, *get_args(field.annotation)]
    return [each for each in options if isinstance(each, type) and issubclass(each, BaseModel)]


def kind(field: FieldInfo) -> str:
    if inner_models(field):
        return "group"
    return spelled(field.annotation) + "".join(f", {limit}" for limit in limits(field))


def spelled(annotation: Any) -> str:
    """A type as people say it."""
    names = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null", Any: "anything"}
    if annotation in names:
        return names[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin is Annotated:
        return spelled(inner[0])
    if origin in (UnionType, Union):
        return " or ".join(dict.fromkeys(spelled(each) for each in inner))
    if origin is tuple:
        return f"{len(inner)} {spelled(inner[0])}s"
    return {list: "list", dict: "group"}.get(origin, str(annotation))


def limits(field: FieldInfo) -> Iterator[str]:
    for limit in field.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("lt", "<")):
            if hasattr(limit, name):
                yield f"{sign} {getattr(limit, name)}"


def default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "needed"
    if isinstance(field.default, BaseModel):
        return ""
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}`"


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + tables() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
