"""Nested plain values as YAML gives them: reading, and changing one by its dotted key."""

from __future__ import annotations

from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """The values of a YAML text, in which `1e-4` is a number: YAML 1.1 would read it as text.

    Raises:
        yaml.YAMLError: it is not valid YAML.
    """
    return _with_numbers(yaml.safe_load(text))


def number(what: str, value: Any) -> float:
    """A value as a number; raises ValueError, by the name `what`, if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{what} is a number, not {value!r}") from None


def assign(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one value, such as `training.lr`; groups that are not there are made.

    Raises:
        ValueError: the path leads through something that is not a group of keys.
    """
    *parents, last = dotted.split(".")
    for key in parents:
        if values.get(key) is None:
            values[key] = {}
        child = values[key]
        if not isinstance(child, dict):
            raise ValueError(f"{key!r} is a value, not a group of keys")
        values = child
    values[last] = value


def merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Write changes into nested values; their keys may be dotted.

    Raises:
        ValueError: as for `assign`.
    """
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            assign(values, key, value)


def _with_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    if isinstance(value, str) and value[:1] in "+-.0123456789" and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value
