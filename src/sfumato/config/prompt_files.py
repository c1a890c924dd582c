"""Prompts in files: text, JSON, JSON lines, tables of comma- or tab-separated values, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

COLUMNS = ("prompt", "caption", "text")
"""Names of the column with the prompts, the first one that a table has, whatever its case."""


def read_file(path: Path, column: str | None = None, where: str | None = None) -> list[str]:
    """The prompts of a file, by its ending: .jsonl, .json, .csv, .tsv, .parquet, or else text with one on each line.

    Args:
        column: of a table or of JSON objects; without it the first of `COLUMNS`.
        where: what errors call the file; without it its path.

    Raises:
        ValueError: it is not text in UTF-8, not of its kind, has no such column, or holds something that is not text.
        ImportError: Parquet needs an extra.
    """
    where = where or str(path)
    if path.suffix.lower() == ".parquet":
        return _texts(_parquet(path, column, where), where, "row")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not text in UTF-8 ({error.reason} at byte {error.start}): convert it") from None
    if reader := READERS.get(path.suffix.lower()):
        return _texts(reader(text, column, where), where, "line" if path.suffix.lower() == ".jsonl" else "row")
    if column is not None:
        raise ValueError(f"{where} is plain text, which has no column {column!r}")
    return text.splitlines()


def _jsonl(text: str, column: str | None, where: str) -> list[tuple[int, Any]]:
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                records.append((number, json.loads(line)))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} of {where} is not JSON: {error.msg}") from None
    return _values(records, column, where)


def _json(text: str, column: str | None, where: str) -> list[tuple[int, Any]]:
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} of {where} is not JSON: {error.msg}") from None
    if not isinstance(records, list):
        raise ValueError(f"{where} must hold a list of texts or of objects, not {type(records).__name__}")
    return _values(list(enumerate(records, 1)), column, where)


def _values(records: list[tuple[int, Any]], column: str | None, where: str) -> list[tuple[int, Any]]:
    """Of each (number, record), the text itself or the column of the object."""
    objects = [record for _, record in records if isinstance(record, dict)]
    if not objects:
        if column is not None and records:
            raise ValueError(f"{where} holds texts, which have no column {column!r}")
        return records
    key = choose_column(dict.fromkeys(key for record in objects for key in record), column, where)
    return [(number, record.get(key) if isinstance(record, dict) else record) for number, record in records]


def _separated(delimiter: str) -> Callable[[str, str | None, str], list[tuple[int, Any]]]:
    def read(text: str, column: str | None, where: str) -> list[tuple[int, Any]]:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        key = choose_column(rows.fieldnames or [], column, where)
        return [(number, row[key]) for number, row in enumerate(rows, 1)]

    return read


READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _separated(","), ".tsv": _separated("\t")}


def _parquet(path: Path, column: str | None, where: str) -> list[tuple[int, Any]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise ImportError(f"{where} is a Parquet file, which needs pyarrow: pip install 'sfumato[data]'") from None
    try:
        key = choose_column(parquet.read_schema(path).names, column, where)
        values = parquet.read_table(path, columns=[key]).column(key).to_pylist()
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{where} is not a Parquet file: {error}") from None
    return list(enumerate(values, 1))


def choose_column(names: Iterable[str], column: str | None, where: str) -> str:
    """The column that was asked for, or the first of `COLUMNS` that is there.

    Raises:
        ValueError: there is none.
    """
    names = list(names)
    if column is not None and column in names:
        return column
    found = [name for wanted in COLUMNS for name in names if name.lower() == wanted] if column is None else []
    if found:
        return found[0]
    wanted = f"column {column!r}" if column is not None else f"column named {', '.join(COLUMNS)}"
    hint = "" if column is not None else ": say which one with FILE:COLUMN"
    raise ValueError(f"{where} has no {wanted}{hint}; its columns are {', '.join(map(repr, names)) or '(none)'}")


def _texts(values: list[tuple[int, Any]], where: str, unit: str) -> list[str]:
    """The values, those that are missing as blanks.

    Raises:
        ValueError: one is neither text nor missing.
    """
    for number, value in values:
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{unit} {number} of {where} holds {value!r}, which is not text")
    return [value or "" for _, value in values]
